package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/sidecar/exchange"
)

// badNetwork is what each end does to its packets before a tap sees them or the
// other end gets them; TCP repairs it.
var badNetwork = netns.Disturbance{Loss: 0.03, Duplicate: 0.03, Reorder: 0.2, Delay: 3000}

// TestNetem has a server answer over a bad network: a tap at either end, and a
// file of the server's packets, give exactly the exchanges that it logged. Of a
// file that lacks packets they give fewer, and count that.
func TestNetem(t *testing.T) {
	p := newPods(t)
	for _, ns := range []*netns.NS{p.client, p.server} {
		err := ns.Disturb(badNetwork)
		if errors.Is(err, os.ErrNotExist) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.client.WithoutOffload(); err != nil { // the server's packets stay large
		t.Fatal(err)
	}
	var server accessLog
	server.serve(t, p.server)
	atServer, atClient := watch(t, p.server), watch(t, p.client)
	file := record(t, p.server)
	makeRequests(t, p.client)
	want := server.logged()
	if n := total(want); n != badRequests {
		t.Errorf("the server answered %d requests, %d were made", n, badRequests)
	}
	for end, w := range map[string]*watched{"server": atServer, "client": atClient} {
		got := w.stop(t)
		t.Logf("at the %s: %s", end, w)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("at the %s (-log +reported):\n%s", end, diff)
		}
		if w.table.Stats.Reordered == 0 || w.table.Stats.Duplicates == 0 {
			t.Errorf("at the %s nothing was disturbed", end)
		}
	}
	path := file(t)
	whole := readRecorded(t, path, 0)
	if diff := cmp.Diff(want, whole.exchanges); diff != "" {
		t.Errorf("from the file (-log +reported):\n%s", diff)
	}
	lossy := readRecorded(t, path, 30)
	t.Logf("of a file that lacks one packet in 30, %d of %d exchanges: %s", total(lossy.exchanges), total(want), lossy)
	rest := maps.Clone(want)
	for line, n := range lossy.exchanges {
		if line = sized(line, rest); strings.HasSuffix(line, " complete") && n > rest[line] {
			t.Errorf("of a file that lacks packets: %d times, logged %d times: %s", n, want[line], line)
		}
		delete(rest, line)
	}
	if s := lossy.table.Exchanges(); total(lossy.exchanges) < total(want) && s.Gaps+s.Orphans+s.Dropped[exchange.DropGap] == 0 {
		t.Error("exchanges are missing, and nothing was counted")
	}
}

// sized is the line of all that a line is which may lack a size: that of content in
// chunks of which some were not captured.
func sized(line string, all map[string]int) string {
	for l := range all {
		up, down := regexp.MustCompile(`\d+ up`).FindString(l), regexp.MustCompile(`\d+ down`).FindString(l)
		if strings.NewReplacer("-1 up", up, "-1 down", down).Replace(line) == l {
			return l
		}
	}
	return line
}

func total(counts map[string]int) (n int) {
	for _, k := range counts {
		n += k
	}
	return n
}

// accessLog is a server that logs, in lines such as watched has them.
type accessLog struct {
	mu    sync.Mutex
	lines map[string]int
}

func (l *accessLog) logged() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// ServeHTTP answers with as many bytes as the path says, with a length or in chunks.
func (l *accessLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	up, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var size int
	var framing string
	_, _ = fmt.Sscanf(r.URL.Path, "/%d/%s", &size, &framing)
	status, sent := http.StatusOK, bytes.Repeat([]byte("GET /fake HTTP/1.1\r\n\r\n"), size/22)
	switch {
	case size == 0:
		status = http.StatusNoContent
	case framing == "length":
		w.Header().Set("Content-Length", fmt.Sprint(len(sent)))
	case framing == "hints":
		w.WriteHeader(http.StatusEarlyHints)
	}
	l.mu.Lock()
	down := len(sent)
	if r.Method == http.MethodHead {
		down = 0
	}
	version := map[int]string{1: "HTTP/1.1", 2: "HTTP/2"}[r.ProtoMajor]
	l.lines[logLine(version, r.Method, r.RequestURI, status, up, int64(down), "complete")]++
	l.mu.Unlock()
	w.WriteHeader(status)
	for len(sent) > 0 {
		n := min(len(sent), 30000)
		_, _ = w.Write(sent[:n])
		if framing != "length" {
			w.(http.Flusher).Flush()
		}
		sent = sent[n:]
	}
}

func (l *accessLog) serve(t *testing.T, ns *netns.NS) {
	t.Helper()
	l.lines = make(map[string]int)
	server := &http.Server{Handler: l, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	listener := listen(t, ns, ":8080")
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
}

const (
	badClients  = 16
	badTimes    = 2
	badRequests = badClients * (badTimes*6 + 10)
)

// makeRequests makes badRequests requests by HTTP/1.1, also pipelined, and HTTP/2,
// by IPv4 and IPv6.
func makeRequests(t *testing.T, ns *netns.NS) {
	t.Helper()
	var all sync.WaitGroup
	defer all.Wait()
	for i := range badClients {
		host := []string{serverIP, "[" + serverIP6 + "]"}[i%2] + ":8080"
		c := newClient(t, ns)
		if transport := c.Transport.(*http.Transport); i%4 >= 2 {
			transport.Protocols = new(http.Protocols)
			transport.Protocols.SetUnencryptedHTTP2(true)
		}
		all.Go(func() {
			defer c.CloseIdleConnections()
			var atOnce sync.WaitGroup
			for k := range badTimes {
				for _, ask := range []struct {
					method, path string
					up           int64
				}{
					{"GET", "22/length", 0},
					{"GET", "100000/length", 0},
					{"GET", "40000/chunks", 0},
					{"POST", "220/hints", 60000},
					{"PUT", "0/none", 3000},
					{"HEAD", "2200/length", 0},
				} {
					run := func() { makeRequest(t, c, ask.method, fmt.Sprintf("http://%s/%s?%d.%d", host, ask.path, i, k), ask.up) }
					if i%4 == 3 {
						atOnce.Go(run)
					} else {
						run()
					}
				}
			}
			atOnce.Wait()
			pipelined(t, ns, host, i)
		})
	}
}

// makeRequest makes one, with content in chunks if there is some.
func makeRequest(t *testing.T, c *http.Client, method, url string, up int64) {
	t.Helper()
	var body io.Reader
	if up > 0 {
		body = io.LimitReader(endless{}, up)
	}
	r, err := http.NewRequest(method, url, body)
	if err == nil {
		var resp *http.Response
		if resp, err = c.Do(r); err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	if err != nil {
		t.Error(err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = "GET /fake HTTP/1.1\r\n\r\n"[i%22]
	}
	return len(b), nil
}

// pipelined sends ten requests at once.
func pipelined(t *testing.T, ns *netns.NS, host string, i int) {
	t.Helper()
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: time.Minute}).DialContext(context.Background(), "tcp", host)
		return err
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	var b strings.Builder
	for k := range 10 {
		fmt.Fprintf(&b, "GET /%d/length?pipelined=%d.%d HTTP/1.1\r\nHost: a.example\r\n", 22+k*1000, i, k)
		if k == 9 {
			b.WriteString("Connection: close\r\n")
		}
		b.WriteString("\r\n")
	}
	_, err = io.WriteString(conn, b.String())
	_, errRead := io.Copy(io.Discard, conn)
	if err := errors.Join(err, errRead); err != nil {
		t.Error(err)
	}
}
