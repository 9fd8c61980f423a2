//go:build conformance && linux

package conformance

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// entry is what an access log has of an exchange, -1 for a size that it has not.
type entry struct {
	method, target string
	status         int
	up, down       int64
}

// exchanged is what Spile reports of one.
type exchanged struct {
	entry
	client, host, protocol, outcome string
	grpc                            string // " grpc " and the status code, if it has one
}

func describe(x *exchange.Exchange) exchanged {
	grpc := ""
	if code, ok := x.GRPCStatus(); ok {
		grpc = fmt.Sprint(" grpc ", code)
	}
	return exchanged{
		entry{x.Request.Method, x.Request.Target, x.Response.Status, x.Request.BodySize, x.Response.BodySize},
		x.Peers.Client.String(), x.Request.Host, x.Protocol.String(), x.Outcome.String(), grpc,
	}
}

func exchangeLine(x exchanged) string {
	return fmt.Sprintf("%s %s %s %s %s -> %d%s %s, %d up, %d down", x.client, x.protocol, x.host, x.method, x.target, x.status, x.grpc, x.outcome, x.up, x.down)
}

// server is a program that serves HTTP at port and logs what it did.
type server struct {
	name     string
	programs []string
	static   bool // it serves the files of lab.documents
	command  func(t *testing.T, l *lab) []string
	stop     syscall.Signal
	log      string                  // file; none: its output
	entries  *regexp.Regexp          // of a log line, with groups named after the fields of entry
	parse    func(log string) string // rewrites the log so that entries match
}

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
		all = append(all, entry{get("method"), get("target"), int(number("status")), number("up"), number("down")})
	}
	if len(all) == 0 {
		t.Fatalf("no entry in the log of %s:\n%.2000s", s.name, log)
	}
	return all
}

const (
	logFull   = `^LOG (?P<method>\S+) (?P<target>\S+) (?P<status>\d+) (?P<up>\d+) (?P<down>\d+)$`
	logDown   = `^LOG (?P<method>\S+) (?P<target>\S+) (?P<status>\d+) (?P<down>\d+|-)$`
	logLine   = `^LOG (?P<method>\S+) (?P<target>\S+) HTTP/\S+ (?P<status>\d+) (?P<down>\d+|-)$`
	logPython = `"(?P<method>\S+) (?P<target>\S+) HTTP/\S+" (?P<status>\d+) -$`
)

var servers = []server{
	{
		name: "nginx", programs: []string{"nginx"}, static: true, stop: syscall.SIGQUIT, log: "access.log", entries: regexp.MustCompile(logDown),
		command: func(t *testing.T, l *lab) []string {
			return []string{"nginx", "-e", "stderr", "-c", l.writeFile(t, "nginx.conf", fmt.Sprintf(`
daemon off; user root; pid %[1]s/nginx.pid; worker_processes 1;
events { worker_connections 256; }
http {
	log_format spile "LOG $request_method $request_uri $status $body_bytes_sent";
	access_log %[1]s/access.log spile;
	client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	keepalive_requests 100000; keepalive_timeout 60s;
	server { listen %[2]d; root %[1]s/www; }
}`, l.dir, port))}
		},
	},
	{
		name: "apache", programs: []string{"apache2"}, static: true, stop: syscall.SIGTERM, log: "access.log", entries: regexp.MustCompile(logDown),
		command: func(t *testing.T, l *lab) []string {
			return []string{"apache2", "-D", "FOREGROUND", "-f", l.writeFile(t, "apache.conf", fmt.Sprintf(`
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
ServerName a.example
PidFile %[1]s/apache.pid
DefaultRuntimeDir %[1]s
ErrorLog %[1]s/error.log
LogFormat "LOG %%m %%U%%q %%>s %%B" spile
CustomLog %[1]s/access.log spile
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Listen %[2]d
DocumentRoot %[1]s/www
`, l.dir, port))}
		},
	},
	{
		name: "lighttpd", programs: []string{"lighttpd"}, static: true, stop: syscall.SIGINT, log: "access.log", entries: regexp.MustCompile(logLine),
		command: func(t *testing.T, l *lab) []string {
			return []string{"lighttpd", "-D", "-f", l.writeFile(t, "lighttpd.conf", fmt.Sprintf(`
server.modules = ("mod_accesslog")
server.document-root = "%[1]s/www"
server.port = %[2]d
server.max-keep-alive-requests = 100000
accesslog.filename = "%[1]s/access.log"
accesslog.format = "LOG %%r %%>s %%b"
mimetype.assign = ("" => "text/plain")
`, l.dir, port))}
		},
	},
	{
		name: "python", programs: []string{"python3"}, static: true, stop: syscall.SIGINT, entries: regexp.MustCompile(logPython),
		command: func(_ *testing.T, l *lab) []string {
			return []string{"python3", "-u", "-m", "http.server", "-p", "HTTP/1.1", "-d", l.dir + "/www", strconv.Itoa(port)}
		},
	},
	{
		name: "gunicorn", programs: []string{"gunicorn"}, stop: syscall.SIGTERM, entries: regexp.MustCompile(logDown),
		command: func(t *testing.T, l *lab) []string {
			l.writeFile(t, "application.py", gunicornApplication)
			return []string{
				"gunicorn", "-b", fmt.Sprintf("0.0.0.0:%d", port), "-k", "gthread", "--threads", "16", "--keep-alive", "60", "--access-logfile", "-",
				"--access-logformat", `LOG %(m)s %({raw_uri}e)s %(s)s %(B)s`, "application:application",
			}
		},
	},
	{
		name: "node", programs: []string{"node"}, stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(t *testing.T, l *lab) []string {
			return []string{"node", l.writeFile(t, "server.js", nodeServer), strconv.Itoa(port)}
		},
	},
	{
		name: "go", stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(*testing.T, *lab) []string { return []string{"/proc/self/exe", asGoServer} },
	},
	{
		name: "java", programs: []string{"java", "javac"}, stop: syscall.SIGTERM, entries: regexp.MustCompile(logFull),
		command: func(t *testing.T, l *lab) []string {
			return []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", l.writeFile(t, "Server.java", javaServer), strconv.Itoa(port)}
		},
	},
}
