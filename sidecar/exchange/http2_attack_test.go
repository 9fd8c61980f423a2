package exchange_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// attack is what the ends of a connection do to exhaust who follows it.
type attack struct {
	name   string
	frames func(cl, sv *h2peer) []step
	// What comes of it: requests by drop and by outcome, and whether the connection
	// is given up.
	dropped  map[exchange.Drop]int
	outcomes map[exchange.Outcome]int
	givenUp  bool
}

const many = 20000

// times repeats what is written by f.
func times(p *h2peer, n int, f func(i int)) []step {
	var steps []step
	for i := range n {
		if f(i); i%100 == 99 || i == n-1 {
			steps = append(steps, p.flush())
		}
	}
	return steps
}

// open writes the headers of a request for a stream.
func (p *h2peer) open(stream uint32, end bool, fields ...string) {
	_ = p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.encode(fields...), EndStream: end, EndHeaders: true})
}

func id(i int) uint32 { return uint32(2*i + 1) }

var attacks = []attack{
	{
		name: "HPACK bomb (CVE-2016-6581): references to one large entry",
		frames: func(cl, _ *h2peer) []step {
			block := append([]byte{0x40, 1, 'a', 0x7f, 0x80 + (4000-127)&0x7f, byte((4000 - 127) >> 7)}, strings.Repeat("v", 4000)...)
			_ = cl.framer.WriteRawFrame(http2.FrameHeaders, 0x5, 1, append(block, bytes.Repeat([]byte{0x80 | 62}, 16000)...))
			return []step{cl.flush()}
		},
		dropped: map[exchange.Drop]int{exchange.DropHeadTooLarge: 1}, givenUp: true,
	},
	{
		name: "references of one byte to the static table",
		frames: func(cl, _ *h2peer) []step {
			_ = cl.framer.WriteRawFrame(http2.FrameHeaders, 0x5, 1, bytes.Repeat([]byte{0x80 | 16}, 65000))
			return []step{cl.flush()}
		},
		dropped: map[exchange.Drop]int{exchange.DropHeadTooLarge: 1}, givenUp: true,
	},
	{
		name: "CONTINUATION flood (CVE-2024-27316)",
		frames: func(cl, _ *h2peer) []step {
			_ = cl.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: cl.encode(h2get("/")...)})
			return times(cl, 1000, func(i int) {
				_ = cl.framer.WriteContinuation(1, false, bytes.Clone(cl.encode("x", strings.Repeat("a", 1000))))
			})
		},
		dropped: map[exchange.Drop]int{exchange.DropHeadTooLarge: 1}, givenUp: true,
	},
	{
		name: "CONTINUATION flood of empty frames (CVE-2019-9518)",
		frames: func(cl, _ *h2peer) []step {
			_ = cl.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			return times(cl, many, func(int) { _ = cl.framer.WriteContinuation(1, false, nil) })
		},
		dropped: map[exchange.Drop]int{exchange.DropHeadTooLarge: 1}, givenUp: true,
	},
	{
		name: "CONTINUATION flood from the server",
		frames: func(cl, sv *h2peer) []step {
			steps := []step{cl.headers(1, true, h2get("/")...)}
			_ = sv.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}})
			return append(steps, times(sv, many, func(int) { _ = sv.framer.WriteContinuation(1, false, nil) })...)
		},
		dropped: map[exchange.Drop]int{exchange.DropHeadTooLarge: 1}, givenUp: true,
	},
	{
		name: "a header block of 64 KiB and one byte",
		frames: func(cl, _ *h2peer) []step {
			_ = cl.framer.WriteRawFrame(http2.FrameHeaders, 0x5, 1, make([]byte, 64<<10+1))
			return []step{cl.flush()}
		},
		dropped: map[exchange.Drop]int{exchange.DropHeadTooLarge: 1}, givenUp: true,
	},
	{
		name: "a table of more than 64 KiB",
		frames: func(cl, sv *h2peer) []step {
			steps := []step{sv.settings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1 << 30})}
			cl.enc.SetMaxDynamicTableSizeLimit(1 << 20)
			cl.enc.SetMaxDynamicTableSize(1 << 20)
			return append(steps, cl.headers(1, true, h2get("/")...))
		},
		dropped: map[exchange.Drop]int{exchange.DropMalformed: 1}, givenUp: true,
	},
	{
		name: "rapid reset (CVE-2023-44487)",
		frames: func(cl, _ *h2peer) []step {
			return times(cl, many, func(i int) {
				cl.open(id(i), true, h2get("/")...)
				_ = cl.framer.WriteRSTStream(id(i), http2.ErrCodeCancel)
			})
		},
		outcomes: map[exchange.Outcome]int{exchange.Reset: many},
	},
	{
		name: "resets by the server (CVE-2025-8671, CVE-2019-9514)",
		frames: func(cl, sv *h2peer) []step {
			var steps []step
			for i := range many / 100 {
				steps = append(steps, times(cl, 100, func(j int) {
					cl.open(id(100*i+j), false, h2get("/")...)
					_ = cl.framer.WriteWindowUpdate(id(100*i+j), 0)
				})...)
				steps = append(steps, times(sv, 100, func(j int) { _ = sv.framer.WriteRSTStream(id(100*i+j), http2.ErrCodeProtocol) })...)
			}
			return steps
		},
		outcomes: map[exchange.Outcome]int{exchange.Reset: many},
	},
	{
		name: "streams without end",
		frames: func(cl, _ *h2peer) []step {
			return times(cl, many, func(i int) { cl.open(id(i), true, h2get("/")...) })
		},
		dropped: map[exchange.Drop]int{exchange.DropPipeline: many - 4096}, outcomes: map[exchange.Outcome]int{exchange.Unfinished: 4096},
	},
	{
		name: "streams without end, of large fields",
		frames: func(cl, _ *h2peer) []step {
			return times(cl, 2000, func(i int) { cl.open(id(i), true, h2get("/", "x", strings.Repeat("x", 8000))...) })
		},
		// The connection may hold half of what all may.
		dropped: map[exchange.Drop]int{exchange.DropMemory: 1506}, outcomes: map[exchange.Outcome]int{exchange.Unfinished: 494},
	},
	{
		name: "fields without name and value (CVE-2019-9516)",
		frames: func(cl, _ *h2peer) []step {
			return times(cl, 1000, func(i int) {
				block := bytes.Clone(cl.encode(h2get("/")...))
				for range 2000 {
					block = append(block, 0, 0, 0) // a literal that is not inserted
				}
				_ = cl.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id(i), BlockFragment: block, EndStream: true, EndHeaders: true})
			})
		},
		outcomes: map[exchange.Outcome]int{exchange.Unfinished: 1000},
	},
	{
		name: "interim responses without end",
		frames: func(cl, sv *h2peer) []step {
			return append([]step{cl.headers(1, true, h2get("/")...)}, times(sv, many, func(int) {
				sv.open(1, false, ":status", "103", "link", strings.Repeat("l", 1000))
			})...)
		},
		outcomes: map[exchange.Outcome]int{exchange.Unfinished: 1},
	},
	{
		name: "trailers without end",
		frames: func(cl, sv *h2peer) []step {
			return append([]step{cl.headers(1, true, h2get("/")...)}, times(sv, many, func(int) {
				sv.open(1, false, ":status", "200", "x", strings.Repeat("l", 1000))
			})...)
		},
		dropped: map[exchange.Drop]int{exchange.DropMalformed: 1},
	},
	{
		name: "promises without end",
		frames: func(cl, sv *h2peer) []step {
			return append([]step{cl.headers(1, true, h2get("/")...)}, times(sv, many, func(i int) {
				_ = sv.framer.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: id(i) + 1, BlockFragment: sv.encode(h2get("/p")...), EndHeaders: true})
			})...)
		},
		outcomes: map[exchange.Outcome]int{exchange.Unfinished: 1},
	},
	{
		name: "DATA without content (CVE-2019-9518)",
		frames: func(cl, _ *h2peer) []step {
			return append([]step{cl.headers(1, false, h2post("/")...)}, times(cl, many, func(int) { _ = cl.framer.WriteData(1, false, nil) })...)
		},
		outcomes: map[exchange.Outcome]int{exchange.Unfinished: 1},
	},
	{
		name: "SETTINGS, PING, PRIORITY and WINDOW_UPDATE (CVE-2019-9511, 9512, 9513, 9515)",
		frames: func(cl, sv *h2peer) []step {
			return append(times(cl, many, func(i int) {
				_ = cl.framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(i) * 99991})
				_ = cl.framer.WritePing(false, [8]byte{})
				_ = cl.framer.WritePriority(id(i), http2.PriorityParam{StreamDep: id(i + 1)})
				_ = cl.framer.WriteWindowUpdate(1, 1)
			}), times(sv, many, func(int) { _ = sv.framer.WriteSettingsAck() })...)
		},
	},
}

// TestHTTP2Attacks runs each attack beside a healthy connection: that is reported
// whole, what is held stays within the bound, what is allocated within a multiple
// of what was sent, and every request is counted.
func TestHTTP2Attacks(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			cl, sv := newH2Peer(0), newH2Peer(1)
			steps := append([]step{{0, preface, sends}, cl.settings(), sv.settings()}, a.frames(cl, sv)...)
			sent := 0
			for _, st := range steps {
				sent += len(st.data)
			}
			r := newReplay(exchange.Limits{}, true)
			healthy := newReplay(exchange.Limits{}, true)
			good := 0
			healthyEnds := ends2
			healthyEnds[0] = ends2[1]
			count := make(map[exchange.Outcome]int)
			r.engine = exchange.NewEngine(exchange.Limits{}, func(x *exchange.Exchange) {
				if x.Peers.Client == ends2[1] {
					good++
					return
				}
				count[x.Outcome]++
			})
			r.conn = r.engine.NewConn(ends2, true)
			healthy.engine = r.engine
			healthy.conn = r.engine.NewConn(healthyEnds, true)
			hc, hs := newH2Peer(0), newH2Peer(1)
			for _, st := range []step{{0, preface, sends}, hc.settings(), hs.settings()} {
				healthy.do(st, 0)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for i, st := range steps {
				r.do(st, 0)
				healthy.do(hc.headers(id(i), true, h2get(fmt.Sprint("/", i))...), 0)
				healthy.do(hs.headers(id(i), true, ":status", "200"), 0)
			}
			runtime.ReadMemStats(&after)
			kind := r.conn.Kind()
			peak := r.peak
			r.close(exchange.Unfinished)
			healthy.close(exchange.Unfinished)

			const budget = 8 << 20
			if peak > budget {
				t.Errorf("%d bytes held", peak)
			}
			// A healthy request and what is allocated for it are not part of the attack.
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(16*sent+len(steps)*20000+budget); got > most {
				t.Errorf("%d bytes allocated for %d bytes sent, want at most %d", got, sent, most)
			}
			if good != len(steps) {
				t.Errorf("%d exchanges of the healthy connection, want %d", good, len(steps))
			}
			if got := kind == exchange.KindGivenUp; got != a.givenUp {
				t.Errorf("the connection is %s", kind)
			}
			s := &r.engine.Stats
			var seen, total uint64 = s.Seen - uint64(good), 0
			for d := range s.Dropped {
				total += s.Dropped[d]
				if got := int(s.Dropped[d]); got != a.dropped[exchange.Drop(d)] {
					t.Errorf("dropped for %s: %d, want %d", exchange.Drop(d), got, a.dropped[exchange.Drop(d)])
				}
			}
			for _, o := range exchange.Outcomes() {
				total += uint64(count[o])
				if count[o] != a.outcomes[o] {
					t.Errorf("%s: %d, want %d", o, count[o], a.outcomes[o])
				}
			}
			if seen != total || s.HeldBytes != 0 || s.InFlight != 0 {
				t.Errorf("%d requests seen, %d accounted for; %+v", seen, total, s)
			}
		})
	}
}

// TestHTTP2Memory holds what is counted as held against the heap: of connections
// that fill their tables, or start header blocks and do not end them.
func TestHTTP2Memory(t *testing.T) {
	fill := func(size uint32) string {
		cl := newH2Peer(0)
		cl.enc.SetMaxDynamicTableSizeLimit(size)
		cl.enc.SetMaxDynamicTableSize(size)
		for i := range int(size) / 32 / 100 {
			fields := h2get("/")
			for j := range 100 {
				fields = append(fields, fmt.Sprintf("%x", 100*i+j), "")
			}
			cl.open(id(i), true, fields...)
			_ = cl.framer.WriteRSTStream(id(i), http2.ErrCodeCancel)
		}
		return cl.flush().data
	}
	var half bytes.Buffer
	_ = http2.NewFramer(&half, nil).WriteRawFrame(http2.FrameHeaders, 0x5, 1, make([]byte, 60000))
	for name, tt := range map[string]struct {
		frames string
		conns  int
	}{
		"tables of 64 KiB":   {fill(64 << 10), 300},
		"tables of 4 KiB":    {fill(4 << 10), 3000},
		"half header blocks": {half.String()[:59000], 300},
		"nothing":            {"", 3000},
	} {
		t.Run(name, func(t *testing.T) {
			e := exchange.NewEngine(exchange.Limits{}, func(*exchange.Exchange) {})
			sv := newH2Peer(1)
			settings := sv.settings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 64 << 10}).data
			conns := make([]*exchange.Conn, tt.conns)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range conns {
				conns[i] = e.NewConn(ends2, true)
				conns[i].Data(1, exchange.Segment{At: 1, Aligned: true}, []byte(settings))
				conns[i].Data(0, exchange.Segment{At: 1, Aligned: true}, []byte(preface))
				for rest := tt.frames; rest != ""; rest = rest[min(len(rest), 1460):] {
					conns[i].Data(0, exchange.Segment{At: 1, Aligned: true}, []byte(rest[:min(len(rest), 1460)]))
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			heap, held := int64(after.HeapAlloc)-int64(before.HeapAlloc), e.Stats.HeldBytes
			t.Logf("%d connections: %d bytes held, %d on the heap", tt.conns, held, heap)
			const perConn = 2 << 10
			if held > 8<<20 || heap > held+held/2+int64(tt.conns)*perConn {
				t.Errorf("%d bytes held, %d on the heap", held, heap)
			}
			for _, c := range conns {
				c.Close(exchange.Evicted, 2)
			}
			if e.Stats.HeldBytes != 0 {
				t.Errorf("%d bytes held in the end", e.Stats.HeldBytes)
			}
		})
	}
}

// TestHTTP2Streams has as many streams in progress as may be, answered in the
// reverse order.
func TestHTTP2Streams(t *testing.T) {
	const streams = 4096
	cl, sv := newH2Peer(0), newH2Peer(1)
	steps := []step{{0, preface, sends}}
	want := make(map[string]bool)
	for i := range streams {
		steps = append(steps, cl.headers(id(i), false, h2post(fmt.Sprint("/", i))...))
		want[fmt.Sprintf("POST /%d HTTP/2 [a.example] -> %d complete, %d up, %d down, 0+0 fields", i, 200+i%300, 2*(i%7), 2*(i%5))] = true
	}
	for half := range 2 {
		for i := streams - 1; i >= 0; i-- {
			steps = append(steps, cl.data(id(i), half == 1, strings.Repeat("u", i%7)))
			if half == 0 {
				steps = append(steps, sv.headers(id(i), false, ":status", fmt.Sprint(200+i%300)))
			}
			steps = append(steps, sv.data(id(i), half == 1, strings.Repeat("d", i%5)))
		}
	}
	got := run(t, exchange.Limits{}, steps, 0).got
	for _, l := range got {
		if !want[l] {
			t.Fatalf("%q", l)
		}
	}
	if len(got) != streams {
		t.Errorf("%d exchanges, want %d", len(got), streams)
	}
}
