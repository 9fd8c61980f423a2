//go:build conformance && linux

package conformance

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// entry is what an access log has of an exchange, 0 for a size that it has not.
type entry struct {
	client         netip.AddrPort
	method, target string
	status         int
	up, down       int64
}

// exchanged is what Spile reports of one.
type exchanged struct {
	entry
	host, protocol, outcome string
	grpc                    string // " grpc " and the status code, if it has one
}

// describe copies of an exchange, whose strings are valid during the call only.
func describe(x *exchange.Exchange) exchanged {
	grpc := ""
	if code, ok := x.GRPCStatus(); ok {
		grpc = fmt.Sprint(" grpc ", code)
	}
	return exchanged{
		entry{x.Peers.Client, strings.Clone(x.Request.Method), strings.Clone(x.Request.Target), x.Response.Status, x.Request.BodySize, x.Response.BodySize},
		strings.Clone(x.Request.Host), x.Protocol.String(), x.Outcome.String(), grpc,
	}
}

func exchangeLine(x exchanged) string {
	return fmt.Sprintf("%s %s %s %s %s -> %d%s %s, %d up, %d down", x.client, x.protocol, x.host, x.method, x.target, x.status, x.grpc, x.outcome, x.up, x.down)
}

// kind of a server, by what it can do. A modern one is one of programs too.
type kind uint8

const (
	anyKind  kind = iota
	files         // it serves those of lab.documents
	programs      // it knows the paths that programs_test.go lists
	modern        // all of them
)

func (k kind) serves(only kind) bool {
	return only == anyKind || k == only || k == modern && only == programs
}

// server is a program that serves HTTP at port, by IPv4 and IPv6, and logs what it
// did.
type server struct {
	name     string
	programs []string
	kind     kind
	command  func(t *testing.T, l *lab) []string
	stop     syscall.Signal
	log      string                  // file; none: its output
	entries  *regexp.Regexp          // of a log line, with groups named after the fields of entry
	parse    func(log string) string // rewrites the log so that entries match
}

// namesClients reports whether the log has the client's address and port.
func (s server) namesClients() bool { return s.entries.SubexpIndex("ip") > 0 }

// line is what a log entry and an exchange are compared by.
func (s server) line(e entry) string {
	l := fmt.Sprintf("%s %s -> %d", e.method, e.target, e.status)
	if s.entries.SubexpIndex("up") > 0 {
		l += fmt.Sprintf(", %d up", e.up)
	}
	if s.entries.SubexpIndex("down") > 0 {
		l += fmt.Sprintf(", %d down", e.down)
	}
	return l
}

// read parses an access log.
func (s server) read(t *testing.T, log string) []entry {
	t.Helper()
	if s.parse != nil {
		log = s.parse(log)
	}
	var all []entry
	for l := range strings.Lines(log) {
		m := s.entries.FindStringSubmatch(strings.TrimSpace(l))
		if m == nil {
			continue
		}
		get := func(name string) string {
			if i := s.entries.SubexpIndex(name); i > 0 {
				return m[i]
			}
			return "0"
		}
		number := func(name string) int64 {
			n, err := strconv.ParseInt(get(name), 10, 64)
			if err != nil && get(name) != "-" {
				t.Fatalf("log line %q: %v", l, err)
			}
			return n
		}
		var from netip.AddrPort
		if s.namesClients() {
			ip, err := netip.ParseAddr(get("ip"))
			if err != nil {
				t.Fatalf("log line %q: %v", l, err)
			}
			from = netip.AddrPortFrom(ip.Unmap(), uint16(number("port")))
		}
		all = append(all, entry{from, get("method"), get("target"), int(number("status")), number("up"), number("down")})
	}
	if len(all) == 0 {
		t.Fatalf("no entry in the log of %s:\n%.2000s", s.name, log)
	}
	return all
}

const (
	logStart = `^LOG (?P<ip>\S+) (?P<port>\d+) (?P<method>\S+) (?P<target>\S+) `
	logFull  = logStart + `(?P<status>\d+) (?P<up>\d+) (?P<down>\d+)$`
	logDown  = logStart + `(?P<status>\d+) (?P<down>\d+|-)$`
	logLine  = logStart + `HTTP/\S+ (?P<status>\d+) (?P<down>\d+|-)$`
	logBare  = logStart + `(?P<status>\d+)$`
)

var servers = []server{
	{
		name: "nginx", kind: files, programs: []string{"nginx"}, stop: syscall.SIGQUIT, log: "access.log", entries: regexp.MustCompile(logDown),
		command: func(t *testing.T, l *lab) []string {
			return []string{"nginx", "-e", "stderr", "-c", l.writeFile(t, "nginx.conf", fmt.Sprintf(`
daemon off; user root; pid %[1]s/nginx.pid; worker_processes 1;
events { worker_connections 256; }
http {
	log_format spile "LOG $remote_addr $remote_port $request_method $request_uri $status $body_bytes_sent";
	access_log %[1]s/access.log spile;
	client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	keepalive_requests 100000; keepalive_timeout 60s;
	types { text/html html; }
	server { listen %[2]d; listen [::]:%[2]d; root %[1]s/www; }
}`, l.dir, port))}
		},
	},
	{
		name: "apache", kind: files, programs: []string{"apache2"}, stop: syscall.SIGTERM, log: "access.log", entries: regexp.MustCompile(logLine),
		command: func(t *testing.T, l *lab) []string {
			return []string{"apache2", "-D", "FOREGROUND", "-f", l.writeFile(t, "apache.conf", fmt.Sprintf(`
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
ServerName a.example
PidFile %[1]s/apache.pid
DefaultRuntimeDir %[1]s
ErrorLog %[1]s/error.log
LogFormat "LOG %%a %%{remote}p %%r %%>s %%B" spile
CustomLog %[1]s/access.log spile
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Listen %[2]d
DocumentRoot %[1]s/www
`, l.dir, port))}
		},
	},
	{
		name: "lighttpd", kind: files, programs: []string{"lighttpd"}, stop: syscall.SIGINT, log: "access.log", entries: regexp.MustCompile(logLine),
		command: func(t *testing.T, l *lab) []string {
			return []string{"lighttpd", "-D", "-f", l.writeFile(t, "lighttpd.conf", fmt.Sprintf(`
server.modules = ("mod_indexfile", "mod_staticfile", "mod_accesslog")
server.document-root = "%[1]s/www"
server.port = %[2]d
server.bind = "[::]"
server.set-v6only = "disable"
index-file.names = ("index.html")
server.max-keep-alive-requests = 100000
accesslog.filename = "%[1]s/access.log"
accesslog.format = "LOG %%h %%{remote}p %%r %%>s %%b"
mimetype.assign = ("" => "text/plain")
`, l.dir, port))}
		},
	},
	{
		name: "python", kind: files, programs: []string{"python3"}, stop: syscall.SIGINT, entries: regexp.MustCompile(logBare),
		command: func(t *testing.T, l *lab) []string {
			return []string{"python3", l.writeFile(t, "http_server.py", pythonServer), strconv.Itoa(port), l.dir + "/www"}
		},
	},
	{
		name: "gunicorn", kind: programs, programs: []string{"gunicorn"}, stop: syscall.SIGTERM, entries: regexp.MustCompile(logDown),
		command: func(t *testing.T, l *lab) []string {
			l.writeFile(t, "application.py", gunicornApplication)
			return []string{
				"gunicorn", "-b", fmt.Sprintf("[::]:%d", port), "-k", "gthread", "--threads", "16", "--keep-alive", "5", "--access-logfile", "-",
				"--access-logformat", `LOG %(h)s %({port}e)s %(m)s %({raw_uri}e)s %(s)s %(B)s`, "application:application",
			}
		},
	},
	{
		name: "node", kind: modern, programs: []string{"node"}, stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(t *testing.T, l *lab) []string {
			return []string{"node", l.writeFile(t, "server.js", nodeServer), strconv.Itoa(port)}
		},
	},
	{
		name: "go", kind: modern, stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(*testing.T, *lab) []string { return []string{"/proc/self/exe", asGoServer} },
	},
	{
		name: "java", kind: programs, programs: []string{"java", "javac"}, stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(t *testing.T, l *lab) []string {
			return []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", l.writeFile(t, "Server.java", javaServer), strconv.Itoa(port)}
		},
	},
}
