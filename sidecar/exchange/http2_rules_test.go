package exchange_test

import (
	"encoding/base64"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func tableSize(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingHeaderTableSize, Val: n}
}

// TestHTTP2Table changes the size of both tables, before and after the other end
// has acknowledged that (RFC 9113, section 4.3.1).
func TestHTTP2Table(t *testing.T) {
	cl, sv := newH2Peer(0), newH2Peer(1)
	grow := func(p *h2peer, n uint32) { p.enc.SetMaxDynamicTableSizeLimit(n); p.enc.SetMaxDynamicTableSize(n) }
	ack := func(p *h2peer) step { _ = p.framer.WriteSettingsAck(); return p.flush() }
	var want []string
	steps := []step{{0, preface, sends}, cl.settings(tableSize(65536)), sv.settings(tableSize(16384)), ack(cl), ack(sv)}
	ask := func(i int) {
		x := string(rune('a' + i%20))
		steps = append(steps, cl.headers(id(i), true, h2get("/"+x, "x", x)...), sv.headers(id(i), true, ":status", "200", "x", x))
		want = append(want, "GET /"+x+" HTTP/2 [a.example] -> 200 complete, 0 up, 0 down, 1+1 fields")
	}
	for i := range 200 {
		switch i {
		case 20:
			grow(cl, 16384)
			grow(sv, 65536)
		case 40: // twice between two header blocks
			grow(cl, 500)
			grow(cl, 16000)
		case 60: // the client's encoder goes on with the larger table until it has seen this
			steps = append(steps, sv.settings(tableSize(100)))
			grow(cl, 8000)
		case 80:
			grow(cl, 100)
			steps = append(steps, ack(cl))
		case 120:
			steps = append(steps, sv.settings(tableSize(0)), ack(cl), cl.settings(tableSize(0)), ack(sv))
			grow(cl, 0)
			grow(sv, 0)
		case 160:
			steps = append(steps, sv.settings(tableSize(4096)), ack(cl))
			grow(cl, 4096)
		}
		ask(i)
	}
	for _, size := range []int{0, 1, 11} {
		if diff := cmp.Diff(want, run(t, exchange.Limits{}, steps, size).got); diff != "" {
			t.Errorf("segments of %d (-want +got):\n%s", size, diff)
		}
	}
}

// TestUpgradeSettings has the client's settings in the request that upgrades: a
// larger table of the server's (RFC 7540, section 3.2.1).
func TestUpgradeSettings(t *testing.T) {
	cl, sv := newH2Peer(0), newH2Peer(1)
	settings := base64.RawURLEncoding.EncodeToString([]byte{0, 1, 0, 0, 0x40, 0})
	sv.enc.SetMaxDynamicTableSizeLimit(16384)
	sv.enc.SetMaxDynamicTableSize(16384)
	first := sv.settings()
	steps := []step{
		c("GET /first HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " + settings + "\r\n\r\n"),
		s("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + first.data),
		sv.headers(1, true, ":status", "200", "x", "y"),
		{0, preface, sends},
		cl.settings(tableSize(16384)),
	}
	want := []string{"GET /first HTTP/2 [a.example] -> 200 complete, 0 up, 0 down, 4+1 fields"}
	if diff := cmp.Diff(want, run(t, exchange.Limits{}, steps, 0).got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHTTP2Counts has requests that become no exchange: each is counted, with why.
func TestHTTP2Counts(t *testing.T) {
	cl, sv := newH2Peer(0), newH2Peer(1)
	start := []step{{0, preface, sends}, cl.settings(), sv.settings()}
	get := cl.headers(1, true, h2get("/")...)
	lossy := func(steps ...step) []step { return append(start[:3:3], steps...) }
	for name, tt := range map[string]struct {
		steps   []step
		dropped exchange.Drop
		got     []string
	}{
		"a header block that does not end":  {lossy(step{0, get.data[:12], sends}, cFIN, sFIN), exchange.DropIncomplete, nil},
		"a header block with a gap":         {lossy(step{0, get.data[:12], sends}, step{0, get.data[12:14], loses}), exchange.DropGap, nil},
		"a header block in another":         {lossy(step{0, get.data[:4] + "\x01" + get.data[5:], sends}, get), exchange.DropMalformed, nil},
		"padding that is longer than all":   {lossy(step{0, "\x00\x00\x02\x01\x0d\x00\x00\x00\x01\x09\x82", sends}), exchange.DropMalformed, nil},
		"fields that cannot be decoded":     {lossy(step{0, "\x00\x00\x02\x01\x05\x00\x00\x00\x01\xff\xff", sends}), exchange.DropMalformed, nil},
		"content before the response":       {lossy(get, sv.data(1, true, "early")), exchange.DropMalformed, nil},
		"a response whose head was missed":  {lossy(step{1, "x", loses}, get, sv.data(1, false, "late"), sv.data(1, true, "end")), exchange.DropGap, nil},
		"trailers whose head was missed":    {lossy(step{1, "x", loses}, get, newH2Peer(1).headers(1, true, "grpc-status", "0")), exchange.DropGap, nil},
		"fields without a name are skipped": {lossy(step{0, "\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x00\x00\x00", sends}, newH2Peer(1).headers(1, true, ":status", "200")), 0, []string{"GET / HTTP/2 [] -> 200 complete, 0 up, 0 down, 0+0 fields"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, exchange.Limits{}, tt.steps, 0)
			if diff := cmp.Diff(tt.got, r.got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if s := r.engine.Stats; len(tt.got) == 0 && (s.Dropped[tt.dropped] != 1 || s.Seen != 1) {
				t.Errorf("%+v, want one dropped for %s", s, tt.dropped)
			}
		})
	}
}

// TestHTTP2AttachTrailers attaches between a request and its trailers, which are
// not taken for one.
func TestHTTP2AttachTrailers(t *testing.T) {
	cl, sv := newH2Peer(0), newH2Peer(1)
	_ = cl.headers(1, false, h2post("/upload")...)
	_ = sv.headers(1, false, ":status", "200")
	steps := []step{
		sv.headers(1, false, ":status", "200"), // what the connection is shows in this
		cl.headers(1, true, "x-checksum", "1"), sv.data(1, true, "ok"),
		cl.headers(3, true, h2get("/next")...), sv.headers(3, true, ":status", "204"),
	}
	r := newReplay(exchange.Limits{}, false)
	for _, st := range steps {
		r.do(st, 0)
	}
	r.close(exchange.Unfinished)
	r.check(t)
	want := []string{"GET /next HTTP/2 [] -> 204 undecoded, 0 up, 0 down, 0+0 fields"}
	if diff := cmp.Diff(want, r.got); diff != "" || r.engine.Stats.Seen != 1 {
		t.Errorf("%d requests seen (-want +got):\n%s", r.engine.Stats.Seen, diff)
	}
}

// TestHTTP2WithoutMethod has a request that is none (RFC 9113, section 8.3.1): it is
// counted, and what it adds to the table serves the next one.
func TestHTTP2WithoutMethod(t *testing.T) {
	cl, sv := newH2Peer(0), newH2Peer(1)
	r := run(t, exchange.Limits{}, []step{
		{0, preface, sends},
		cl.settings(), sv.settings(),
		cl.headers(1, true, ":scheme", "http", ":path", "/none", "x", "1"), sv.headers(1, true, ":status", "400"),
		cl.headers(3, true, h2get("/a", "x", "1")...), sv.headers(3, true, ":status", "200"),
	}, 0)
	if diff := cmp.Diff([]string{"GET /a HTTP/2 [a.example] -> 200 complete, 0 up, 0 down, 1+0 fields"}, r.got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := r.engine.Stats.Dropped[exchange.DropMalformed]; n != 1 {
		t.Errorf("%d requests dropped as malformed, want 1", n)
	}
}
