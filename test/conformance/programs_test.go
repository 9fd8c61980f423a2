//go:build conformance && linux

package conformance

import (
	"crypto/sha1"
	_ "embed"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// The servers of programs know these paths; they log the client's address and
// port, method, target, status and the sizes of both contents.
//
//	/echo         the content of the request
//	/count        its size, in decimal
//	/chunked      ten chunks
//	/nocontent    204
//	/notmodified  304
//	/dir          301 to /dir/
//	/small, /medium, /large, /empty, …  files; any other: 404
//
// Those of modern programs (see server) these too:
//
//	/cached    304 if the client has it
//	/hints     103, then 200
//	/trailers  trailers after chunks
//	/events    five server-sent events
//	/ws        a WebSocket
var (
	//go:embed testdata/application.py
	gunicornApplication string
	//go:embed testdata/server.js
	nodeServer string
	//go:embed testdata/Server.java
	javaServer string
	//go:embed testdata/http_server.py
	pythonServer string
)

// What the test binary is, by its first argument.
const (
	asGoServer  = "serve"
	asRawClient = "raw"
)

func TestMain(m *testing.M) {
	h2Main()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case asGoServer:
			fmt.Fprintln(os.Stderr, http.ListenAndServe(fmt.Sprintf(":%d", port), http.HandlerFunc(serveGo)))
			os.Exit(1)
		case asRawClient:
			os.Exit(rawClient(os.Args[2], os.Args[3:]))
		}
	}
	os.Exit(m.Run())
}

const fake = "GET /fake HTTP/1.1\r\n\r\n"

func serveGo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	host, from, _ := net.SplitHostPort(r.RemoteAddr)
	log := func(status, sent int) {
		fmt.Printf("LOG %s %s %s %s %d %d %d\n", host, from, r.Method, r.RequestURI, status, len(body), sent)
	}
	status, sent, pieces := http.StatusOK, "", 1
	switch r.URL.Path {
	case "/echo":
		sent = string(body)
	case "/count":
		sent = fmt.Sprint(len(body))
	case "/chunked":
		sent, pieces = strings.Repeat(fake, 10), 10
	case "/nocontent":
		status = http.StatusNoContent
	case "/notmodified":
		status = http.StatusNotModified
	case "/dir":
		status, sent = http.StatusMovedPermanently, "moved"
		w.Header().Set("Location", "/dir/")
	case "/dir/":
		sent = "dir"
	case "/cached":
		if sent = "cached"; r.Header.Get("If-None-Match") == `"1"` {
			status, sent = http.StatusNotModified, ""
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Cache-Control", "no-cache")
	case "/hints":
		w.Header().Set("Link", "</r/1>; rel=preload; as=image")
		w.WriteHeader(http.StatusEarlyHints)
		sent = "hints"
	case "/trailers":
		w.Header().Set("Trailer", "X-Sum")
		defer w.Header().Set("X-Sum", "1")
		sent, pieces = fake+fake, 2
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		sent, pieces = strings.Repeat("data: GET /fake HTTP/1.1\n\n", 5), 5
	case "/ws":
		webSocket(w, r, log)
		return
	default:
		status, sent = readFile(w, r.URL.Path)
	}
	if pieces == 1 && status != http.StatusNoContent && status != http.StatusNotModified {
		w.Header().Set("Content-Length", fmt.Sprint(len(sent)))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		sent = ""
	}
	for i := range pieces {
		n := len(sent) / pieces
		_, _ = io.WriteString(w, sent[i*n:(i+1)*n])
		w.(http.Flusher).Flush()
		if r.URL.Path == "/events" {
			time.Sleep(20 * time.Millisecond)
		}
	}
	log(status, len(sent))
}

func readFile(w http.ResponseWriter, path string) (status int, text string) {
	b, err := os.ReadFile("www" + path)
	if err != nil {
		return http.StatusNotFound, "none"
	}
	if strings.HasSuffix(path, ".html") {
		w.Header().Set("Content-Type", "text/html")
	}
	return http.StatusOK, string(b)
}

// webSocket sends a message and ends after one from the client (RFC 6455).
func webSocket(w http.ResponseWriter, r *http.Request, log func(status, sent int)) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	fmt.Fprintf(rw, "\x81%c%s", len(fake), fake)
	if rw.Flush() == nil {
		log(http.StatusSwitchingProtocols, 0)
	}
	_, _ = rw.ReadByte()
	_, _ = io.WriteString(conn, "\x88\x00")
}
