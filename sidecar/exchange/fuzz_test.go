package exchange_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// encode writes steps as fuzz input: an event and direction, a length, the data.
func encode(steps []step) []byte {
	var b []byte
	for _, st := range steps {
		b = append(b, byte(st.what)<<1|byte(st.dir))
		b = binary.BigEndian.AppendUint16(b, uint16(len(st.data)))
		b = append(b, st.data...)
	}
	return b
}

// decode reads any bytes as steps.
func decode(b []byte) []step {
	var steps []step
	for len(b) >= 3 {
		st := step{dir: exchange.Dir(b[0] & 1), what: event(b[0] >> 1 % 5)}
		n := min(int(binary.BigEndian.Uint16(b[1:])), len(b)-3)
		st.data = string(b[3 : 3+n])
		b = b[3+n:]
		steps = append(steps, st)
	}
	return steps
}

// seeds are the conversations of the other tests, more or less.
var seeds = [][]step{
	{c(get), s(ok5), c(get), s(ok5), cFIN, sFIN},
	{c("\r\n" + post + "Content-Length: 5\r\n\r\nGET /"), s("HTTP/1.1 100 Continue\r\n\r\n" + ok5)},
	{c(post + "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n" + get), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" + ok5)},
	{c("HEAD / HTTP/1.0\r\n\r\n"), s("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"), c(get), s("HTTP/1.1 200 OK\r\n\r\nabc"), sFIN, cFIN},
	{c(post + "Expect: 100-continue\r\nContent-Length: 30\r\n\r\n"), s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"), c(get)},
	{c(post + "Content-Length: 10\r\n\r\n01234"), s(ok5), c("56789" + get), s(ok5)},
	{c("CONNECT a:1 HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\n\r\n"), c("\x16\x03\x01")},
	{c("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n"), s("HTTP/1.1 101 X\r\n\r\nxyz")},
	{c(get + get + get), s(ok5 + "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 304 No\r\n\r\n")},
	{c(get), cLost(get), s(ok5), c(get), sLost(ok5), c(get), s(ok5), rst},
	{c("POST / HTTP/1.1\r\nContent-Length: 4, 4\r\nTransfer-Encoding: gzip\r\nX : y\r\n z\r\n\r\n"), s(ok5)},
	{c("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")},
	{s("SSH-2.0-x\r\n"), c("*1\r\n$4\r\n")},
	{c("\x16\x03\x01\x00\x05\x01"), s("J\x00\x00\x00\x0a8.0")},
	{c("\x00\x00\x00\x08\x04\xd2\x16\x2f"), c("AMQP\x00\x00\x09\x01")},
}

// FuzzConn feeds a connection with anything. Nothing may crash, what is held is
// bounded, the accounts balance, and however the same bytes are cut into
// segments, or those that are not needed skipped, the exchanges are the same.
func FuzzConn(f *testing.F) {
	for i, steps := range seeds {
		f.Add(encode(steps), uint64(i))
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		limits := exchange.Limits{Head: 300, Fields: 4, Pipeline: 5, Buffered: 2000}
		steps := decode(input)
		whole := feed(t, limits, steps, func(r *replay, st step) { r.do(st, 0) })
		cut := feed(t, limits, steps, cutter(seed))
		skipped := feed(t, limits, steps, skipper)
		if s := &whole.engine.Stats; s.Gaps > 0 || s.Orphans > 0 {
			return // where segments start is then part of what is known
		}
		if diff := cmp.Diff(whole.got, cut.got); diff != "" {
			t.Errorf("%q\ncut into other segments (-whole +cut):\n%s", steps, diff)
		}
		if diff := cmp.Diff(whole.got, skipped.got); diff != "" {
			t.Errorf("%q\nwith what is not needed skipped (-whole +skipped):\n%s", steps, diff)
		}
		if whole.conn.Kind() != cut.conn.Kind() {
			t.Errorf("%q\nkind %s, cut into other segments %s", steps, whole.conn.Kind(), cut.conn.Kind())
		}
	})
}

func feed(t *testing.T, l exchange.Limits, steps []step, do func(*replay, step)) *replay {
	r := newReplay(l, true)
	for _, st := range steps {
		do(r, st)
	}
	r.close(exchange.Unfinished)
	r.check(t)
	if r.peak > int64(l.Buffered) {
		t.Errorf("%d bytes held", r.peak)
	}
	return r
}

// cutter takes steps in segments of random sizes.
func cutter(seed uint64) func(*replay, step) {
	random := rand.New(rand.NewPCG(seed, 0))
	return func(r *replay, st step) {
		for st.what == sends && len(st.data) > 0 {
			n := 1 + random.IntN(min(len(st.data), 1+random.IntN(100)))
			r.do(step{st.dir, st.data[:n], sends}, 0)
			st.data = st.data[n:]
		}
		if st.what != sends {
			r.do(st, 0)
		}
	}
}

// skipper takes steps and passes over what is not needed.
func skipper(r *replay, st step) {
	if st.what != sends {
		r.do(st, 0)
		return
	}
	for data := st.data; len(data) > 0 && !r.closed && !r.ended[st.dir]; {
		n := int(min(r.conn.Skippable(st.dir), int64(len(data))))
		if n > 0 {
			r.conn.Saw(st.dir)
			r.conn.Skip(st.dir, int64(n))
			r.next[st.dir] += uint32(n)
		} else {
			n = 1
			r.send(st.dir, data[:1], 0)
		}
		data = data[n:]
	}
}

// FuzzHeads compares the reading of a head with that of net/http: where both find
// no fault with a message, they agree on what it says and how long it is.
func FuzzHeads(f *testing.F) {
	for _, steps := range seeds {
		f.Add([]byte(steps[0].data), []byte(steps[len(steps)-1].data))
	}
	f.Add([]byte(post+"Content-Length: 5\r\n\r\nhello"), []byte(ok5))
	f.Add([]byte(post+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, request, response []byte) {
		const (
			next   = "GET /next HTTP/1.1\r\nHost: n\r\n\r\n"
			answer = "HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n"
		)
		var got []exchange.Exchange
		e := exchange.NewEngine(exchange.Limits{}, func(x *exchange.Exchange) { got = append(got, clone(x)) })
		conn := e.NewConn(ends2, true)
		request, response = append(request[:len(request):len(request)], next...), append(response[:len(response):len(response)], answer...)
		conn.Data(0, exchange.Segment{At: 1, Aligned: true}, request)
		conn.Data(1, exchange.Segment{At: 2, Ack: uint32(len(request)), Aligned: true}, response)
		conn.Close(exchange.Unfinished, 3)
		if len(got) != 2 || got[0].Outcome != exchange.Complete || got[1].Outcome != exchange.Complete || got[1].Request.Method+got[1].Request.Target != "GET/next" || got[1].Response.Status != 299 {
			return
		}
		x := &got[0]
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			return
		}
		body, err := io.ReadAll(want.Body)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q is complete, but net/http: %v", request, err)
		} else if err != nil {
			return // a trailer that it does not like
		}
		if g, w := fmt.Sprint(x.Request.Method, " ", x.Request.Target, " ", x.Request.BodySize), fmt.Sprint(want.Method, " ", want.RequestURI, " ", len(body)); g != w {
			t.Errorf("request %q: %q, net/http %q", request, g, w)
		}
		reader := bufio.NewReader(bytes.NewReader(response))
		read, err := http.ReadResponse(reader, want)
		for err == nil && read.StatusCode < 200 {
			read, err = http.ReadResponse(reader, want)
		}
		if err != nil {
			return
		}
		if body, err = io.ReadAll(read.Body); errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q is complete, but net/http: %v", response, err)
		} else if err != nil {
			return
		}
		if x.Response.Status != read.StatusCode || x.Response.BodySize != int64(len(body)) {
			t.Errorf("response %q: %d, %d bytes; net/http %d, %d bytes", response, x.Response.Status, x.Response.BodySize, read.StatusCode, len(body))
		}
		for _, field := range x.Response.Fields {
			name := http.CanonicalHeaderKey(field.Name)
			if all := read.Header.Values(name); len(all) > 0 && !strings.Contains(strings.Join(all, "\n"), field.Value) {
				t.Errorf("response %q: %s is %q, net/http %q", response, field.Name, field.Value, all)
			}
		}
	})
}
