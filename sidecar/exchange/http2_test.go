package exchange_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// h2peer writes the frames of one end of an HTTP/2 connection.
type h2peer struct {
	dir    exchange.Dir
	out    bytes.Buffer
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
}

func newH2Peer(d exchange.Dir) *h2peer {
	p := &h2peer{dir: d}
	p.framer = http2.NewFramer(&p.out, nil)
	p.framer.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.block)
	return p
}

// flush returns what was written since the last call, as a step.
func (p *h2peer) flush() step {
	st := step{p.dir, p.out.String(), sends}
	p.out.Reset()
	return st
}

func (p *h2peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return p.block.Bytes()
}

func (p *h2peer) headers(stream uint32, end bool, fields ...string) step {
	_ = p.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: p.encode(fields...), EndStream: end, EndHeaders: true,
	})
	return p.flush()
}

func (p *h2peer) data(stream uint32, end bool, content string) step {
	_ = p.framer.WriteData(stream, end, []byte(content))
	return p.flush()
}

func (p *h2peer) reset(stream uint32, code http2.ErrCode) step {
	_ = p.framer.WriteRSTStream(stream, code)
	return p.flush()
}

func (p *h2peer) settings(s ...http2.Setting) step {
	_ = p.framer.WriteSettings(s...)
	return p.flush()
}

// request returns the fields of a request.
func h2get(path string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":path", path, ":authority", "a.example"}, more...)
}

func h2post(path string, more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "a.example"}, more...)
}

const preface = http2.ClientPreface

// h2conversation is a connection with a bit of everything.
func h2conversation() ([]step, []string) {
	cl, sv := newH2Peer(0), newH2Peer(1)
	grpc := []string{"content-type", "application/grpc", "te", "trailers"}
	steps := []step{
		sv.settings(), // before the preface, as some servers do
		{0, preface, sends},
		cl.settings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 8192}), sv.settings(),
		cl.headers(1, true, h2get("/a")...),
		sv.headers(1, false, ":status", "200", "content-type", "text/plain"), sv.data(1, false, "hel"), sv.data(1, true, "lo"),
		// Two streams that are interleaved; a gRPC call with trailers.
		cl.headers(3, false, h2post("/pkg.S/M", grpc...)...), cl.headers(5, true, h2get("/b", "x", "1")...),
		sv.headers(5, false, ":status", "103"), sv.headers(5, true, ":status", "404"),
		cl.data(3, true, "\x00\x00\x00\x00\x02hi"),
		sv.headers(3, false, ":status", "200", "content-type", "application/grpc"), sv.data(3, false, "\x00\x00\x00\x00\x01!"),
		sv.headers(3, true, "grpc-status", "0"),
		// Trailers only; a reset by the client; one by the server after its response.
		cl.headers(7, true, h2post("/pkg.S/N", grpc...)...), sv.headers(7, true, ":status", "200", "grpc-status", "12"),
		cl.headers(9, true, h2get("/slow")...), cl.reset(9, http2.ErrCodeCancel),
		cl.headers(11, false, h2post("/upload")...), cl.data(11, false, strings.Repeat("x", 5000)),
		sv.headers(11, true, ":status", "413"), sv.reset(11, http2.ErrCodeNo),
	}
	// Padding, priority, CONTINUATION and frames that do not matter.
	block := append([]byte(nil), cl.encode(h2get("/"+strings.Repeat("p", 300))...)...)
	_ = cl.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 13, BlockFragment: block[:10], PadLength: 7, EndStream: true, Priority: http2.PriorityParam{StreamDep: 1, Weight: 3}})
	_ = cl.framer.WriteContinuation(13, false, block[10:20])
	_ = cl.framer.WriteContinuation(13, true, block[20:])
	_ = cl.framer.WritePing(false, [8]byte{})
	_ = cl.framer.WriteWindowUpdate(0, 100)
	_ = cl.framer.WriteRawFrame(0xee, 0, 13, []byte("extension"))
	steps = append(steps, cl.flush())
	_ = sv.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 13, BlockFragment: sv.encode(":status", "200"), EndHeaders: true})
	_ = sv.framer.WriteDataPadded(13, true, []byte("12345"), make([]byte, 20))
	_ = sv.framer.WriteGoAway(13, http2.ErrCodeNo, []byte("bye"))
	steps = append(steps, sv.flush())
	// An extended CONNECT, a pushed response, and a request that is never answered.
	steps = append(steps, cl.headers(15, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/chat", ":authority", "a.example"),
		sv.headers(15, false, ":status", "200"), cl.data(15, false, "\x81\x01x"), sv.data(15, false, "\x81\x01y"))
	_ = sv.framer.WritePushPromise(http2.PushPromiseParam{StreamID: 13, PromiseID: 2, BlockFragment: sv.encode(h2get("/pushed")...), EndHeaders: true})
	steps = append(steps, sv.flush(), sv.headers(2, false, ":status", "200"), sv.data(2, true, "pushed"),
		cl.headers(17, true, h2get("/never")...), cFIN, sFIN)
	want := []string{
		"GET /a HTTP/2 [a.example] -> 200 complete, 0 up, 5 down, 0+1 fields",
		"GET /b HTTP/2 [a.example] -> 404 complete, 0 up, 0 down, 1+0 fields",
		"POST /pkg.S/M gRPC [a.example] -> 200 complete, 7 up, 6 down, 2+1 fields",
		"POST /pkg.S/N gRPC [a.example] -> 200 complete, 0 up, 0 down, 2+1 fields",
		"GET /slow HTTP/2 [a.example] -> 0 reset, 0 up, 0 down, 0+0 fields",
		"POST /upload HTTP/2 [a.example] -> 413 complete, 5000 up, 0 down, 0+0 fields",
		"GET /" + strings.Repeat("p", 300) + " HTTP/2 [a.example] -> 200 complete, 0 up, 5 down, 0+0 fields",
		"CONNECT /chat HTTP/2 [a.example] -> 200 complete, 0 up, 0 down, 0+0 fields",
		"GET /never HTTP/2 [a.example] -> 0 no_response, 0 up, 0 down, 0+0 fields",
	}
	return steps, want
}

func TestHTTP2(t *testing.T) {
	steps, want := h2conversation()
	for _, size := range []int{0, 1, 2, 3, 8, 9, 10, 23, 100} {
		t.Run(fmt.Sprint("segments of ", size), func(t *testing.T) {
			if diff := cmp.Diff(want, run(t, exchange.Limits{}, steps, size).got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestHTTP2Attach starts in the middle of a connection, before each step: there
// must be fewer exchanges, and of each that is reported what is decoded is right.
func TestHTTP2Attach(t *testing.T) {
	cl, sv := newH2Peer(0), newH2Peer(1)
	steps := []step{{0, preface, sends}, cl.settings(), sv.settings()}
	for i := range 20 {
		id := uint32(2*i + 1)
		// Fields that repeat, so that the table is used, and some that are new.
		steps = append(steps,
			cl.headers(id, true, h2get(fmt.Sprint("/items/", i%7), "user-agent", "test", "x-tenant", fmt.Sprint(i%3))...),
			sv.headers(id, false, ":status", fmt.Sprint(200+i%5), "server", "s", "x-n", fmt.Sprint(i%4)),
			sv.data(id, true, strings.Repeat("d", i)))
	}
	steps = append(steps, cFIN, sFIN)
	whole := newReplay(exchange.Limits{}, true)
	var full []exchange.Exchange
	whole.engine = exchange.NewEngine(exchange.Limits{}, func(x *exchange.Exchange) { full = append(full, clone(x)) })
	whole.conn = whole.engine.NewConn(ends2, true)
	for _, st := range steps {
		whole.do(st, 0)
	}
	if len(full) != 20 {
		t.Fatalf("%d exchanges, want 20", len(full))
	}
	byStream := make(map[uint32]exchange.Exchange)
	for _, x := range full {
		byStream[x.Wire.StreamID] = x
	}
	for from := 1; from < len(steps); from++ {
		r := newReplay(exchange.Limits{}, false)
		reported := 0
		r.engine = exchange.NewEngine(exchange.Limits{}, func(x *exchange.Exchange) {
			reported++
			compatible(t, byStream[x.Wire.StreamID], *x)
		})
		r.conn = r.engine.NewConn(ends2, false)
		for _, st := range steps[from:] {
			r.do(st, 0)
		}
		r.close(exchange.Unfinished)
		// The status of the first response may be one that was sent before.
		if left := (len(steps)-from-4)/3 - 1; reported < left {
			t.Errorf("attached at step %d: %d exchanges reported, at least %d begin after it", from, reported, left)
		}
	}
}

func clone(x *exchange.Exchange) exchange.Exchange {
	c := *x
	for _, s := range []*string{&c.Request.Method, &c.Request.Target, &c.Request.Host} {
		*s = strings.Clone(*s)
	}
	for _, fields := range []*exchange.Fields{&c.Request.Fields, &c.Response.Fields, &c.Response.Trailers} {
		copied := make(exchange.Fields, 0, len(*fields))
		for _, f := range *fields {
			copied = append(copied, exchange.Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)})
		}
		*fields = copied
	}
	return c
}

// compatible checks that what is said of an exchange is what is said of it when
// all of the connection is seen, or nothing.
func compatible(t *testing.T, full, part exchange.Exchange) {
	t.Helper()
	same := func(what, a, b string) {
		if b != "" && a != b {
			t.Errorf("stream %d: %s %q, is %q", part.Wire.StreamID, what, b, a)
		}
	}
	same("method", full.Request.Method, part.Request.Method)
	same("target", full.Request.Target, part.Request.Target)
	same("host", full.Request.Host, part.Request.Host)
	for _, f := range part.Request.Fields {
		v, _ := full.Request.Fields.Get(f.Name)
		same(f.Name, v, f.Value)
	}
	for _, f := range part.Response.Fields {
		v, _ := full.Response.Fields.Get(f.Name)
		same(f.Name, v, f.Value)
	}
	if part.Response.Status != 0 && part.Response.Status != full.Response.Status || part.Response.BodySize != full.Response.BodySize {
		t.Errorf("stream %d: response %+v, is %+v", part.Wire.StreamID, part.Response, full.Response)
	}
	if part.Outcome == exchange.Complete && (part.Request.Target == "" || len(part.Request.Fields) != len(full.Request.Fields)) {
		t.Errorf("stream %d: complete, but without all fields", part.Wire.StreamID)
	}
}

// TestHTTP2Gap loses a piece: fewer exchanges, none that differs.
func TestHTTP2Gap(t *testing.T) {
	steps, want := h2conversation()
	whole := make(map[string]bool)
	for _, l := range want {
		whole[l] = true
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		lossy := append([]step(nil), steps...)
		lose := r.IntN(len(lossy))
		if lossy[lose].what == sends {
			lossy[lose].what = loses
		}
		for _, l := range run(t, exchange.Limits{}, lossy, 0).got {
			if strings.Contains(l, " undecoded") || strings.Contains(l, " reset") || strings.Contains(l, "no_response") {
				continue
			}
			if !whole[l] {
				t.Errorf("without step %d: %q is not among the exchanges", lose, l)
			}
		}
	}
}

// TestUpgradeToHTTP2 makes the upgrading request stream 1 (RFC 7540, section 3.2).
func TestUpgradeToHTTP2(t *testing.T) {
	for _, size := range []int{0, 1, 7} {
		cl, sv := newH2Peer(0), newH2Peer(1)
		settings := sv.settings()
		steps := []step{
			c("GET /first HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
			s("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + settings.data),
			{0, preface, sends},
			cl.settings(),
			sv.headers(1, false, ":status", "200"), sv.data(1, true, "one"),
			cl.headers(3, true, h2get("/second")...), sv.headers(3, true, ":status", "204"),
			cFIN, sFIN,
		}
		want := []string{
			"GET /first HTTP/2 [a.example] -> 200 complete, 0 up, 3 down, 4+0 fields",
			"GET /second HTTP/2 [a.example] -> 204 complete, 0 up, 0 down, 0+0 fields",
		}
		if diff := cmp.Diff(want, run(t, exchange.Limits{}, steps, size).got); diff != "" {
			t.Errorf("segments of %d (-want +got):\n%s", size, diff)
		}
	}
}

// FuzzHTTP2 feeds arbitrary frames to both directions: nothing crashes, the
// accounts balance, and it does not matter how the bytes are cut.
func FuzzHTTP2(f *testing.F) {
	steps, _ := h2conversation()
	var both [2]string
	for _, st := range steps {
		both[st.dir] += st.data
	}
	f.Add([]byte(both[0][len(preface):]), []byte(both[1]), uint8(7))
	f.Add([]byte("\x00\x00\x04\x01\x05\x00\x00\x00\x01\x82\x86\x84\xbe"), []byte("\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"), uint8(1))
	f.Fuzz(func(t *testing.T, client, server []byte, size uint8) {
		steps := []step{{0, preface, sends}, {0, string(client), sends}, {1, string(server), sends}, cFIN, sFIN}
		limits := exchange.Limits{Buffered: 1 << 20, Streams: 64}
		whole, cut := run(t, limits, steps, 0), run(t, limits, steps, int(size)+1)
		if diff := cmp.Diff(whole.got, cut.got); diff != "" {
			t.Errorf("cut into %d bytes (-whole +cut):\n%s", int(size)+1, diff)
		}
		if max(whole.peak, cut.peak) > 1<<20 {
			t.Errorf("%d bytes held", max(whole.peak, cut.peak))
		}
	})
}
