package flow_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// h2end writes what one end of a random HTTP/2 connection sends.
type h2end struct {
	*rand.Rand
	out    bytes.Buffer
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	large  bool // it sends a lot of data
}

func newH2End(r *rand.Rand) *h2end {
	e := &h2end{Rand: r}
	e.framer = http2.NewFramer(&e.out, nil)
	e.framer.AllowIllegalWrites = true
	e.enc = hpack.NewEncoder(&e.block)
	return e
}

// headers writes a header block: in HEADERS or PUSH_PROMISE, and CONTINUATION
// frames, padded and with a priority or not.
func (e *h2end) headers(stream, promised uint32, end bool, fields [][2]string) {
	e.block.Reset()
	for _, f := range fields {
		_ = e.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: e.IntN(8) == 0})
	}
	block := e.block.Bytes()
	pieces := [][]byte{block}
	for e.IntN(4) == 0 {
		last := pieces[len(pieces)-1]
		n := e.IntN(len(last) + 1)
		pieces = append(pieces[:len(pieces)-1], last[:n], last[n:])
	}
	pad := uint8(0)
	if e.IntN(4) == 0 {
		pad = uint8(e.IntN(256))
	}
	if promised != 0 {
		_ = e.framer.WritePushPromise(http2.PushPromiseParam{StreamID: stream, PromiseID: promised, BlockFragment: pieces[0], EndHeaders: len(pieces) == 1, PadLength: pad})
	} else {
		p := http2.HeadersFrameParam{StreamID: stream, BlockFragment: pieces[0], EndStream: end, EndHeaders: len(pieces) == 1, PadLength: pad}
		if e.IntN(4) == 0 {
			p.Priority = http2.PriorityParam{StreamDep: 1, Weight: 5, Exclusive: true}
		}
		_ = e.framer.WriteHeaders(p)
	}
	for i := 1; i < len(pieces); i++ {
		_ = e.framer.WriteContinuation(stream, i == len(pieces)-1, pieces[i])
	}
}

func (e *h2end) data(stream uint32, end bool) int {
	n := e.IntN(50)
	if e.IntN(10) == 0 {
		n = e.IntN(16000)
	}
	if e.large {
		n = []int{16384, 16384, 1 << e.IntN(15), e.IntN(60000)}[e.IntN(4)]
	}
	content := []byte(strings.Repeat("\x00\x00\x04\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41", n/13+1))[:n]
	if e.IntN(4) == 0 {
		_ = e.framer.WriteDataPadded(stream, end, content, make([]byte, e.IntN(200)))
		return n
	}
	total := n
	for e.large && e.IntN(6) > 0 { // equal frames, of which the filter leaves some out
		_ = e.framer.WriteData(stream, false, content)
		total += n
	}
	_ = e.framer.WriteData(stream, end, content)
	return total
}

// noise writes a frame that changes nothing.
func (e *h2end) noise(stream uint32) {
	switch e.IntN(6) {
	case 0:
		_ = e.framer.WritePing(e.IntN(2) == 0, [8]byte{1})
	case 1:
		_ = e.framer.WriteWindowUpdate(stream*e.Uint32N(2), 1+e.Uint32N(1000))
		for e.large && e.IntN(20) > 0 {
			_ = e.framer.WriteWindowUpdate(stream*e.Uint32N(2), 1+e.Uint32N(1000))
		}
	case 2:
		_ = e.framer.WritePriority(stream, http2.PriorityParam{StreamDep: 3, Weight: 7})
	case 3:
		_ = e.framer.WriteRawFrame(http2.FrameType(0x20+e.IntN(100)), http2.Flags(e.IntN(256)), e.Uint32N(9), make([]byte, e.IntN(100)))
	case 4:
		_ = e.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: e.Uint32N(1 << 20)})
	case 5:
		_ = e.framer.WriteGoAway(1<<31-1, http2.ErrCodeNo, make([]byte, e.IntN(20)))
	}
}

func (e *h2end) fields(n int) (all [][2]string) {
	for range e.IntN(n) {
		name := fmt.Sprint("x-", e.IntN(30))
		value := fmt.Sprint(e.IntN(6))
		if e.IntN(12) == 0 {
			value = strings.Repeat(value, e.IntN(3000))
		}
		all = append(all, [2]string{name, value})
	}
	return all
}

// h2stream is an exchange in progress.
type h2stream struct {
	id                    uint32
	method, target        string
	request, head         [][2]string
	trailers              [][2]string
	status, up, down      int
	asked, headed, closed bool // the request has ended, the response has begun, has ended
}

func (s *h2stream) line(outcome string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %s -> %d %s", s.id, s.method, s.target, s.status, outcome)
	if outcome != "reset" { // content that was on its way then counts as it comes
		fmt.Fprintf(&b, ", %d up, %d down", s.up, s.down)
	}
	for _, fields := range [][][2]string{s.request, s.head, s.trailers} {
		b.WriteString(" |")
		for _, f := range fields {
			b.WriteString(" " + f[0] + "=" + f[1])
		}
	}
	return b.String()
}

func h2Line(x *exchange.Exchange) string {
	s := h2stream{
		x.Wire.StreamID, x.Request.Method, x.Request.Target, pairs(x.Request.Fields), pairs(x.Response.Fields), pairs(x.Response.Trailers),
		x.Response.Status, int(x.Request.BodySize), int(x.Response.BodySize), false, false, false,
	}
	return s.line(x.Outcome.String())
}

func pairs(fields exchange.Fields) (all [][2]string) {
	for _, f := range fields {
		all = append(all, [2]string{f.Name, f.Value})
	}
	return all
}

// newH2Conversation makes a connection of n requests on interleaved streams.
func newH2Conversation(r *rand.Rand, n int) *conversation {
	return newH2ConversationBetween(newH2End(r), newH2End(r), n)
}

func newH2ConversationBetween(client, server *h2end, n int) *conversation {
	r := client.Rand
	c := &conversation{Rand: r}
	g := &h2generator{c, [2]*h2end{client, server}, nil, 1, 2, [2]uint32{4096, 4096}}
	g.ends[0].out.WriteString(http2.ClientPreface)
	for _, e := range g.ends {
		_ = e.framer.WriteSettings()
	}
	for left := n; left > 0 || len(g.open) > 0; {
		if left > 0 && (len(g.open) == 0 || r.IntN(3) == 0) {
			g.ask()
			left--
		} else {
			g.step(g.open[r.IntN(len(g.open))])
		}
	}
	g.flush(0)
	g.flush(1)
	slices.Sort(c.exchanges)
	return c
}

type h2generator struct {
	*conversation
	ends     [2]*h2end
	open     []*h2stream
	next     uint32
	promised uint32
	tables   [2]uint32 // that the other end allows
}

func (g *h2generator) flush(from int) {
	if out := &g.ends[from].out; out.Len() > 0 {
		g.say(from, out.String())
		out.Reset()
	}
}

// by returns an end to write with, after what the other has written.
func (g *h2generator) by(from int) *h2end {
	g.flush(1 - from)
	return g.ends[from]
}

func (g *h2generator) ask() {
	e := g.by(0)
	s := &h2stream{id: g.next, method: g.pick("GET", "POST", "PUT", "BREW", "HEAD"), target: fmt.Sprint("/", g.IntN(9), strings.Repeat("p", g.IntN(30)))}
	g.next += 2 * (1 + g.Uint32N(2))
	s.request = append(e.fields(12), [2]string{"user-agent", "fuzz"})
	s.asked = g.IntN(2) == 0
	e.headers(s.id, 0, s.asked, append([][2]string{{":method", s.method}, {":scheme", "http"}, {":path", s.target}, {":authority", "a.example"}}, s.request...))
	g.open = append(g.open, s)
}

// step goes on with a stream, or with the connection.
func (g *h2generator) step(s *h2stream) {
	switch k := g.IntN(24); {
	case k == 0:
		g.by(g.IntN(2)).noise(s.id)
	case k == 1:
		g.resize(g.IntN(2))
	case k == 2 && g.IntN(3) == 0:
		e := g.by(1)
		e.headers(s.id, g.promised, false, append([][2]string{{":method", "GET"}, {":path", "/pushed"}}, e.fields(5)...))
		e.headers(g.promised, 0, false, append([][2]string{{":status", "200"}}, e.fields(5)...))
		e.data(g.promised, true)
		g.promised += 2
	case k == 3 && g.IntN(4) == 0:
		by := g.IntN(2)
		if s.closed { // content of a request that the server refuses counts as it comes
			by = 0
		}
		_ = g.by(by).framer.WriteRSTStream(s.id, http2.ErrCodeCancel)
		g.end(s, "reset")
	case k < 8 && !s.asked:
		g.goOnAsking(s)
	case k >= 8 && !s.closed:
		g.answer(s)
	}
	if s.asked && s.closed {
		g.end(s, "complete")
	}
}

func (g *h2generator) goOnAsking(s *h2stream) {
	e := g.by(0)
	if g.IntN(4) == 0 { // trailers
		s.asked = true
		e.headers(s.id, 0, true, [][2]string{{"x-sum", "1"}})
		return
	}
	s.asked = g.IntN(2) == 0
	s.up += e.data(s.id, s.asked)
}

func (g *h2generator) answer(s *h2stream) {
	e := g.by(1)
	switch {
	case !s.headed && g.IntN(5) == 0:
		e.headers(s.id, 0, false, append([][2]string{{":status", g.pick("100", "103")}}, e.fields(4)...))
	case !s.headed:
		s.headed, s.status, s.head = true, 200+g.IntN(300), e.fields(10)
		s.closed = g.IntN(5) == 0
		e.headers(s.id, 0, s.closed, append([][2]string{{":status", fmt.Sprint(s.status)}}, s.head...))
	case g.IntN(4) == 0:
		s.closed, s.trailers = true, append(e.fields(3), [2]string{"grpc-status", fmt.Sprint(g.IntN(17))})
		e.headers(s.id, 0, true, s.trailers)
	default:
		s.closed = g.IntN(3) == 0
		s.down += e.data(s.id, s.closed)
	}
}

// resize changes the size of the table that an end's encoder may use, and uses it
// once that is acknowledged, or, if it is larger, some day.
func (g *h2generator) resize(of int) {
	size := []uint32{0, 100, 4096, 16384, 65536}[g.IntN(5)]
	_ = g.by(1 - of).framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
	e := g.by(of)
	_ = e.framer.WriteSettingsAck()
	e.enc.SetMaxDynamicTableSizeLimit(size)
	if g.IntN(2) == 0 {
		e.enc.SetMaxDynamicTableSize(g.Uint32N(size + 1))
	}
}

func (g *h2generator) end(s *h2stream, outcome string) {
	if s.closed && outcome == "reset" { // the rest of the request is refused
		outcome = "complete"
	}
	g.exchanges = append(g.exchanges, s.line(outcome))
	g.open = slices.DeleteFunc(g.open, func(o *h2stream) bool { return o == s })
}

// runH2 returns the exchanges of packets, in an order of their own: which stream
// ends first depends on the order of delivery.
func runH2(t *testing.T, all []capture.Packet) []string {
	t.Helper()
	var lines []string
	table := flow.NewTable(flow.Config{Emit: func(x *exchange.Exchange) { lines = append(lines, h2Line(x)) }})
	replay(t, table, all, 0, everything)
	slices.Sort(lines)
	return lines
}

// FuzzHTTP2Delivery has random connections of HTTP/2, made by another
// implementation, arrive in every way that loses nothing: the exchanges must be
// exactly those, to the last field.
func FuzzHTTP2Delivery(f *testing.F) {
	for seed := range uint64(120) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		c := newH2Conversation(rand.New(rand.NewPCG(a, b)), 1+int(a%60))
		w := newWire(c)
		check := func(how string) {
			t.Helper()
			if diff := cmp.Diff(c.exchanges, runH2(t, w.packets())); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", how, diff)
			}
		}
		check("as sent")
		w.retransmit()
		check("with retransmissions")
		w.duplicate()
		check("with duplicates")
		w.reorder(2+c.IntN(20), 2)
		check("out of order")
	})
}
