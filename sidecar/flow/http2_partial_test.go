package flow_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// framed returns a conversation with each frame in a segment of its own.
func framed(c *conversation) *wire {
	w := &wire{Rand: c.Rand, isn: [2]uint32{1 << 20, 1 << 30}}
	for _, t := range c.turns {
		rest := t.data
		for rest != "" {
			n := 9
			if rest[0] == 'P' { // the preface
				n = 24
			} else {
				n += int(rest[0])<<16 | int(rest[1])<<8 | int(rest[2])
			}
			start := len(w.streams[t.from])
			w.streams[t.from] += rest[:n]
			w.add(t.from, packets.ACK, start, start+n, len(w.streams[1-t.from]))
			rest = rest[n:]
		}
	}
	return w
}

// byStream returns what is reported of packets, by stream.
func byStream(t *testing.T, all []capture.Packet) map[uint32]*h2reported {
	t.Helper()
	got := make(map[uint32]*h2reported)
	table := flow.NewTable(flow.Config{Emit: func(x *exchange.Exchange) {
		if got[x.Wire.StreamID] != nil {
			t.Errorf("stream %d is reported twice", x.Wire.StreamID)
		}
		got[x.Wire.StreamID] = &h2reported{h2stream{
			method: x.Request.Method, target: x.Request.Target, status: x.Response.Status, up: int(x.Request.BodySize), down: int(x.Response.BodySize),
			request: pairs(x.Request.Fields), head: pairs(x.Response.Fields), trailers: pairs(x.Response.Trailers),
		}, x.Outcome, x.Request.Host}
	}})
	for _, p := range all {
		table.Packet(p)
	}
	table.Close(all[len(all)-1].At)
	checkAccounts(t, table)
	return got
}

type h2reported struct {
	h2stream
	outcome exchange.Outcome
	host    string
}

// compatible reports whether nothing that part says differs from whole; what it
// does not say may be unknown. If it is complete, it must say all.
func (part *h2reported) compatible(whole *h2reported) bool {
	unknown := part.outcome != exchange.Complete
	text := func(p, w string) bool { return p == w || unknown && p == "" }
	fields := func(p, w [][2]string) bool {
		if !unknown {
			return slices.Equal(p, w)
		}
		for _, f := range p { // in the same order
			i := slices.Index(w, f)
			if i < 0 {
				return false
			}
			w = w[i+1:]
		}
		return true
	}
	return text(part.method, whole.method) && text(part.target, whole.target) && text(part.host, whole.host) &&
		(part.status == whole.status || unknown && part.status == 0) &&
		fields(part.request, whole.request) && fields(part.head, whole.head) && fields(part.trailers, whole.trailers) &&
		part.up <= whole.up && part.down <= whole.down && (unknown || part.up == whole.up && part.down == whole.down)
}

// TestHTTP2FromEveryFrame starts to capture a connection before each of its frames,
// and loses each of them: whatever is then reported is what is reported of the
// whole, or unknown, and as what was unknown is sent again nothing is.
func TestHTTP2FromEveryFrame(t *testing.T) {
	const requests = 60
	for seed := range uint64(2) {
		w := framed(newH2Conversation(rand.New(rand.NewPCG(seed, 9)), requests))
		all := w.packets()
		whole := byStream(t, all)
		if len(whole) != requests {
			t.Fatalf("%d exchanges reported of the whole, want %d", len(whole), requests)
		}
		var last uint32
		for id := range whole {
			last = max(last, id)
		}
		compare := func(how string, at int, part []capture.Packet) {
			late, healed := 0, 0
			for id, x := range byStream(t, part) {
				if !x.compatible(whole[id]) {
					t.Errorf("seed %d, %s frame %d: stream %d is reported as\n%+v, is\n%+v", seed, how, at, id, *x, *whole[id])
				}
				if x.outcome != exchange.Reset && id > last*3/4 {
					if late++; x.outcome == exchange.Complete {
						healed++
					}
				}
			}
			if at < len(all)/4 && healed < late*9/10 {
				t.Errorf("seed %d, %s frame %d: %d of the last %d exchanges are complete", seed, how, at, healed, late)
			}
			if at < len(all)/4 && late < requests/6 {
				t.Errorf("seed %d, %s frame %d: %d of the last exchanges are reported", seed, how, at, late)
			}
		}
		for i := 1; i < len(all)-1; i++ {
			compare("from", i, all[i:])
			compare("without", i, slices.Delete(slices.Clone(all), i, i+1))
		}
	}
}
