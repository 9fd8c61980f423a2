package flow_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	frames [2][]walkFrame
}

type walkFrame struct {
	at, payload int    // where its header and its payload start in its stream
	key         string // what is the same for all frames that may be left out after it
	left        bool   // it was left out
}

func frameKey(header string) string {
	switch {
	case header[:5] == "\x00\x00\x04\x08\x00":
		return header[:5]
	case header[:3] != "\x00\x00\x00" && header[3:5] == "\x00\x00":
		return header
	}
	return ""
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
			k.frames[from] = append(k.frames[from], walkFrame{at: at, payload: at + 9, key: frameKey(stream[at : at+9])})
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

func (k *walk) LeftOut(d *bpf.Direction, seq uint32, header []byte) (n int) {
	from := 0
	if d.SourcePort == 80 {
		from = 1
	}
	all, at := k.frames[from], int(seq-k.isn[from]-1)
	i, ok := slices.BinarySearchFunc(all, at, func(f walkFrame, at int) int { return f.at - at })
	for ok && i+n < len(all) && all[i+n].left && all[i+n].key == frameKey(string(header)) {
		n++
	}
	return n
}

// leaves reports whether a part of a stream is left out: its frames are all like the
// one before.
func (k *walk) leaves(from, start, end int) bool {
	all := k.frames[from]
	i, _ := slices.BinarySearchFunc(all, start, func(f walkFrame, at int) int { return f.at - at })
	n := 0
	for ; i+n < len(all) && all[i+n].at < end; n++ {
		if f := all[i+n]; i+n == 0 || f.key == "" || f.key != all[i+n-1].key || f.payload > end {
			return false
		}
	}
	if n == 0 || all[i-1].payload > start {
		return false
	}
	for j := range n {
		all[i+j].left = true
	}
	return true
}

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
	if s.Flags == packets.ACK && k.leaves(f, start, end) {
		return p, false
	}
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

// leaving is a filter that leaves out frames of the server.
type leaving struct {
	seq uint32 // of the first
	n   int
}

func (*leaving) Skip(*bpf.Direction, uint32, uint32, bool) bool   { return true }
func (*leaving) Forget(*bpf.Direction)                            {}
func (*leaving) Walk(*bpf.Direction, uint32, uint32, []byte) bool { return true }
func (*leaving) Unwalk(*bpf.Direction)                            {}
func (*leaving) Piece(*bpf.Direction, uint32, uint32) (uint32, []byte, bool) {
	return 0, nil, false
}

func (l *leaving) LeftOut(d *bpf.Direction, seq uint32, header []byte) int {
	size := 9 + uint32(header[2])
	if d.SourcePort != 80 || (seq-l.seq)%size != 0 || seq-l.seq >= uint32(l.n)*size {
		return 0
	}
	return l.n - int((seq-l.seq)/size)
}

// TestLeftOutAlone has nothing captured of a connection for long, because all that the
// server sends is left out: it is not idle, and what was left out counts.
func TestLeftOutAlone(t *testing.T) {
	frame := func(kind, flags byte, payload string) string {
		return string([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 1}) + payload
	}
	message := frame(0, 0, strings.Repeat("x", 100))
	for _, test := range []struct {
		name string
		end  func(*packets.Conn, *flow.Table)
		want string
	}{
		{"more comes", func(c *packets.Conn, table *flow.Table) {
			c.Response(frame(0, 1, "end"), 0)
			table.Packet(c.Packets[len(c.Packets)-1])
		}, "200 complete, 0 up, 1003 down"},
		{"the client resets the stream", func(c *packets.Conn, table *flow.Table) {
			c.Request(frame(3, 0, "\x00\x00\x00\x08"), 0)
			table.Packet(c.Packets[len(c.Packets)-1])
		}, "200 reset, 0 up, 1000 down"},
		{"the connection ends", func(c *packets.Conn, table *flow.Table) {
			c.Reset()
			table.Packet(c.Packets[len(c.Packets)-1])
		}, "200 reset, 0 up, 1000 down"},
		{"the capture ends", func(c *packets.Conn, table *flow.Table) { table.Close(c.At) }, "200 unfinished, 0 up, 1000 down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got string
			l := &leaving{}
			table := flow.NewTable(flow.Config{Skipper: l, Walker: l, Emit: func(x *exchange.Exchange) {
				got = fmt.Sprintf("%d %s, %d up, %d down", x.Response.Status, x.Outcome, x.Request.BodySize, x.Response.BodySize)
			}})
			c := packets.Open(client, server, 0, 0)
			c.Request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(4, 0, "")+frame(1, 5, "\x82\x86\x84\x41\x01a"), 0)
			c.Response(frame(4, 0, "")+frame(1, 4, "\x88")+message, 0)
			for _, p := range c.Packets {
				table.Packet(p)
			}
			l.seq = uint32(1 + 9 + 10 + len(message))
			c.Response(strings.Repeat(message, 9), 0) // left out
			for range 4 {
				l.n = min(l.n+4, 9)
				c.At += 600e9
				table.Tick(c.At)
			}
			test.end(c, table)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("exchange (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("nothing comes", func(t *testing.T) {
		l := &leaving{}
		n := 0
		table := flow.NewTable(flow.Config{Skipper: l, Walker: l, Emit: func(*exchange.Exchange) { n++ }})
		c := packets.Open(client, server, 0, 0)
		c.Request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(4, 0, "")+frame(1, 5, "\x82\x86\x84\x41\x01a"), 0)
		for _, p := range c.Packets {
			table.Packet(p)
		}
		if table.Tick(c.At + 901e9); n != 1 {
			t.Errorf("%d exchanges, want that of an idle connection", n)
		}
	})
}

// TestLeftOutLater has frames left out after what follows them was captured, as two
// CPUs may hand them over: it need not wait until they are given up.
func TestLeftOutLater(t *testing.T) {
	message := "\x00\x00\x64\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 100)
	var got []string
	l := &leaving{}
	table := flow.NewTable(flow.Config{Skipper: l, Walker: l, Emit: func(x *exchange.Exchange) {
		got = append(got, fmt.Sprintf("%s, %d down", x.Outcome, x.Response.BodySize))
	}})
	c := packets.Open(client, server, 0, 0)
	c.Request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01a", 0)
	head := "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88" + message
	c.Response(head, 0).Response(message, 0).Response("\x00\x00\x00\x00\x01\x00\x00\x00\x01", 0)
	for i, p := range c.Packets {
		if i != len(c.Packets)-2 {
			table.Packet(p)
		}
	}
	l.seq, l.n = uint32(1+len(head)), 1
	table.Tick(c.At + 100e6)
	if diff := cmp.Diff([]string{"complete, 200 down"}, got); diff != "" {
		t.Errorf("exchanges (-want +got):\n%s", diff)
	}
}
