package exchange_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

const (
	get  = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	ok5  = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	post = "POST /p HTTP/1.1\r\nHost: h\r\n"

	gotOK = "GET / HTTP/1.1 [h] -> 200 complete, 0 up, 5 down, 1+1 fields"
)

type conversation struct {
	name  string
	steps []step
	want  []string
	kind  exchange.Kind // 0: HTTP/1 to the end
}

// test runs conversations, each in segments of several sizes.
func test(t *testing.T, conversations []conversation) {
	t.Helper()
	for _, tt := range conversations {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{0, 1, 2, 3, 7, 11} {
				r := run(t, exchange.Limits{}, tt.steps, size)
				if diff := cmp.Diff(tt.want, r.got); diff != "" {
					t.Fatalf("segments of %d bytes (-want +got):\n%s", size, diff)
				}
				if want := max(tt.kind, exchange.KindHTTP1); r.conn.Kind() != want {
					t.Errorf("segments of %d bytes: kind %s, want %s", size, r.conn.Kind(), want)
				}
			}
		})
	}
}

// TestFraming is RFC 9112, section 6.
func TestFraming(t *testing.T) {
	const fake = "GET /fake HTTP/1.1\r\nHost: f\r\n\r\nHTTP/1.1 404 Fake\r\n\r\n" // 52 bytes
	test(t, []conversation{
		{"length", []step{c(get), s(ok5), c(get), s(ok5)}, []string{gotOK, gotOK}, 0},
		{
			"length 0",
			[]step{c(get), s("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 0 down, 1+1 fields", gotOK},
			0,
		},
		{
			"fake messages in bodies of known length",
			[]step{c(post + "Content-Length: 52\r\n\r\n" + fake), s("HTTP/1.1 200 OK\r\nContent-Length: 52\r\n\r\n" + fake), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 200 complete, 52 up, 52 down, 2+1 fields", gotOK},
			0,
		},
		{
			"fake messages in chunks",
			[]step{
				c(post + "Transfer-Encoding: chunked\r\n\r\n34\r\n" + fake + "\r\n0\r\n\r\n"),
				s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n34;q=\"\"\r\n" + fake + "\r\n0\r\nGET: / HTTP/1.1\r\n\r\n"), c(get), s(ok5),
			},
			[]string{"POST /p HTTP/1.1 [h] -> 200 complete, 52 up, 52 down, 2+1 fields", gotOK},
			0,
		},
		{
			"fake messages until close",
			[]step{c(get), s("HTTP/1.0 200 OK\r\n\r\n" + fake), sFIN, cFIN},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 52 down, 1+0 fields"},
			0,
		},
		{
			"chunks with extensions, upper case, leading zeros, padding and trailers",
			[]step{c(get), s("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n005;a=b;c\r\nhello\r\nA \r\n0123456789\r\na\r\n0123456789\r\n00\r\nX: y\r\nZ:\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 25 down, 1+1 fields", gotOK},
			0,
		},
		{
			"chunked after gzip",
			[]step{c(get), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 1 down, 1+1 fields", gotOK},
			0,
		},
		{
			"chunked in a field of its own",
			[]step{c(get), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 1 down, 1+2 fields", gotOK},
			0,
		},
		{
			"a coding that is not chunked",
			[]step{c(get), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz"), sFIN, cFIN},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 3 down, 1+1 fields"},
			0,
		},
		{
			"equal lengths in a list",
			[]step{c(post + "Content-Length: 3, 3\r\n\r\nabc"), s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 200 complete, 3 up, 5 down, 2+2 fields", gotOK},
			0,
		},
		{
			"head",
			[]step{c("HEAD / HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"), c(get), s(ok5)},
			[]string{"HEAD / HTTP/1.1 [] -> 200 complete, 0 up, 0 down, 0+1 fields", gotOK},
			0,
		},
		{
			"head, chunked",
			[]step{c("HEAD / HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), c(get), s(ok5)},
			[]string{"HEAD / HTTP/1.1 [] -> 200 complete, 0 up, 0 down, 0+1 fields", gotOK},
			0,
		},
		{
			"204 with a length",
			[]step{c(get), s("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 204 complete, 0 up, 0 down, 1+1 fields", gotOK},
			0,
		},
		{
			"304 with a length",
			[]step{c(get), s("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 304 complete, 0 up, 0 down, 1+1 fields", gotOK},
			0,
		},
		{
			"304 with chunks",
			[]step{c(get), s("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 304 complete, 0 up, 0 down, 1+1 fields", gotOK},
			0,
		},
		{
			"205",
			[]step{c(get), s("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"), c(get), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 205 complete, 0 up, 0 down, 1+1 fields", gotOK},
			0,
		},
		{
			"until close",
			[]step{c(get), s("HTTP/1.1 200 OK\r\n\r\nabc"), sFIN, cFIN},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 3 down, 1+0 fields"},
			0,
		},
		{
			"until close, empty",
			[]step{c(get), s("HTTP/1.1 200 OK\r\n\r\n"), sFIN, cFIN},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 0 down, 1+0 fields"},
			0,
		},
		{
			"until close, with a pipelined request",
			[]step{c(get + get), s("HTTP/1.1 200 OK\r\n\r\nabc"), sFIN, evict},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 3 down, 1+0 fields", "GET / HTTP/1.1 [h] -> 0 no_response, 0 up, 0 down, 1+0 fields"},
			0,
		},
		{
			"1.0 keep-alive",
			[]step{c("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), s("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"), c("GET / HTTP/1.0\r\n\r\n"), s("HTTP/1.0 200 OK\r\n\r\nabc"), sFIN},
			[]string{"GET / HTTP/1.0 [] -> 200 complete, 0 up, 1 down, 1+1 fields", "GET / HTTP/1.0 [] -> 200 complete, 0 up, 3 down, 0+0 fields"},
			0,
		},
		{
			"no reason phrase",
			[]step{c(get), s("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), c(get), s("HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n")},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 0 down, 1+1 fields", "GET / HTTP/1.1 [h] -> 500 complete, 0 up, 0 down, 1+1 fields"},
			0,
		},
		{
			"no Content-Length on a request means no content",
			[]step{c("DELETE /d HTTP/1.1\r\n\r\n"), s(ok5), c(get), s(ok5)},
			[]string{"DELETE /d HTTP/1.1 [] -> 200 complete, 0 up, 5 down, 0+1 fields", gotOK},
			0,
		},
	})
}

func TestRequests(t *testing.T) {
	ok := func(l string) []string { return []string{l + ", 0+1 fields"} }
	test(t, []conversation{
		{
			"absolute form",
			[]step{c("GET http://u:p@o.example:8080/x?y HTTP/1.1\r\nHost: h\r\n\r\n"), s(ok5)},
			[]string{"GET http://u:p@o.example:8080/x?y HTTP/1.1 [o.example:8080] -> 200 complete, 0 up, 5 down, 1+1 fields"},
			0,
		},
		{"more spaces than one", []step{c("GET   /a b  HTTP/1.1\r\n\r\n"), s(ok5)}, ok("GET /a b HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0},
		{"asterisk form", []step{c("OPTIONS * HTTP/1.1\r\n\r\n"), s(ok5)}, ok("OPTIONS * HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0},
		{"unknown method", []step{c("M-SEARCH! /x HTTP/1.1\r\n\r\n"), s(ok5)}, ok("M-SEARCH! /x HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0},
		{"one-letter method", []step{c("g /x HTTP/1.1\r\n\r\n"), s(ok5)}, ok("g /x HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0},
		{"version 1.7", []step{c("GET /x HTTP/1.7\r\n\r\n"), s(ok5)}, ok("GET /x HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0},
		{"spaces in the target", []step{c("GET /a b c HTTP/1.1\r\n\r\n"), s(ok5)}, ok("GET /a b c HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0},
		{"bytes above ASCII in the target", []step{c("GET /\xff\x80 HTTP/1.1\r\n\r\n"), s(ok5)}, ok("GET /\xff\x80 HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0},
		{"empty lines before the first request", []step{c("\r\n\r\n" + get), s(ok5)}, []string{gotOK}, 0},
		{
			"empty lines before later requests",
			[]step{c(post + "Content-Length: 3\r\n\r\nabc\r\n"), s(ok5), c("\r\n\n" + get + "\r\n"), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 200 complete, 3 up, 5 down, 2+1 fields", gotOK},
			0,
		},
		{
			"a long target",
			[]step{c("GET /" + strings.Repeat("x", 8000) + " HTTP/1.1\r\n\r\n"), s(ok5)},
			ok("GET /" + strings.Repeat("x", 8000) + " HTTP/1.1 [] -> 200 complete, 0 up, 5 down"), 0,
		},
		{
			"empty values and optional whitespace",
			[]step{c("GET / HTTP/1.1\r\nHost:\t h \t\r\nX:\r\n\r\n"), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 200 complete, 0 up, 5 down, 2+1 fields"},
			0,
		},
	})
}

func TestInterim(t *testing.T) {
	const expect = post + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
	test(t, []conversation{
		{
			"100",
			[]step{c(expect), s("HTTP/1.1 100 Continue\r\n\r\n"), c("abc"), s(ok5), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 200 complete, 3 up, 5 down, 3+1 fields", gotOK},
			0,
		},
		{
			"103, 103, 100",
			[]step{c(get), s("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"), s("HTTP/1.1 103 Early Hints\r\nLink: <b>\r\nLink: <c>\r\n\r\nHTTP/1.1 100 C\r\n\r\n" + ok5)},
			[]string{gotOK},
			0,
		},
		{
			"interim and the end",
			[]step{c(expect), s("HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"), sFIN, cFIN},
			[]string{"POST /p HTTP/1.1 [h] -> 0 no_response, 0 up, 0 down, 3+0 fields"},
			0,
		},
		{
			"interim and a reset",
			[]step{c(expect), s("HTTP/1.1 100 Continue\r\n\r\n"), rst},
			[]string{"POST /p HTTP/1.1 [h] -> 0 reset, 0 up, 0 down, 3+0 fields"},
			0,
		},
		{
			"interim with two readings",
			[]step{c(get), s("HTTP/1.1 100 Continue\r\nX : y\r\n\r\n"), s(ok5)},
			[]string{"GET / HTTP/1.1 [h] -> 0 ambiguous, 0 up, 0 down, 1+0 fields"},
			exchange.KindAmbiguous,
		},
		{
			"101",
			[]step{c("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"), s("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"), c("\x81\x00"), s("\x81\x00")},
			[]string{"GET /ws HTTP/1.1 [] -> 101 complete, 0 up, 0 down, 1+1 fields"},
			exchange.KindUpgraded,
		},
		{
			"connect",
			[]step{c("CONNECT a:443 HTTP/1.1\r\nHost: b\r\n\r\n"), s("HTTP/1.1 200 Connection established\r\n\r\n"), c(get), s(ok5)},
			[]string{"CONNECT a:443 HTTP/1.1 [a:443] -> 200 complete, 0 up, 0 down, 1+0 fields"},
			exchange.KindTunnel,
		},
		{
			"connect with a length",
			[]step{c("CONNECT a:443 HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), c(get), s(ok5)},
			[]string{"CONNECT a:443 HTTP/1.1 [a:443] -> 200 complete, 0 up, 0 down, 0+1 fields"},
			exchange.KindTunnel,
		},
		{
			"connect refused",
			[]step{c("CONNECT a:443 HTTP/1.1\r\n\r\n"), s("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"), c(get), s(ok5)},
			[]string{"CONNECT a:443 HTTP/1.1 [a:443] -> 403 complete, 0 up, 2 down, 0+1 fields", gotOK},
			0,
		},
		{
			"connect, and data before the answer",
			[]step{c("CONNECT a:443 HTTP/1.1\r\n\r\n"), c("\x16\x03\x01\x00\x05\x01\x00\x00\x00\x00"), s("HTTP/1.1 200 OK\r\n\r\n")},
			nil, exchange.KindGivenUp,
		},
	})
}

func TestEarlyResponse(t *testing.T) {
	const upload = post + "Content-Length: 10\r\n\r\n01234"
	const no = "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"
	test(t, []conversation{
		{
			"and the upload goes on",
			[]step{c(upload), s(no), c("56789"), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 413 complete, 10 up, 2 down, 2+1 fields", gotOK},
			0,
		},
		{
			"and the server closes",
			[]step{c(upload), s(no), sFIN, c("567"), rst},
			[]string{"POST /p HTTP/1.1 [h] -> 413 complete, 5 up, 2 down, 2+1 fields"},
			0,
		},
		{
			"until close, and the server closes",
			[]step{c(upload), s("HTTP/1.1 413 No\r\n\r\nno"), sFIN, c("567"), evict},
			[]string{"POST /p HTTP/1.1 [h] -> 413 complete, 5 up, 2 down, 2+0 fields"},
			0,
		},
		{"and a reset", []step{c(upload), s(no), rst}, []string{"POST /p HTTP/1.1 [h] -> 413 complete, 5 up, 2 down, 2+1 fields"}, 0},
		{
			"and another one",
			[]step{c(upload), s(no), s(no), c("56789"), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 413 complete, 5 up, 2 down, 2+1 fields"},
			exchange.KindGivenUp,
		},
		{
			"and a bad chunk",
			[]step{c(post + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234"), s(no), c("XX"), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 413 ambiguous, -1 up, 2 down, 2+1 fields"},
			exchange.KindAmbiguous,
		},
		{
			"in chunks while both send",
			[]step{c(post + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n"), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"), c("1\r\na\r\n0\r\n\r\n"), s("0\r\n\r\n"), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 200 complete, 6 up, 1 down, 2+1 fields", gotOK},
			0,
		},
		{
			"instead of 100 (Continue), and the content is not sent",
			[]step{c(post + "Expect: 100-continue\r\nContent-Length: 300\r\n\r\n"), s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"), c(get), s(ok5)},
			[]string{"POST /p HTTP/1.1 [h] -> 417 ambiguous, -1 up, 0 down, 3+1 fields"},
			exchange.KindAmbiguous,
		},
		{
			"instead of 100 (Continue), and the client closes",
			[]step{c(post + "Expect: 100-continue\r\nContent-Length: 300\r\n\r\n"), s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"), cFIN, sFIN},
			[]string{"POST /p HTTP/1.1 [h] -> 417 complete, 0 up, 0 down, 3+1 fields"},
			0,
		},
	})
}

func TestEnds(t *testing.T) {
	none := func(o string) []string {
		return []string{"GET / HTTP/1.1 [h] -> 0 " + o + ", 0 up, 0 down, 1+0 fields"}
	}
	const half = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"
	part := func(o string) []string {
		return []string{"GET / HTTP/1.1 [h] -> 200 " + o + ", 0 up, 3 down, 1+1 fields"}
	}
	test(t, []conversation{
		{"half-close, then the response", []step{c(get), cFIN, s(ok5), sFIN}, []string{gotOK}, 0},
		{"no response", []step{c(get), sFIN, cFIN}, none("no_response"), 0},
		{"a part of a head", []step{c(get), s("HTTP/1.1 200 OK\r\nCon"), sFIN, cFIN}, none("truncated"), 0},
		{"a part of a body", []step{c(get), s(half), sFIN, cFIN}, part("truncated"), 0},
		{"a part of a body, reset", []step{c(get), s(half), rst}, part("reset"), 0},
		{"a body until close, reset", []step{c(get), s("HTTP/1.1 200 OK\r\nX: y\r\n\r\nhel"), rst}, part("reset"), 0},
		{"a part of a body, evicted", []step{c(get), s(half), evict}, part("evicted"), 0},
		{"a part of a body, and the capture ends", []step{c(get), s(half)}, part("unfinished"), 0},
		{"chunks without an end", []step{c(get), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"), sFIN, cFIN}, part("truncated"), 0},
		{"reset", []step{c(get), rst}, none("reset"), 0},
		{"a part of a request", []step{c(get), s(ok5), c(get[:10]), cFIN, sFIN}, []string{gotOK}, 0},
		{
			"a part of an upload",
			[]step{c(post + "Content-Length: 9\r\n\r\nabc"), cFIN, sFIN},
			[]string{"POST /p HTTP/1.1 [h] -> 0 no_response, 3 up, 0 down, 2+0 fields"},
			0,
		},
		{"pipelined, and the end in the first body", []step{c(get + get), s(half), sFIN, cFIN}, append(part("truncated"), none("no_response")...), 0},
		{"a request after the server's end", []step{c(get), s(ok5), sFIN, c(get), cFIN}, append([]string{gotOK}, none("no_response")...), 0},
		{"a response after the last", []step{c(get), s(ok5), s("HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"), sFIN, cFIN}, []string{gotOK}, 0},
		{"no HTTP after a response", []step{c(get), s(ok5), c("\x00\x01\x02\x03")}, []string{gotOK}, exchange.KindGivenUp},
		{"no HTTP as the response", []step{c(get), s("220 mail.example ESMTP\r\n"), sFIN}, nil, exchange.KindGivenUp},
	})
}
