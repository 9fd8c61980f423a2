//go:build conformance && linux

package conformance

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// The servers of programs know these paths; they log method, target, status and
// the sizes of both contents.
//
//	/echo         the content of the request
//	/count        its size, in decimal
//	/chunked      ten chunks
//	/nocontent    204
//	/notmodified  304
//	/small, /medium, /large, /empty  files; any other: 404

const asGoServer = "serve"

func TestMain(m *testing.M) {
	h2Main()
	if len(os.Args) == 2 && os.Args[1] == asGoServer {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(fmt.Sprintf(":%d", port), http.HandlerFunc(serveGo)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveGo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	status, sent := 200, ""
	switch r.URL.Path {
	case "/echo":
		sent = string(body)
	case "/count":
		sent = fmt.Sprint(len(body))
	case "/chunked":
		sent = strings.Repeat("GET /fake HTTP/1.1\r\n\r\n", 10)
	case "/nocontent":
		status = http.StatusNoContent
	case "/notmodified":
		status = http.StatusNotModified
	default:
		if b, err := os.ReadFile("www" + r.URL.Path); err == nil {
			sent = string(b)
		} else {
			status, sent = http.StatusNotFound, "none"
		}
	}
	if r.URL.Path != "/chunked" && status != http.StatusNoContent && status != http.StatusNotModified {
		w.Header().Set("Content-Length", fmt.Sprint(len(sent)))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		sent = ""
	}
	for rest := sent; rest != ""; {
		n := len(rest)
		if r.URL.Path == "/chunked" {
			n = min(n, len(sent)/10)
		}
		_, _ = io.WriteString(w, rest[:n])
		w.(http.Flusher).Flush()
		rest = rest[n:]
	}
	fmt.Printf("LOG %s %s %d %d %d\n", r.Method, r.RequestURI, status, len(body), len(sent))
}

const gunicornApplication = `
def application(environ, start_response):
    path = environ["PATH_INFO"]
    environ["raw_uri"] = environ["RAW_URI"]
    body = environ["wsgi.input"].read()
    status, chunks = "200 OK", None
    if path == "/echo":
        chunks = [body]
    elif path == "/count":
        chunks = [b"%d" % len(body)]
    elif path == "/chunked":
        start_response(status, [])
        return iter([b"GET /fake HTTP/1.1\r\n\r\n"] * 10)
    elif path == "/nocontent":
        status, chunks = "204 No Content", []
    elif path == "/notmodified":
        status, chunks = "304 Not Modified", []
    else:
        try:
            chunks = [open("www" + path, "rb").read()]
        except OSError:
            status, chunks = "404 Not Found", [b"none"]
    headers = [] if status[0:3] in ("204", "304") else [("Content-Length", str(sum(map(len, chunks))))]
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else chunks
`

const nodeServer = `
const http = require("http"), fs = require("fs")
http.createServer({keepAliveTimeout: 60000, requireHostHeader: false}, (req, res) => {
  const parts = []
  req.on("data", d => parts.push(d))
  req.on("end", () => {
    const body = Buffer.concat(parts), path = req.url.split("?")[0]
    let status = 200, out = Buffer.alloc(0)
    if (path === "/echo") out = body
    else if (path === "/count") out = Buffer.from(String(body.length))
    else if (path === "/nocontent") status = 204
    else if (path === "/notmodified") status = 304
    else if (path === "/chunked") {
      const chunk = "GET /fake HTTP/1.1\r\n\r\n"
      res.writeHead(200)
      for (let i = 0; i < 10; i++) if (req.method !== "HEAD") res.write(chunk)
      res.end()
      console.log("LOG", req.method, req.url, 200, body.length, req.method === "HEAD" ? 0 : 10 * chunk.length)
      return
    } else try { out = fs.readFileSync("www" + path) } catch { status = 404; out = Buffer.from("none") }
    res.writeHead(status, status === 204 || status === 304 ? {} : {"Content-Length": out.length})
    if (req.method === "HEAD") out = Buffer.alloc(0)
    res.end(out)
    console.log("LOG", req.method, req.url, status, body.length, out.length)
  })
}).listen(Number(process.argv[2]))
`

const javaServer = `
import com.sun.net.httpserver.*;
import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.util.concurrent.*;

public class Server {
  public static void main(String[] args) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[0])), 64);
    server.setExecutor(Executors.newFixedThreadPool(8));
    server.createContext("/", Server::serve);
    server.start();
  }

  static void serve(HttpExchange x) throws IOException {
    byte[] body = x.getRequestBody().readAllBytes(), out = new byte[0];
    String path = x.getRequestURI().getPath();
    boolean head = x.getRequestMethod().equals("HEAD");
    int status = 200;
    long length = 0;
    switch (path) {
      case "/echo": out = body; break;
      case "/count": out = String.valueOf(body.length).getBytes(); break;
      case "/chunked": out = "GET /fake HTTP/1.1\r\n\r\n".repeat(10).getBytes(); break;
      case "/nocontent": status = 204; break;
      case "/notmodified": status = 304; break;
      default:
        try { out = Files.readAllBytes(Path.of("www" + path)); }
        catch (IOException e) { status = 404; out = "none".getBytes(); }
    }
    if (status == 204 || status == 304 || head || out.length == 0) { length = -1; }
    else if (!path.equals("/chunked")) { length = out.length; }
    if (length < 0) out = new byte[0];
    x.sendResponseHeaders(status, length);
    if (length >= 0) x.getResponseBody().write(out);
    x.close();
    synchronized (System.out) {
      System.out.println("LOG " + x.getRequestMethod() + " " + x.getRequestURI() + " " + status + " " + body.length + " " + out.length);
    }
  }
}
`
