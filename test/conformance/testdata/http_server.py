"""http.server, with the client's port in its log."""
import functools, http.server, socket, socketserver, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        host, port, *_ = self.client_address
        sys.stdout.write(f"LOG {host} {port} {self.command} {self.path} {int(code)}\n")
        sys.stdout.flush()

    def log_error(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 64

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks for the host's name

Server(("::", int(sys.argv[1])), functools.partial(Handler, directory=sys.argv[2])).serve_forever()
