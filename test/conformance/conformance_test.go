//go:build conformance && linux

// Package conformance has real servers and clients talk to each other in two
// network namespaces, and compares what Spile reports with the servers' access
// logs and with tshark. It needs root and, of Debian: nginx apache2 lighttpd
// chromium gunicorn nodejs npm openjdk-17-jdk-headless curl wget apache2-utils wrk
// nghttp2-client nghttp2-server python3 python3-grpcio tcpdump tshark; and of npm
// what testdata/grpc-js names. What is missing is skipped; with
// REQUIRE_CONFORMANCE=1 it is a failure. CONFORMANCE_KEEP names a folder for the
// packets of tests that fail.
package conformance

import (
	"os"
	"os/exec"
	"testing"
)

// need skips the test, or fails it, if programs are missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "network namespaces and packet capture need root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			skip(t, p+" is missing")
		}
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("REQUIRE_CONFORMANCE") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TestConformance runs every client against every server.
func TestConformance(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			compare(t, newLab(t), s, "eth0", func(l *lab, _ func() string) {
				for _, c := range clients {
					if s.kind.serves(c.only) {
						l.run(t, l.client, c)
					}
				}
			})
		})
	}
}

// TestLoopback has clients and servers in one namespace: each exchange is
// reported once.
func TestLoopback(t *testing.T) {
	for _, s := range servers {
		if s.name != "nginx" && s.name != "node" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.addr, l.addr6 = "127.0.0.1", "::1"
			compare(t, l, s, "lo", func(l *lab, _ func() string) {
				for _, c := range clients {
					if s.kind.serves(c.only) {
						l.run(t, l.server, c)
					}
				}
			})
		})
	}
}

// compare captures what a server answers to the clients that run runs, and
// compares. run gets a function that returns the server's log so far.
func compare(t *testing.T, l *lab, s server, ifname string, run func(l *lab, log func() string)) {
	t.Helper()
	need(t, append(s.programs, "tcpdump", "tshark")...)
	live := l.capture(t, ifname)
	log, stop := l.serve(t, s)
	run(l, log)
	logged := s.read(t, stop())
	exchanges, counters := live()
	t.Logf("%d exchanges; %s", len(exchanges), counters)

	compareLog(t, s, logged, exchanges)
	fromFile, _ := read(t, l.file, nil)
	compareCaptures(t, exchanges, fromFile)
	compareTshark(t, l.file, fromFile)
	compareDisturbed(t, l.file, fromFile)
}
