package sidecar_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/sidecar"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
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
	for line, n := range lossy.exchanges {
		if n > want[line] && strings.HasSuffix(line, " complete") {
			t.Errorf("of a file that lacks packets: %d times, logged %d times: %s", n, want[line], line)
		}
	}
	if s := lossy.table.Exchanges(); total(lossy.exchanges) < total(want) && s.Gaps+s.Orphans+s.Dropped[exchange.DropGap] == 0 {
		t.Error("exchanges are missing, and nothing was counted")
	}
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

func logLine(version, method, target string, status int, up, down int64, outcome string) string {
	return fmt.Sprintf("%s %s %s -> %d, %d up, %d down, %s", version, method, target, status, up, down, outcome)
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

// watched is what a tap, or a file, gives.
type watched struct {
	table     *flow.Table
	exchanges map[string]int
	tap       *sidecar.Tap
	ended     chan error
}

func newWatched(c flow.Config) *watched {
	w := &watched{exchanges: make(map[string]int), ended: make(chan error, 1)}
	c.Emit = func(x *exchange.Exchange) {
		w.exchanges[logLine(x.Protocol.String(), x.Request.Method, x.Request.Target, x.Response.Status, x.Request.BodySize, x.Response.BodySize, x.Outcome.String())]++
	}
	w.table = flow.NewTable(c)
	return w
}

func (w *watched) String() string {
	s := w.table.Stats
	return fmt.Sprintf("%d packets, %d out of order, %d twice, %d bytes omitted, %d missing", s.Packets, s.Reordered, s.Duplicates, s.Omitted, s.Missing)
}

// watch starts a tap on eth0 of a namespace.
func watch(t *testing.T, ns *netns.NS) *watched {
	t.Helper()
	var tap *sidecar.Tap
	err := ns.Do(func() (err error) {
		tap, err = sidecar.OpenTap(sidecar.TapConfig{Interfaces: []string{"eth0"}, RingBytes: 16 << 20}, slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newWatched(tap.FlowConfig(nil))
	w.tap = tap
	go func() { w.ended <- flow.Pump(tap, w.table) }()
	return w
}

func (w *watched) stop(t *testing.T) map[string]int {
	t.Helper()
	w.tap.Stop()
	err := <-w.ended
	lost := w.tap.Lost()
	if err := errors.Join(err, w.tap.Close()); err != nil || lost > 0 {
		t.Errorf("%d packets lost by the tap, %v", lost, err)
	}
	return w.exchanges
}

// record writes all packets of eth0 of a namespace to a pcap file, until the
// function that it returns is called, which returns the file's path.
func record(t *testing.T, ns *netns.NS) func(t *testing.T) string {
	t.Helper()
	var live *capture.Live
	err := ns.Do(func() (err error) {
		live, err = capture.OpenLive(capture.LiveConfig{Interfaces: []string{"eth0"}, RingBytes: 32 << 20, Attach: func(int) error { return nil }})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const rawIP = 101 // LINKTYPE_RAW
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b23c4d) // nanoseconds
	b = append(le.AppendUint16(le.AppendUint16(b, 2), 4), make([]byte, 8)...)
	b = le.AppendUint32(le.AppendUint32(b, 1<<18), rawIP)
	ended := make(chan error, 1)
	go func() {
		for {
			p, err := live.Next()
			switch {
			case errors.Is(err, capture.ErrIdle):
				continue
			case err != nil:
				ended <- err
				return
			}
			b = le.AppendUint32(le.AppendUint32(b, uint32(p.At/1e9)), uint32(p.At%1e9))
			b = append(le.AppendUint32(le.AppendUint32(b, uint32(len(p.Data))), uint32(p.Len)), p.Data...)
		}
	}()
	return func(t *testing.T) string {
		t.Helper()
		live.Stop()
		if err := <-ended; !errors.Is(err, io.EOF) || live.Lost() > 0 {
			t.Errorf("%d packets lost by the recording, %v", live.Lost(), err)
		}
		path := filepath.Join(t.TempDir(), "all.pcap")
		if err := errors.Join(live.Close(), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// readRecorded reads a file, without one packet in lose if that is not 0.
func readRecorded(t *testing.T, path string, lose int) *watched {
	t.Helper()
	f, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := newWatched(flow.Config{})
	if err := flow.Pump(lossy{f, rand.New(rand.NewPCG(1, 1)), lose}, w.table); err != nil {
		t.Fatal(err)
	}
	return w
}

type lossy struct {
	capture.Source
	*rand.Rand
	lose int
}

func (l lossy) Next() (capture.Packet, error) {
	p, err := l.Source.Next()
	for err == nil && l.lose > 0 && l.IntN(l.lose) == 0 {
		p, err = l.Source.Next()
	}
	return p, err
}
