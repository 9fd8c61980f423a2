package exchange_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// TestAmbiguousRequests has requests of whose framing readers make different
// things (RFC 9112, section 11.2): the head is reported, what follows is not
// looked at, be it what it may, and how much of it is content is not known.
func TestAmbiguousRequests(t *testing.T) {
	for name, head := range map[string]string{
		"length and chunked":             "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
		"chunked and length":             "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
		"two lengths":                    "POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
		"two lengths in a list":          "POST / HTTP/1.1\r\nContent-Length: 4, 5\r\n\r\n",
		"empty length":                   "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
		"list with an empty length":      "POST / HTTP/1.1\r\nContent-Length: 4,\r\n\r\n",
		"signed length":                  "POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
		"negative length":                "POST / HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
		"hexadecimal length":             "POST / HTTP/1.1\r\nContent-Length: 0x4\r\n\r\n",
		"fractional length":              "POST / HTTP/1.1\r\nContent-Length: 4.0\r\n\r\n",
		"length with a space":            "POST / HTTP/1.1\r\nContent-Length: 4 4\r\n\r\n",
		"length beyond 2^64":             "POST / HTTP/1.1\r\nContent-Length: 18446744073709551620\r\n\r\n",
		"length with a vertical tab":     "POST / HTTP/1.1\r\nContent-Length: \v4\r\n\r\n",
		"bare LF":                        "POST / HTTP/1.1\nContent-Length: 4\n\n",
		"one bare LF":                    "POST / HTTP/1.1\r\nX: y\nContent-Length: 4\r\n\r\n",
		"bare LF at the end":             "POST / HTTP/1.1\r\nContent-Length: 4\r\n\n",
		"bare CR in a value":             "POST / HTTP/1.1\r\nX: y\rContent-Length: 4\r\n\r\n",
		"bare CR before CRLF":            "POST / HTTP/1.1\r\nX: y\r\r\n\r\n",
		"bare CR in the request line":    "GET /\rx HTTP/1.1\r\n\r\n",
		"obs-fold":                       "POST / HTTP/1.1\r\nX: y\r\n Content-Length: 4\r\n\r\n",
		"obs-fold of Transfer-Encoding":  "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
		"obs-fold of the first line":     "POST / HTTP/1.1\r\n X: y\r\n\r\n",
		"whitespace before the colon":    "POST / HTTP/1.1\r\nContent-Length : 4\r\n\r\n",
		"tab before the colon":           "POST / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n",
		"no colon":                       "POST / HTTP/1.1\r\nContent-Length 4\r\n\r\n",
		"empty name":                     "POST / HTTP/1.1\r\n: 4\r\n\r\n",
		"NUL in a value":                 "POST / HTTP/1.1\r\nX: \x00\r\n\r\n",
		"NUL in a name":                  "POST / HTTP/1.1\r\nContent-Length\x00: 4\r\n\r\n",
		"NUL in the request line":        "GET /\x00 HTTP/1.1\r\n\r\n",
		"xchunked":                       "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"chunked with a parameter":       "POST / HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
		"chunked with a vertical tab":    "POST / HTTP/1.1\r\nTransfer-Encoding: \vchunked\r\n\r\n",
		"quoted chunked":                 "POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
		"chunked twice":                  "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
		"chunked twice, in two fields":   "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"chunked is not the last":        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
		"chunked, then identity":         "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
		"a request that is not chunked":  "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
		"empty Transfer-Encoding":        "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n",
		"Transfer-Encoding in 1.0":       "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a space before Content-Length":  "POST / HTTP/1.1\r\nX: y\r\n\tContent-Length: 4\r\n\r\n",
		"a length of nineteen digits":    "POST / HTTP/1.1\r\nContent-Length: 1000000000000000004\r\n\r\n",
		"Content-Length and its like":    "POST / HTTP/1.1\r\nContent-Length: 4\r\ncontent-length: 04, 5\r\n\r\n",
		"a name that is not a token":     "POST / HTTP/1.1\r\nContent Length: 4\r\n\r\n",
		"brackets in a name":             "POST / HTTP/1.1\r\n(X): y\r\n\r\n",
		"a byte above ASCII in a name":   "POST / HTTP/1.1\r\nTransfer-Encodin\xe7: chunked\r\n\r\n",
		"request line in place of field": "GET / HTTP/1.1\r\nGET /x HTTP/1.1\r\n\r\n",
	} {
		method, target := head[:strings.IndexByte(head, ' ')], head[:strings.Index(head, " HTTP")]
		for _, size := range []int{0, 1, 7} {
			t.Run(fmt.Sprint(name, "/", size), func(t *testing.T) {
				r := run(t, exchange.Limits{}, []step{c(get), s(ok5), c(head), c("0\r\n\r\n" + get), s(ok5), s(ok5), c(get), s(ok5)}, size)
				if len(r.got) != 2 || r.got[0] != gotOK || r.conn.Kind() != exchange.KindAmbiguous {
					t.Fatalf("kind %s, %q", r.conn.Kind(), r.got)
				}
				start, end := method+" ", " -> 200 ambiguous, -1 up, 5 down, "
				if !strings.HasPrefix(r.got[1], start) || !strings.Contains(r.got[1], end) || !strings.HasPrefix(r.got[1], target) {
					t.Errorf("got %q, want %s…%s…", r.got[1], start, end)
				}
			})
		}
	}
}

func TestAmbiguousResponses(t *testing.T) {
	const amb = "GET / HTTP/1.1 [h] -> 200 ambiguous, 0 up, -1 down"
	for name, response := range map[string]string{
		"length and chunked":          "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
		"two lengths":                 "Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
		"signed length":               "Content-Length: +4\r\n\r\n",
		"bare LF":                     "Content-Length: 4\n\r\n",
		"obs-fold":                    "X: y\r\n Content-Length: 4\r\n\r\n",
		"whitespace before the colon": "Content-Length : 4\r\n\r\n",
		"NUL":                         "X: \x00\r\n\r\n",
		"xchunked":                    "Transfer-Encoding: xchunked\r\n\r\n",
		"chunked with a parameter":    "Transfer-Encoding: chunked;q=1\r\n\r\n",
		"chunked twice":               "Transfer-Encoding: chunked, chunked\r\n\r\n",
		"chunked is not the last":     "Transfer-Encoding: chunked, identity\r\n\r\n",
		"identity and a length":       "Transfer-Encoding: identity\r\nContent-Length: 4\r\n\r\n",
		"chunk size without digits":   "Transfer-Encoding: chunked\r\n\r\n;x\r\n",
		"empty chunk size":            "Transfer-Encoding: chunked\r\n\r\n\r\n",
		"chunk size with 0x":          "Transfer-Encoding: chunked\r\n\r\n0x5\r\n",
		"chunk size with a sign":      "Transfer-Encoding: chunked\r\n\r\n+5\r\n",
		"chunk size beyond 2^60":      "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\n",
		"chunk size after a space":    "Transfer-Encoding: chunked\r\n\r\n 5\r\n",
		"chunk size in two parts":     "Transfer-Encoding: chunked\r\n\r\n5 5\r\n",
		"chunk size with a bare LF":   "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n",
		"chunk size with a bare CR":   "Transfer-Encoding: chunked\r\n\r\n5\rhello\r\n",
		"extension with a bare LF":    "Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n",
		"extension with a bare CR":    "Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n",
		"extension with NUL":          "Transfer-Encoding: chunked\r\n\r\n5;\x00\r\nhello\r\n",
		"endless extension":           "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("x", 70<<10),
		"a chunk that is too long":    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n",
		"a chunk ending in LF":        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n",
		"a chunk ending in CR":        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r5",
		"a trailer with a bare LF":    "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
		"a trailer with a bare CR":    "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\rZ: z\r\n\r\n",
		"a trailer with NUL":          "Transfer-Encoding: chunked\r\n\r\n0\r\nX: \x00\r\n\r\n",
		"a trailer without a colon":   "Transfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n",
		"a trailer without a name":    "Transfer-Encoding: chunked\r\n\r\n0\r\n: y\r\n\r\n",
		"a trailer, space, colon":     "Transfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
		"a folded trailer":            "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n",
		"a response for a trailer":    "Transfer-Encoding: chunked\r\n\r\n0\r\n" + ok5 + "\r\n\r\n",
		"an end with a bare LF":       "Transfer-Encoding: chunked\r\n\r\n0\r\n\n",
		"an end with a bare CR":       "Transfer-Encoding: chunked\r\n\r\n0\r\n\rX",
		"endless trailers":            "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: y\r\n", 12<<10),
	} {
		for _, size := range []int{0, 1, 7} {
			t.Run(fmt.Sprint(name, "/", size), func(t *testing.T) {
				steps := []step{c(get), s(ok5), c(get), s("HTTP/1.1 200 OK\r\n" + response), s(ok5), c(get), s(ok5)}
				r := run(t, exchange.Limits{}, steps, size)
				if len(r.got) != 2 || r.got[0] != gotOK || !strings.HasPrefix(r.got[1], amb) || r.conn.Kind() != exchange.KindAmbiguous {
					t.Errorf("kind %s, %q", r.conn.Kind(), r.got)
				}
			})
		}
	}
	t.Run("transfer coding in 1.0", func(t *testing.T) {
		r := run(t, exchange.Limits{}, []step{c(get), s("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), s(ok5)}, 0)
		if diff := cmp.Diff([]string{amb + ", 1+1 fields"}, r.got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("none in a response without content", func(t *testing.T) {
		r := run(t, exchange.Limits{}, []step{c(get), s("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"), c(get), s(ok5)}, 0)
		if len(r.got) != 2 || r.got[1] != gotOK {
			t.Errorf("%q", r.got)
		}
	})
}

// TestPipelinedBeforeAmbiguous has a certain request before one that is not.
func TestPipelinedBeforeAmbiguous(t *testing.T) {
	r := run(t, exchange.Limits{}, []step{c(get + "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n" + get), s(ok5 + ok5 + ok5)}, 0)
	want := []string{gotOK, "POST / HTTP/1.1 [] -> 200 ambiguous, -1 up, 5 down, 1+1 fields"}
	if diff := cmp.Diff(want, r.got); diff != "" {
		t.Error(diff)
	}
}
