package exchange_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func cLost(data string) step { return step{0, data, loses} }
func sLost(data string) step { return step{1, data, loses} }

const (
	adriftDown = "GET / HTTP/1.1 [h] -> 200 complete, 0 up, -1 down, 1+1 fields"
	adriftUp   = "POST /p HTTP/1.1 [h] -> 200 complete, -1 up, 5 down, 2+1 fields"
)

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
		{"the end of chunks", []step{c(get), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), sLost("lo\r\n0\r\n\r\n"), c(get), s(ok5)}, []string{adriftDown, gotOK}},
		{"the start of a response", []step{c(get), sLost(ok5[:20]), s(ok5[20:]), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the first of two pipelined requests", []step{cLost(get), c(other), s(ok5), s(ok5), c(get), s(ok5)}, nil},
		{"requests of a client that pipelines", []step{c(get + get), s(ok5 + ok5), cLost(get + get), s(ok5), c(other), s(ok5), c(other), s(ok5)}, []string{gotOK, gotOK}},
		{"the head of an upload that looks like a request", []step{cLost(upload), c(other + other), s(ok5), c(get), s(ok5)}, nil},
		{"the same after 100 (Continue)", []step{cLost(upload), s(cont), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the same, 100 (Continue) in pieces", []step{cLost(upload), s(cont[:12]), s(cont[12:]), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the same, the first of them lost", []step{cLost(upload), sLost(cont[:12]), s(cont[12:]), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the same, 100 (Continue) lost", []step{c(get), s(ok5), cLost(upload), sLost(cont), c(other + other), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK}},
		{"the head of an upload with an early response, or of requests that are always two under way", []step{cLost(post + "Content-Length: 62\r\n\r\n"), s(ok5), c(other), c(other), c(get), s(ok5), c(get), s(ok5)}, nil},
		{"the head of an upload with an early response", []step{cLost(post + "Content-Length: 35\r\n\r\n"), s(ok5), c(other), c("more"), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"the first of requests that are always two under way", []step{cLost(get), c(other), s(ok5), c(get), s(ok5), c(other), s(ok5)}, nil},
		{"the second of requests that are always two under way", []step{c(get), cLost(other), s(ok5), c(get), s(ok5), c(other), s(ok5)}, nil},
		{"a request and the response before it", []step{c(get), cLost(other), sLost(ok5), s(ok5), c(get), s(ok5)}, []string{gotOK}},
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

// TestAdrift loses a part of content in chunks: its exchange is reported if where it
// ends is certain.
func TestAdrift(t *testing.T) {
	const (
		up    = post + "Transfer-Encoding: chunked\r\n\r\n"
		down  = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		part  = "5\r\nhello\r\n"
		end   = part + "0\r\n\r\n"
		trail = part + "0\r\nA: b\r\n\r\n"
		early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
	)
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"up", []step{c(up), cLost(part), c(end), s(ok5), c(get), s(ok5)}, []string{adriftUp, gotOK}},
		{"up, several times", []step{c(up), cLost(part), c(part), cLost(part), c(end), s(ok5), c(get), s(ok5)}, []string{adriftUp, gotOK}},
		{"up, one after the other", []step{c(up), cLost(end), s(ok5), c(up), cLost(part), c(end), s(ok5), c(up), cLost(end), s(ok5)}, []string{adriftUp, adriftUp, adriftUp}},
		{"up, answered early, the next too", []step{c(up), cLost(end), s(ok5), c(up), cLost(part), s(early), c(end), c(get), s(ok5), c(get), s(ok5)}, []string{adriftUp, "POST /p HTTP/1.1 [h] -> 413 complete, -1 up, 0 down, 2+1 fields", gotOK}},
		{"up, of which the first seen", []step{s(ok5), c(up), cLost(end), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"up, to its end", []step{c(up), cLost(end), s(ok5), c(get), s(ok5)}, []string{adriftUp, gotOK}},
		{"up, with the next request", []step{c(up), cLost(end + get), s(ok5 + ok5), c(get), s(ok5)}, []string{adriftUp, gotOK}},
		{"up, and the response", []step{c(up), cLost(end), sLost(ok5), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"up, and the start of the response", []step{c(up), cLost(end), sLost(ok5[:20]), s(ok5[20:]), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"up, and the end of the response", []step{c(up), cLost(end), s(ok5[:40]), sLost(ok5[40:]), c(get), s(ok5)}, []string{adriftUp, gotOK}},
		{"up, answered early", []step{c(up), cLost(part), s(early), c(end), c(get), s(ok5)}, []string{"POST /p HTTP/1.1 [h] -> 413 complete, -1 up, 0 down, 2+1 fields"}},
		{"up, after an early answer", []step{c(up), s(early), cLost(part), c(end), c(get), s(ok5), c(get), s(ok5)}, []string{"POST /p HTTP/1.1 [h] -> 413 complete, -1 up, 0 down, 2+1 fields", gotOK}},
		{"up, then the end", []step{c(up), cLost(end), cFIN, s(ok5), sFIN}, []string{adriftUp}},
		{"up, then no response", []step{c(up), cLost(end), cFIN, sFIN}, []string{"POST /p HTTP/1.1 [h] -> 0 no_response, -1 up, 0 down, 2+0 fields"}},
		{"up, pipelined behind another", []step{c(get + up), cLost(end), s(ok5 + ok5)}, []string{gotOK, adriftUp}},
		{"up, which may not have been sent", []step{c(post + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"), cLost(end), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"down", []step{c(get), s(down), sLost(part), s(end), c(get), s(ok5)}, []string{adriftDown, gotOK}},
		{"down, with trailers", []step{c(get), s(down), sLost(part), s(trail), c(get), s(ok5)}, []string{adriftDown, gotOK}},
		{"down, to its end", []step{c(get), s(down), sLost(end), c(get), s(ok5)}, []string{adriftDown, gotOK}},
		{"down, several times", []step{c(get), s(down), sLost(part), s(part), sLost(part), s(end), c(get), s(down), sLost(part), s(end), c(get), s(ok5)}, []string{adriftDown, adriftDown, gotOK}},
		{"down, then the end", []step{c(get), s(down), sLost(part), s(end), sFIN, cFIN}, []string{adriftDown}},
		{"down, then the client's end", []step{c(get), s(down), sLost(part), s(end), cFIN, sFIN}, []string{adriftDown}},
		{"down, then RST", []step{c(get), s(down), sLost(part), s(end), rst}, []string{adriftDown}},
		{"down, the connection stays", []step{c(get), s(down), sLost(part), s(end)}, []string{adriftDown}},
		{"down, cut off", []step{c(get), s(down), sLost(part), s(part), sFIN, cFIN}, nil},
		{"down, to the end of the connection", []step{c(get), s(down), sLost(end), sFIN, cFIN}, nil},
		{"down, reset", []step{c(get), s(down), sLost(part), s(part), rst}, nil},
		{"down, the next request within", []step{c(get), s(down), sLost(part), s(part), c(get), s(end), s(ok5)}, nil},
		{"down, the next request lost", []step{c(get), s(down), sLost(part), s(end), cLost(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"down, the next two requests at once", []step{c(get), s(down), sLost(end), c(get + get), s(ok5 + ok5), c(get), s(ok5)}, []string{gotOK}},
		{"down, what the next request asks for lost", []step{c(get), s(down), sLost(end), c(get), sLost(ok5), c(get), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"down, content that looks like an end", []step{c(get), s(down), sLost(part), s(end), s(end), c(get), s(ok5)}, []string{adriftDown, gotOK}},
		{"down, content that looks like an end, then its end", []step{c(get), s(down), sLost(part), s(end), s(part), sFIN, cFIN}, nil},
		{"down, pipelined", []step{c(get + get), s(down), sLost(part), s(end + ok5)}, nil},
		{"down, then up", []step{c(get), s(down), sLost(part), s(end), c(up), cLost(part), c(end), s(ok5), c(get), s(ok5)}, []string{adriftDown, adriftUp, gotOK}},
		{"down to its end, then up", []step{c(get), s(down), sLost(end), c(up), cLost(part), c(end), s(ok5), c(get), s(ok5)}, []string{adriftDown, adriftUp, gotOK}},
		{"down to its end, then up, more down", []step{c(get), s(down), sLost(part), c(up), cLost(part), s(part), c(end), s(ok5), c(get), s(ok5)}, []string{gotOK}},
		{"up and down", []step{c(up), cLost(end), s(down), sLost(part), s(end), c(get), s(ok5)}, []string{gotOK}},
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
		{"before a request, and then of earlier bytes", []step{c(get), cLost(""), s(ok5), c(get), s(ok5)}, []string{gotOK}},
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
		{"a request behind content in chunks of which bytes are missing", []step{c(get), s(ok5), c(post + "Transfer-Encoding: chunked\r\n\r\n"), cLost("5\r\nhello\r\n"), c("0\r\n\r\n"), c(get), s(ok5), s(ok5)}, 3, 2, 1},
		{"several, of a client that is then known to pipeline", []step{c(get), s(ok5), c(post + "Transfer-Encoding: chunked\r\n\r\n"), cLost("5\r\nhello\r\n0\r\n\r\n"), c(get), s(ok5), c(get), s(ok5), c(get), s(ok5)}, 5, 2, 2},
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
