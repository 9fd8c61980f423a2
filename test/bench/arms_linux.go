package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/netns"
)

const (
	clientIP, serverIP = "10.244.0.1", "10.244.0.2"

	applicationPort = 8080
	proxyPort       = 8081
	sinkPort        = 4318
)

// arm is a way to watch the application, or to stand in its way.
type arm struct {
	name  string
	port  int  // that clients use
	http1 bool // it knows no HTTP/2
	// start starts what watches, and returns once it does; nil for nothing.
	start func(p *pods) (*process, error)
	// account reads, after it has ended, what it says it saw.
	account func(p *pods, a *account) error
}

// account is what a watcher says at its end.
type account struct {
	Reported int // exchanges, -1 if it reports none
	Lost     int // packets that it had no room for, -1 if it does not say
	Log      string
}

const nothing, nothingAgain = "nothing", "nothing again"

// pickArms returns the arms that are asked for and whose programs exist.
func (o options) pickArms(stderr io.Writer) ([]arm, error) {
	arms := []arm{
		{name: nothing, port: applicationPort},
		{name: nothingAgain, port: applicationPort},
		sidecarArm("spile-sidecar", o.sidecar, nil),
	}
	if o.other != "" || o.env != "" {
		path := o.other
		if path == "" {
			path = o.sidecar
		}
		arms = append(arms, sidecarArm("other", path, strings.Fields(o.env)))
	}
	for _, of := range []struct {
		program string
		arm     func(path string) arm
	}{{"httpry", httpryArm}, {"tcpdump", tcpdumpArm}, {"nginx", nginxArm}} {
		path, err := exec.LookPath(of.program)
		if err != nil {
			path = "/usr/sbin/" + of.program
			if _, err := os.Stat(path); err != nil {
				fmt.Fprintf(stderr, "no arm %s: %s is not installed\n", of.program, of.program)
				continue
			}
		}
		arms = append(arms, of.arm(path))
	}
	picked, err := pick("arm", o.arms, arms, func(a arm) string { return a.name })
	if err == nil && picked[0].name != nothing {
		picked = append(arms[:1:1], picked...)
	}
	return picked, err
}

// pods are the namespaces of one arm, with what runs in them.
type pods struct {
	client, server    *netns.NS
	application, sink *process
	watcher           *process
	dir               string
	processes         []*process
}

func newPods() (_ *pods, err error) {
	p := &pods{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.dir, err = os.MkdirTemp("", "spile-bench-"); err != nil {
		return nil, err
	}
	if p.client, err = netns.New(); err != nil {
		return nil, err
	}
	if p.server, err = netns.New(); err != nil {
		return nil, err
	}
	if err = netns.Pair(p.client, p.server, netip.MustParsePrefix(clientIP+"/24"), netip.MustParsePrefix(serverIP+"/24")); err != nil {
		return nil, err
	}
	if p.application, err = p.part(p.server, "part-application", applicationPort); err != nil {
		return nil, err
	}
	p.sink, err = p.part(p.client, "part-sink", sinkPort)
	return p, err
}

// part starts a part of this program that listens on a port.
func (p *pods) part(ns *netns.NS, name string, port int) (*process, error) {
	var f *os.File
	err := ns.Do(func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		defer l.Close()
		f, err = l.(*net.TCPListener).File()
		return err
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return p.start(ns, command{path: "/proc/self/exe", args: []string{name}, files: []*os.File{f}})
}

func (p *pods) start(ns *netns.NS, c command) (*process, error) {
	started, err := start(ns, c)
	if err == nil {
		p.processes = append(p.processes, started)
	}
	return started, err
}

// close ends what is left of the arm.
func (p *pods) close() {
	for _, r := range p.processes {
		r.kill()
	}
	for _, ns := range []*netns.NS{p.client, p.server} {
		if ns != nil {
			_ = ns.Close()
		}
	}
	_ = os.RemoveAll(p.dir)
}

// sidecarArm exports to the sink in the client's namespace, by the defaults.
func sidecarArm(name, path string, env []string) arm {
	return arm{
		name: name, port: applicationPort,
		start: func(p *pods) (*process, error) {
			w, err := p.start(p.server, command{
				path: path, capabilities: []uintptr{unix.CAP_BPF, unix.CAP_NET_RAW},
				env: append([]string{
					"OTEL_SERVICE_NAME=bench",
					fmt.Sprintf("OTEL_EXPORTER_OTLP_ENDPOINT=http://%s:%d", clientIP, sinkPort),
				}, env...),
			})
			if err != nil {
				return nil, err
			}
			return w, w.await(func() bool { return strings.Contains(w.log.String(), `"msg":"capturing"`) })
		},
		account: func(p *pods, a *account) error {
			a.Lost = 0
			for line := range strings.Lines(p.watcher.log.String()) {
				var accounts struct {
					Msg     string
					Packets struct {
						RingFull int `json:"ring_full"`
					}
				}
				if json.Unmarshal([]byte(line), &accounts) == nil && accounts.Msg == "accounts" {
					a.Lost, a.Log = accounts.Packets.RingFull, line
				}
			}
			return p.sink.ask(&a.Reported)
		},
	}
}

// httpryArm writes its log lines, one for each request and each response, to a
// file.
func httpryArm(path string) arm {
	return arm{
		name: "httpry", port: applicationPort, http1: true,
		start: func(p *pods) (*process, error) {
			return p.sniffer(command{path: path, args: []string{
				"-p", "-i", "eth0", "-o", filepath.Join(p.dir, "log"), fmt.Sprintf("tcp port %d", applicationPort),
			}})
		},
		account: func(p *pods, a *account) error {
			b, err := os.ReadFile(filepath.Join(p.dir, "log"))
			if err != nil {
				return err
			}
			var requests, responses int
			for line := range strings.Lines(string(b)) {
				switch f := strings.Split(line, "\t"); {
				case len(f) > 3 && f[3] == ">":
					requests++
				case len(f) > 3 && f[3] == "<":
					responses++
				}
			}
			a.Reported = min(requests, responses)
			a.Lost = number(p.watcher.log.String(), `(\d+) (?:packets )?dropped`)
			return nil
		},
	}
}

// tcpdumpArm copies all packets, whole, and writes them nowhere.
func tcpdumpArm(path string) arm {
	return arm{
		name: "tcpdump", port: applicationPort,
		start: func(p *pods) (*process, error) {
			return p.sniffer(command{path: path, args: []string{"-p", "-n", "-i", "eth0", "-w", "/dev/null", "tcp"}})
		},
		account: func(p *pods, a *account) error {
			a.Lost = number(p.watcher.log.String(), `(\d+) packets dropped by kernel`)
			return nil
		},
	}
}

// sniffer starts a program and waits until it has a packet socket.
func (p *pods) sniffer(c command) (*process, error) {
	w, err := p.start(p.server, c)
	if err != nil {
		return nil, err
	}
	return w, w.await(func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/packet", w.cmd.Process.Pid))
		for line := range strings.Lines(string(b)) {
			const running = 5
			if f := strings.Fields(line); len(f) > running && f[running] == "1" {
				return true
			}
		}
		return false
	})
}

func number(s, pattern string) int {
	m := regexp.MustCompile(pattern).FindStringSubmatch(s)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n
}

// nginxConfig proxies with keep-alive connections on both sides and without
// keeping bodies.
const nginxConfig = `
daemon off;
pid %[1]s/pid;
error_log stderr crit;
worker_processes auto;
events { worker_connections 1024; }
http {
	access_log off;
	client_max_body_size 0;
	client_body_temp_path %[1]s;
	proxy_temp_path %[1]s;
	fastcgi_temp_path %[1]s;
	uwsgi_temp_path %[1]s;
	scgi_temp_path %[1]s;
	keepalive_requests 100000000;
	upstream application { server 127.0.0.1:%[2]d; keepalive 64; keepalive_requests 100000000; }
	server {
		listen %[3]d;
		location / {
			proxy_pass http://application;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_request_buffering off;
			proxy_max_temp_file_size 0;
		}
	}
}
`

func nginxArm(path string) arm {
	return arm{
		name: "nginx", port: proxyPort, http1: true,
		start: func(p *pods) (*process, error) {
			config := filepath.Join(p.dir, "nginx.conf")
			text := fmt.Sprintf(nginxConfig, p.dir, applicationPort, proxyPort)
			if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
				return nil, err
			}
			w, err := p.start(p.server, command{path: path, args: []string{"-c", config, "-p", p.dir, "-e", "stderr"}})
			if err != nil {
				return nil, err
			}
			return w, w.await(func() bool {
				return p.server.Do(func() error {
					c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", proxyPort))
					return errors.Join(err, closeIf(c))
				}) == nil
			})
		},
	}
}

func closeIf(c net.Conn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}
