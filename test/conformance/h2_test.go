//go:build conformance && linux

package conformance

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// TestHTTP2 runs every client against every server of HTTP/2 without TLS.
func TestHTTP2(t *testing.T) {
	for _, s := range h2Servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			need(t, append(s.programs, "tcpdump")...)
			l := newLab(t)
			l.h2Documents(t)
			live := l.capture(t, "eth0")
			_, stop := l.serve(t, s)
			for _, c := range h2Clients {
				if s.kind.serves(c.only) {
					l.run(t, l.client, c)
				}
			}
			if s.name == "apache" {
				for _, c := range upgradeClients {
					l.run(t, l.client, c)
				}
			}
			logged := s.read(t, stop())
			exchanges, counters := live()
			t.Logf("%d exchanges; %s", len(exchanges), counters)
			compareLog(t, s, logged, exchanges)
			fromFile, _ := read(t, l.file, nil)
			if diff := cmp.Diff(tally(lines(exchanges, exchangeLine)), tally(lines(fromFile, exchangeLine))); diff != "" {
				t.Errorf("live capture and file (-live +file):\n%s", diff)
			}
			compareDisturbed(t, l.file, fromFile)
		})
	}
}

// TestSaturation has h2load make requests as fast as it can, by so many streams
// at once: as many are reported as were made.
func TestSaturation(t *testing.T) {
	need(t, "h2load", "nginx")
	nginx := h2Servers[2]
	for _, streams := range []int{1, 100, 1000} {
		t.Run(fmt.Sprint(streams, " streams"), func(t *testing.T) {
			l := newLab(t)
			_, stop := l.serve(t, nginx)
			seen, complete := 0, 0
			live := l.tap(t, l.server, "eth0", func(x *exchange.Exchange) {
				seen++
				if x.Outcome == exchange.Complete && x.Request.Method == "GET" && x.Request.Target == "/small" && x.Response.Status == 200 {
					complete++
				}
			})
			requests := 100000
			if streams == 1 {
				requests = 30000
			}
			cmd := exec.Command("h2load", "-n", strconv.Itoa(requests), "-c", "4", "-m", strconv.Itoa(streams), fmt.Sprintf("http://%s:%d/small", serverIP, port))
			var out []byte
			if err := l.client.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			logged := nginx.read(t, stop())
			counters := live()
			t.Logf("%s; %d reported; %s", regexp.MustCompile(`finished in .*`).Find(out), complete, counters)
			if complete != requests || seen != requests || len(logged) != requests {
				t.Errorf("%d requests made, %d logged, %d exchanges of which %d complete", requests, len(logged), seen, complete)
			}
		})
	}
}
