package exchange_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func cLost(data string) step { return step{0, data, loses} }
func sLost(data string) step { return step{1, data, loses} }

// TestResync loses bytes: what is reported afterwards must be certain.
func TestResync(t *testing.T) {
	const (
		other  = "GET /other HTTP/1.1\r\nHost: h\r\n\r\n"
		upload = post + "Expect: 100-continue\r\nContent-Length: 60\r\n\r\n"
		cont   = "HTTP/1.1 100 Continue\r\n\r\n"
	)
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"a request", []step{c(get), s(ok5), cLost(get), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"a response", []step{c(get), s(ok5), c(get), sLost(ok5), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"the end of a response", []step{c(get), s(ok5[:40]), sLost(ok5[40:]), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"the end of a response and the next", []step{c(get), s(ok5[:40]), sLost(ok5[40:] + ok5), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK, gotOK}},
		{"the end of a response and the start of the next", []step{c(get), s(ok5[:40]), sLost(ok5[40:] + ok5[:9]), s(ok5[9:]), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"the end of an upload", []step{c(post + "Content-Length: 9\r\n\r\n0123"), cLost("45678"), s(ok5), c(get), s(ok5)}, []string{"POST /p HTTP/1.1 [h] -> 200 complete, 9 up, 5 down, 2+1 fields", gotOK}},
		{"an upload that may not have been sent", []step{c(upload), cLost("12345"), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the end of chunks", []step{c(get), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), sLost("lo\r\n0\r\n\r\n"), c(get), s(ok5)}, []string{gotOK}},
		{"the start of a response", []step{c(get), sLost(ok5[:20]), s(ok5[20:]), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the first of two pipelined requests", []step{cLost(get), c(other), s(ok5), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"requests of a client that pipelines", []step{c(get + get), s(ok5 + ok5), cLost(get + get), s(ok5), c(other), s(ok5), c(other), s(ok5)}, []string{gotOK, gotOK}},
		{"the head of an upload that looks like a request", []step{cLost(upload), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the same after 100 (Continue)", []step{cLost(upload), s(cont), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the same, 100 (Continue) in pieces", []step{cLost(upload), s(cont[:12]), s(cont[12:]), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the same, the first of them lost", []step{cLost(upload), sLost(cont[:12]), s(cont[12:]), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the same, 100 (Continue) lost", []step{c(get), s(ok5), cLost(upload), sLost(cont), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"the head of an upload with an early response", []step{cLost(post + "Content-Length: 62\r\n\r\n"), s(ok5), c(other), c(other), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the start of a connection", []step{cLost(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"a request and its response", []step{c(get), s(ok5), cLost(get), sLost(ok5), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"a part of a request", []step{c(get[:9]), cLost(get[9:20]), c(get[20:]), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"no HTTP", []step{c("\x16\x03\x01"), cLost("xxx"), c("\x01abc"), s("\x16\x03\x01\x00\x05\x02")}, nil},
		{"the whole request, a response without one", []step{s(ok5), c(get), s(ok5)}, []string{gotOK}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, exchange.Limits{}, tt.steps, 0)
			if diff := cmp.Diff(tt.want, r.got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestMidStream attaches to a connection that exists already.
func TestMidStream(t *testing.T) {
	const (
		other       = "GET /other HTTP/1.1\r\nHost: h\r\n\r\n"
		gotOneSided = "GET / HTTP/1.1 [h] -> 0 one_sided, 0 up, 0 down, 1+0 fields"
	)
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"before a request", []step{c(get), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"in a request", []step{c(get[5:]), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"before a response", []step{s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"in a response", []step{s(ok5[7:]), c(get), s(ok5)}, []string{gotOK}},
		{"before an interim response", []step{s("HTTP/1.1 100 Continue\r\n\r\n"), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"in an upload, on what looks like a request", []step{c(other), c("more"), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"in an upload, on a segment that looks like one", []step{c(other + "more"), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"in an upload, on what looks like another", []step{c(post + "Content-Length: 9\r\n\r\n0123"), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"before an upload", []step{c(post + "Content-Length: 9\r\n\r\n0123"), c("45678"), s(ok5), c(get), s(ok5)}, []string{"POST /p HTTP/1.1 [h] -> 200 complete, 9 up, 5 down, 2+1 fields", gotOK}},
		{"before an upload that waits", []step{c(post + "Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"), s("HTTP/1.1 100 Continue\r\n\r\n"), c("012345678"), s(ok5), c(get), s(ok5)}, []string{"POST /p HTTP/1.1 [h] -> 200 complete, 9 up, 5 down, 3+1 fields", gotOK}},
		{"with no server in sight", []step{c(get), c(get)}, []string{gotOneSided, gotOneSided}},
		{"before the end", []step{c(get), s("HTTP/1.1 200 OK\r\n")}, nil},
		{"of another protocol", []step{c("\x17\x03\x03\x00\x10aaaaaaaaaaaaaaaa"), s("\x17\x03\x03\x00\x10aaaaaaaaaaaaaaaa")}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReplay(exchange.Limits{}, false)
			for _, st := range tt.steps {
				r.do(st, 0)
			}
			r.close(exchange.Unfinished)
			r.check(t)
			if diff := cmp.Diff(tt.want, r.got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestCountedWhileLost has messages that cannot be put together for what is
// missing: they are counted, and what the connection is, is known.
func TestCountedWhileLost(t *testing.T) {
	for _, tt := range []struct {
		name      string
		steps     []step
		seen, had uint64 // requests, of which exchanges were reported
		orphans   uint64
	}{
		{"responses only", []step{s(ok5), s(ok5), s(ok5[:30]), s(ok5[30:])}, 0, 0, 3},
		{"responses whose starts are missing", []step{c(get), sLost(ok5[:9]), s(ok5[9:]), c(get), sLost(ok5[:9]), s(ok5[9:]), c(get)}, 3, 0, 0},
		{"a request line that is cut off", []step{c(get[:9]), cLost(get[9:]), s(ok5)}, 1, 0, 1},
		{"requests only, the second cut off", []step{c(get), c(get[:9]), cLost(get[9:]), c(get)}, 3, 0, 0},
	} {
		for _, fromStart := range []bool{true, false} {
			r := newReplay(exchange.Limits{}, fromStart)
			for _, st := range tt.steps {
				r.do(st, 0)
			}
			r.close(exchange.Unfinished)
			r.check(t)
			if st := &r.engine.Stats; st.Seen != tt.seen || uint64(len(r.got)) != tt.had || st.Orphans != tt.orphans || r.conn.Kind() != exchange.KindHTTP1 {
				t.Errorf("%s, from start %t: %d requests seen, %q, %d responses without one, kind %s", tt.name, fromStart, st.Seen, r.got, st.Orphans, r.conn.Kind())
			}
		}
	}
}
