MOVED = [("Location", "/dir/")]

def application(environ, start_response):
    path = environ["PATH_INFO"]
    environ["raw_uri"], environ["port"] = environ["RAW_URI"], environ["REMOTE_PORT"]
    body = environ["wsgi.input"].read()
    status, chunks, headers = "200 OK", None, []
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
    elif path == "/dir":
        status, chunks, headers = "301 Moved Permanently", [b"moved"], MOVED
    elif path == "/dir/":
        chunks = [b"dir"]
    else:
        try:
            chunks = [open("www" + path, "rb").read()]
        except OSError:
            status, chunks = "404 Not Found", [b"none"]
    if status[0:3] not in ("204", "304"):
        headers = headers + [("Content-Length", str(sum(map(len, chunks))))]
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else chunks
