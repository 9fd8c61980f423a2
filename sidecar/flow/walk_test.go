package flow_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// walk is a filter that knows all frames of a wire, and captures of walked directions
// no more than it has to.
type walk struct {
	*wire
	*filter
	walked map[bpf.Direction]bool
	inside [2][][2]int // payloads that are not needed, of each stream
}

type walkPiece struct {
	seq  uint32
	data string
}

func newWalk(w *wire) *walk {
	k := &walk{wire: w, filter: newFilter(), walked: make(map[bpf.Direction]bool)}
	for from, stream := range w.streams {
		at := 0
		if from == 0 {
			at = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		}
		for at < len(stream) {
			n, kind, flags := int(stream[at])<<16|int(stream[at+1])<<8|int(stream[at+2]), stream[at+3], stream[at+4]
			at += 9
			if whole := kind == 1 || kind >= 3 && kind <= 5 || kind == 9 || kind == 0 && flags&8 != 0; !whole {
				k.inside[from] = append(k.inside[from], [2]int{at, at + n})
			}
			at += n
		}
	}
	return k
}

func (k *walk) Walk(d *bpf.Direction, _, _ uint32, _ []byte) bool { k.walked[*d] = true; return true }
func (k *walk) Unwalk(d *bpf.Direction)                           { delete(k.walked, *d) }

// take returns what of the i-th packet is captured in place.
func (k *walk) take(i int, p capture.Packet) (capture.Packet, bool) {
	s := k.segments[i]
	f := from(s)
	d := segmentDirection(s)
	if !k.walked[d] || s.Payload == "" {
		return p, s.Payload != "" || s.Flags != packets.ACK
	}
	needed := make([]bool, len(s.Payload))
	for i := range needed {
		needed[i] = true
	}
	start := int(s.Seq - k.isn[f] - 1)
	end := start + len(s.Payload)
	for _, r := range k.inside[f] {
		if r[0] <= start && end < r[1] && s.Flags == packets.ACK {
			return p, false
		}
		for i := max(r[0], start); i < min(r[1], end); i++ {
			needed[i-start] = false
		}
	}
	keep := 0
	for keep < len(needed) && needed[keep] {
		keep++
	}
	for i := keep; i < len(needed); {
		n := 0
		for i+n < len(needed) && needed[i+n] && n < 15 {
			n++
		}
		if n > 0 {
			k.pieces[d] = append(k.pieces[d], walkPiece{s.Seq + uint32(i), s.Payload[i : i+n]})
		}
		i += max(n, 1)
	}
	p.Data = p.Data[:len(p.Data)-len(s.Payload)+keep]
	return p, true
}

func runWalked(t *testing.T, w *wire, lag int) []string {
	t.Helper()
	var lines []string
	k := newWalk(w)
	table := flow.NewTable(flow.Config{Skipper: k, Walker: k, Emit: func(x *exchange.Exchange) { lines = append(lines, h2Line(x)) }})
	replay(t, table, w.packets(), lag, k.take)
	if len(k.walked) > 0 {
		t.Errorf("the filter still walks %v", k.walked)
	}
	slices.Sort(lines)
	return lines
}

// FuzzWalk has random connections of HTTP/2 captured without the insides of their
// frames: the exchanges must be the same.
func FuzzWalk(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		client, server := newH2End(r), newH2End(r)
		client.large, server.large = a%2 == 0, a%3 > 0
		c := newH2ConversationBetween(client, server, 1+int(a%30))
		w := newWire(c)
		check := func(how string) {
			t.Helper()
			if diff := cmp.Diff(c.exchanges, runWalked(t, w, c.IntN(100))); diff != "" {
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
		w.lose(2+c.IntN(30), 2)
		checkAmong(t, c.exchanges, runWalked(t, w, c.IntN(100)))
	})
}
