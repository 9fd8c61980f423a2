package main

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRatio(t *testing.T) {
	rounds := func(requests ...int) (ms []measurement) {
		for _, n := range requests {
			ms = append(ms, measurement{Outcome: outcome{Requests: n, Seconds: 2}})
		}
		return ms
	}
	// Each round is compared with its own base: 0.5, 2 and 1.
	if got, want := ratio(rounds(100, 100, 400), rounds(50, 200, 400), throughput), "**1.00** (0.50–2.00)"; got != want {
		t.Errorf("ratio %s, want %s", got, want)
	}
	if got, want := difference(rounds(100, 100), rounds(98, 700), throughput), "+150 (−1.00–+300)"; got != want {
		t.Errorf("difference %s, want %s", got, want)
	}
	if got, want := newSpread([]float64{4, 1, 3, 2}), (spread{2.5, 1, 4}); got != want {
		t.Errorf("spread %v, want %v", got, want)
	}
}

func TestLatency(t *testing.T) {
	round := func(ns ...int64) measurement {
		h := histogram{}
		for _, n := range ns {
			h.add(n)
		}
		return measurement{Outcome: outcome{Latencies: h}}
	}
	fast, slow := round(100e3, 100e3, 100e3, 1e6), round(200e3, 200e3, 200e3, 2e6)
	for _, test := range []struct {
		percent   int
		low, high float64
	}{{50, 99, 101}, {99, 990, 1010}} {
		if got := fast.Outcome.Latencies.quantile(test.percent); got < test.low || got > test.high {
			t.Errorf("p%d of 100, 100, 100 and 1,000 µs: %.1f", test.percent, got)
		}
	}
	if got := (histogram{}).quantile(99); got != 0 {
		t.Errorf("p99 of nothing: %f", got)
	}
	base := []measurement{fast, fast, fast, fast}
	for _, test := range []struct {
		own  []measurement
		want string
	}{
		{base, "**1.00** (1.00–1.00)"},
		{[]measurement{slow, slow, slow, slow}, "**1.99** (1.99–1.99)"}, // latencies are to 1 %
		{[]measurement{fast, fast, fast, slow}, "**1.00** (1.00–1.99)"}, // undecided
	} {
		if got := latencyRatio(base, test.own, 50); got != test.want {
			t.Errorf("p50 %s, want %s", got, test.want)
		}
	}
}

func TestResponseSize(t *testing.T) {
	for _, test := range []struct {
		head, content string
		want          int // beside the length of the whole
		fails         bool
	}{
		{head: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", content: "hello"},
		{head: "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y\r\n\r\n", content: "hello", want: 7},
		{head: "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", fails: true},
		{head: "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", fails: true},
	} {
		whole := test.head + test.content
		got, err := responseSize([]byte(whole))
		if (err != nil) != test.fails || err == nil && got != len(whole)+test.want {
			t.Errorf("%q: %d, %v", whole, got, err)
		}
	}
	if got, err := responseSize([]byte("HTTP/1.1 200 OK\r\nContent-Le")); got != -1 || err != nil {
		t.Errorf("half a head: %d, %v; want -1", got, err)
	}
}

func TestRequest(t *testing.T) {
	const content = 100_000 // of one chunk and a half
	server := netip.MustParseAddrPort("10.0.0.1:8080")
	for _, l := range []load{
		{Method: "POST", Path: "/upload", Size: content},
		{Method: "POST", Path: "/upload", Size: content, Chunked: true},
	} {
		head, body, _ := bytes.Cut(l.request(server), []byte("\r\n\r\n"))
		if n := bytes.Count(body, []byte{0}); n != content {
			t.Errorf("chunked %v: %d bytes of content, want %d", l.Chunked, n, content)
		}
		if !bytes.HasPrefix(head, []byte("POST /upload?page=2 HTTP/1.1\r\n")) {
			t.Errorf("head %q", head)
		}
	}
}

func TestBadInput(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"-rounds 0", "accepted are positive numbers"},
		{"-turns 0", "accepted are positive numbers"},
		{"extra", `unexpected argument "extra"`},
	} {
		_, err := parse(strings.Fields(test.args), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.args, err, test.want)
		}
	}
	names := []string{"a", "b"}
	same := func(s string) string { return s }
	if _, err := pick("load", "c", names, same); err == nil || !strings.Contains(err.Error(), `no load "c"; there are ["a" "b"]`) {
		t.Errorf("an unknown load: %v", err)
	}
	got, err := pick("load", "b,a", names, same)
	if diff := cmp.Diff([]string{"b", "a"}, got); diff != "" || err != nil {
		t.Errorf("picked (-want +got):\n%s%v", diff, err)
	}
	if code := run(context.Background(), []string{"-unknown"}, &bytes.Buffer{}, &bytes.Buffer{}); code != 1 {
		t.Errorf("an unknown flag: exit status %d, want 1", code)
	}
}
