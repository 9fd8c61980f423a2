//go:build conformance && linux

package conformance

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// h2Servers are those that speak HTTP/2 without TLS. Apache does with prior
// knowledge and by Upgrade, the others with prior knowledge.
var h2Servers = []server{
	nghttpd("nghttpd"),
	nghttpd("nghttpd with padding, push, trailers and large tables", "--padding=100", "--push=/small=/empty,/medium",
		"--trailer=x-checksum: 1", "--header-table-size=65536", "--encoder-header-table-size=65536"),
	{
		name: "nginx", programs: []string{"nginx"}, kind: files, stop: syscall.SIGQUIT, log: "access.log", entries: regexp.MustCompile(logDown),
		command: func(t *testing.T, l *lab) []string {
			return []string{"nginx", "-e", "stderr", "-c", l.writeFile(t, "nginx.conf", fmt.Sprintf(`
daemon off; user root; pid %[1]s/nginx.pid; worker_processes 1;
events { worker_connections 256; }
http {
	log_format spile "LOG $remote_addr $remote_port $request_method $request_uri $status $body_bytes_sent";
	access_log %[1]s/access.log spile;
	client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	keepalive_requests 1000000; keepalive_timeout 60s; http2_max_concurrent_streams 2000; large_client_header_buffers 4 64k;
	server { listen %[2]d http2; root %[1]s/www; }
}`, l.dir, port))}
		},
	},
	{
		name: "apache", programs: []string{"apache2"}, kind: files, stop: syscall.SIGTERM, log: "access.log", entries: regexp.MustCompile(logDown),
		parse: func(log string) string {
			log = regexp.MustCompile(`(?m)^LOG .* 101 .*\n`).ReplaceAllString(log, "") // of a request that it upgraded and then answered
			return regexp.MustCompile(`(?m)^(LOG \S+ \S+ HEAD .*) \d+$`).ReplaceAllString(log, "$1 0")
		},
		command: func(t *testing.T, l *lab) []string {
			return []string{"apache2", "-D", "FOREGROUND", "-f", l.writeFile(t, "apache.conf", fmt.Sprintf(`
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
Protocols h2c http/1.1
H2Upgrade on
H2Direct on
H2MaxSessionStreams 2000
LimitRequestFieldSize 65536
ServerName a.example
PidFile %[1]s/apache.pid
DefaultRuntimeDir %[1]s
ErrorLog %[1]s/error.log
LogFormat "LOG %%a %%{remote}p %%m %%U%%q %%>s %%B" spile
CustomLog %[1]s/access.log spile
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Listen %[2]d
DocumentRoot %[1]s/www
`, l.dir, port))}
		},
	},
	{
		name: "node", kind: programs, programs: []string{"node"}, stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(t *testing.T, l *lab) []string {
			return []string{"node", l.writeFile(t, "h2server.js", nodeH2Server), strconv.Itoa(port)}
		},
	},
	{
		name: "go", kind: programs, stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(*testing.T, *lab) []string { return []string{"/proc/self/exe", asGoH2Server} },
	},
}

func nghttpd(name string, args ...string) server {
	return server{
		name: name, programs: []string{"nghttpd"}, kind: files, stop: syscall.SIGTERM,
		entries: regexp.MustCompile(`^LOG (?P<method>\S+) (?P<target>\S+) (?P<status>\d+)$`), parse: parseNghttpd,
		command: func(_ *testing.T, l *lab) []string {
			return append(append([]string{"nghttpd", "-v", "--no-tls", "-d", l.dir + "/www", "-m", "2000"}, args...), strconv.Itoa(port))
		},
	}
}

// parseNghttpd makes an access log of the frames that nghttpd lists.
func parseNghttpd(log string) string {
	field := regexp.MustCompile(`^\[id=(\d+)\] \[.*?\] recv \(stream_id=(\d+)\) (:method|:path): (\S+)`)
	sent := regexp.MustCompile(`^\[id=(\d+)\] \[.*?\] send HEADERS frame .*stream_id=(\d+)>`)
	status := regexp.MustCompile(`^\s+:status: (\d+)`)
	requests := make(map[string]*entry)
	var out strings.Builder
	answered := ""
	for l := range strings.Lines(log) {
		if m := field.FindStringSubmatch(l); m != nil {
			stream := m[1] + "/" + m[2]
			if requests[stream] == nil {
				requests[stream] = new(entry)
			}
			if m[3] == ":method" {
				requests[stream].method = m[4]
			} else {
				requests[stream].target = m[4]
			}
		} else if m := sent.FindStringSubmatch(l); m != nil {
			answered = m[1] + "/" + m[2]
		} else if m := status.FindStringSubmatch(l); m != nil && requests[answered] != nil && m[1] != "100" {
			fmt.Fprintf(&out, "LOG %s %s %s\n", requests[answered].method, requests[answered].target, m[1])
			delete(requests, answered)
		}
	}
	return out.String()
}

const nodeH2Server = `
const http2 = require("http2"), fs = require("fs")
const {HTTP2_HEADER_PATH: PATH, HTTP2_HEADER_METHOD: METHOD} = http2.constants
const server = http2.createServer({maxSessionMemory: 1000, settings: {maxConcurrentStreams: 2000, enableConnectProtocol: true, headerTableSize: 16384}})
server.on("stream", (s, h) => {
  let up = 0, parts = []
  const {remoteAddress, remotePort} = s.session.socket // which is gone when the session is
  s.on("error", () => {})
  if (h[METHOD] === "CONNECT") { s.respond({":status": 200}); s.end(); return }
  s.on("data", d => { up += d.length; parts.push(d) })
  s.on("end", () => {
    const path = h[PATH].split("?")[0], head = h[METHOD] === "HEAD"
    let status = 200, out = Buffer.alloc(0)
    if (path === "/echo") out = Buffer.concat(parts)
    else if (path === "/count") out = Buffer.from(String(up))
    else if (path === "/nocontent") status = 204
    else if (path === "/notmodified") status = 304
    else if (path === "/chunked") out = Buffer.from("GET /fake HTTP/1.1\r\n\r\n".repeat(10))
    else try { out = fs.readFileSync("www" + path) } catch { status = 404; out = Buffer.from("none") }
    if (path === "/chunked") { s.additionalHeaders({":status": 103, link: "</a>"}); s.additionalHeaders({":status": 103, link: "</b>"}) }
    if (head || status === 204 || status === 304) out = Buffer.alloc(0)
    s.on("wantTrailers", () => s.sendTrailers({"x-checksum": "1"}))
    s.respond({":status": status, "content-type": "text/plain", "x-path": path}, {waitForTrailers: path === "/chunked" && !head, endStream: head})
    if (!head && path === "/chunked") for (let i = 0; i < 9; i++) s.write(out.subarray(0, out.length / 10))
    if (!head) s.end(path === "/chunked" ? out.subarray(0, out.length / 10) : out)
    console.log("LOG", remoteAddress, remotePort, h[METHOD], h[PATH], status, up, out.length)
  })
})
server.listen(Number(process.argv[2]))
`
