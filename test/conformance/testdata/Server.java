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
      case "/dir": status = 301; out = "moved".getBytes(); x.getResponseHeaders().set("Location", "/dir/"); break;
      case "/dir/": out = "dir".getBytes(); break;
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
      System.out.println("LOG " + x.getRemoteAddress().getAddress().getHostAddress() + " " + x.getRemoteAddress().getPort() + " " + x.getRequestMethod() + " " + x.getRequestURI() + " " + status + " " + body.length + " " + out.length);
    }
  }
}
