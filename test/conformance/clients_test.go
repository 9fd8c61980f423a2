//go:build conformance && linux

package conformance

import (
	"strings"
	"testing"
)

// client is a program that makes requests. URL in its arguments is the server's.
type client struct {
	args    []string
	static  bool // only for servers of files
	dynamic bool // only for servers of programs: see testdata
	fails   bool // its exit status does not matter
}

func curl(args ...string) client {
	return client{args: append([]string{"curl", "-sS", "-m", "20"}, args...)}
}

func forPrograms(c client) client { c.dynamic = true; return c }
func forFiles(c client) client    { c.static = true; return c }

// null returns n times "-o /dev/null".
func null(urls ...string) []string {
	var args []string
	for _, u := range urls {
		args = append(args, "-o", "/dev/null", u)
	}
	return args
}

var clients = []client{
	curl(null("URL/small", "URL/small?a=b&c", "URL/large", "URL/none", "URL/empty", "URL/medium")...),
	curl(append([]string{"-0"}, null("URL/small", "URL/large")...)...),
	curl(append([]string{"-I"}, null("URL/small", "URL/large", "URL/none")...)...),
	curl(append([]string{"-H", "Cookie: " + strings.Repeat("c", 6000)}, null("URL/small", "URL/medium")...)...),
	curl(append([]string{"-H", "Connection: close"}, null("URL/small", "URL/medium")...)...),
	forFiles(curl(append([]string{"-r", "100-299"}, null("URL/medium", "URL/large")...)...)),
	forFiles(curl(append([]string{"-z", "2100-01-01"}, null("URL/medium", "URL/large")...)...)),
	forPrograms(curl("-T", "medium", "-o", "/dev/null", "URL/echo", "-T", "small", "-o", "/dev/null", "URL/count", "-T", "large", "-o", "/dev/null", "URL/echo")),
	forPrograms(curl("-H", "Expect: 100-continue", "-T", "large", "-o", "/dev/null", "URL/count", "-T", "medium", "-o", "/dev/null", "URL/echo")),
	forPrograms(curl("-H", "Transfer-Encoding: chunked", "-T", "large", "-o", "/dev/null", "URL/count", "-T", "medium", "-o", "/dev/null", "URL/echo")),
	forPrograms(curl(append([]string{"-d", "GET /fake HTTP/1.1"}, null("URL/echo", "URL/chunked", "URL/count")...)...)),
	forPrograms(curl(append([]string{"-X", "DELETE"}, null("URL/echo", "URL/nocontent", "URL/chunked")...)...)),
	forPrograms(curl(append([]string{"-X", "PROPFIND"}, null("URL/count")...)...)),
	forPrograms(curl(null("URL/chunked", "URL/nocontent", "URL/notmodified", "URL/chunked")...)),
	{args: []string{"wget", "-q", "-O", "/dev/null", "URL/small", "URL/medium", "URL/large"}},
	{args: []string{"ab", "-q", "-s", "2", "-n", "300", "-c", "3", "-k", "URL/small"}, fails: true}, // not every server keeps HTTP/1.0 alive
	{args: []string{"ab", "-q", "-n", "100", "-c", "3", "URL/medium"}},
	{args: []string{"h2load", "--h1", "-n", "300", "-c", "4", "URL/small"}},
	{args: []string{"wrk", "-t", "1", "-c", "4", "-d", "1s", "URL/small"}},
	{args: []string{"python3", "client.py", "URL"}},
}

// documents writes the files that servers serve and clients send.
func (l *lab) documents(t *testing.T) {
	t.Helper()
	for name, text := range map[string]string{
		"small":  "hello\n",
		"empty":  "",
		"medium": strings.Repeat("GET /fake HTTP/1.1\r\nHost: fake\r\n\r\n", 400),
		"large":  strings.Repeat("HTTP/1.1 200 Fake\r\nContent-Length: 5\r\n\r\nhello", 60000),
	} {
		l.writeFile(t, "www/"+name, text)
		l.writeFile(t, name, text)
	}
	l.writeFile(t, "client.py", pipelining)
}

// pipelining is a client in Python: http.client, then requests sent at once, in
// pieces, with empty lines before them and half-closed.
const pipelining = `
import http.client, socket, sys, time
host, port = sys.argv[1].removeprefix("http://").split(":")
c = http.client.HTTPConnection(host, int(port), timeout=20)
for path in "/small", "/medium", "/none", "/large":
    c.request("GET", path)
    c.getresponse().read()
c.close()

def get(path, close=False):
    return b"GET %s HTTP/1.1\r\nHost: a.example\r\n%s\r\n" % (path, b"Connection: close\r\n" if close else b"")

def talk(*pieces, half_close=False):
    s = socket.create_connection((host, int(port)), timeout=20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for p in pieces:
        s.sendall(p)
        if len(pieces) > 1:
            time.sleep(0.002)
    if half_close:
        s.shutdown(socket.SHUT_WR)
    try:
        while s.recv(1 << 16):
            pass
    except OSError:
        pass
    s.close()

talk(b"".join(get(b"/small?%d" % i) for i in range(30)) + get(b"/medium", True))
talk(*[bytes([b]) for b in get(b"/small?pieces", True)])
talk(get(b"/large", True))
talk(b"GET /small?1.0 HTTP/1.0\r\n\r\n")
`
