package flow

import (
	"bytes"
	"unsafe"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/sidecar/exchange"
)

// conn is a TCP connection. Direction 0 is its key.
type conn struct {
	dirs   [2]bpf.Direction
	x      *exchange.Conn // from the first data on, until the end
	half   [2]half
	last   int64 // time of the last packet
	state  state
	v4     bool
	opened bool // opener is the direction of the first SYN
	opener exchange.Dir
	// stalled tells that it is in the list of those with something that waits,
	// since when the first of that does.
	stalled bool
	since   int64

	newer, older *conn // in the list of its state
}

type state uint8

const (
	embryonic state = iota // no data so far
	open
	closed // kept for a while, so that late packets are known as such
)

// late is a segment that waits for earlier bytes.
type late struct {
	exchange.Segment
	payload []byte
	length  int
	held    int // its part of Stats.LateBytes
}

// keepLate is for how many late segments a direction keeps the memory.
const keepLate = 4

// before compares sequence numbers (RFC 9293, section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

// take processes a segment of a connection.
func (t *Table) take(c *conn, d exchange.Dir, s *segment) {
	h := &c.half[d]
	if c.state == closed {
		t.Stats.Duplicates++
		return
	}
	c.last = s.at
	start, syn := s.seq, s.flags&flagSYN != 0
	if syn {
		start++ // SYN takes a sequence number; data may follow (RFC 7413)
		if !h.syn && !h.located {
			h.syn, h.isn = true, s.seq
			c.opened = true
			if c.opener = d; s.flags&flagACK != 0 {
				c.opener = d.Opposite()
			}
		}
		t.early(c, d, start)
	}
	if syn || s.length > 0 || s.flags&(flagFIN|flagRST) != 0 {
		c.locate(d, start, syn)
	}
	if s.flags&flagACK != 0 {
		h.acknowledge(s.ack)
		if o := d.Opposite(); c.half[o].known {
			c.locate(o, c.half[o].next, false)
		}
	}
	t.enlist(c, c.state)
	if s.length > 0 && (!h.fin || before(start, h.finSeq)) {
		t.open(c, d, start)
		seg := exchange.Segment{At: s.at, Seq: start, Ack: c.acked(d, s), Out: s.out, Aligned: true}
		t.place(c, d, late{Segment: seg, payload: s.payload, length: s.length})
	}
	if c.x != nil {
		c.x.Saw(d)
	}
	if s.flags&flagRST != 0 {
		t.reset(c, d, s)
		return
	}
	if s.flags&flagFIN != 0 && !h.fin {
		h.fin, h.finSeq, h.finAt = true, start+uint32(s.length), s.at
		h.finAck = c.acked(d, s)
	}
	t.pump(c)
	t.watch(c, s.at)
}

// open makes a connection one that is followed: its first data, at seq, came.
func (t *Table) open(c *conn, d exchange.Dir, seq uint32) {
	if c.x != nil {
		return
	}
	other := &c.half[d.Opposite()]
	handshake := c.half[d].syn || other.syn && other.acks && other.acked == seq
	c.x = t.engine.NewConn(c.ends(), handshake)
	if c.opened {
		c.x.OpenedBy(c.opener)
	}
	for d := range exchange.Dir(2) {
		if c.half[d].known {
			c.x.Saw(d)
		}
	}
	t.enlist(c, open)
	if t.lists[open].n > t.config.Connections {
		t.evict(t.lists[open].oldest(), c.last)
	}
}

// place delivers a segment, or keeps it if it has to wait.
func (t *Table) place(c *conn, d exchange.Dir, l late) {
	h := &c.half[d]
	if len(h.late) == 0 && t.deliver(c, d, &l) {
		return
	}
	const maxLate = 256
	cost := len(l.payload) + int(unsafe.Sizeof(l))
	t.Stats.Reordered++
	for len(h.late) >= maxLate || t.Stats.LateBytes+int64(cost) > int64(t.config.Late) {
		if !t.stuck(c) { // other connections hold the memory
			if n := l.Seq + uint32(l.length) - h.next; int32(n) > 0 {
				t.missing(c, d, n)
			}
			return
		}
		if t.giveUp(c); c.x == nil { // the connection had ended otherwise
			return
		}
	}
	if len(h.late) == 0 && t.deliver(c, d, &l) {
		return
	}
	l.payload, l.held = bytes.Clone(l.payload), cost
	t.Stats.LateBytes += int64(l.held)
	i := len(h.late)
	for i > 0 && before(l.Seq, h.late[i-1].Seq) {
		i--
	}
	h.late = append(h.late, late{})
	copy(h.late[i+1:], h.late[i:])
	h.late[i] = l
}

// pump delivers what need not wait any more.
func (t *Table) pump(c *conn) {
	for progress := true; progress && c.x != nil; {
		progress = false
		waited := c.since != 0
		for d := range exchange.Dir(2) {
			h := &c.half[d]
			for len(h.late) > 0 && t.deliver(c, d, &h.late[0]) {
				t.shift(h)
				progress = true
			}
			if t.endHalf(c, d) {
				progress = true
			}
		}
		if progress && waited {
			c.since = c.last // what waits now has not waited for the same
		}
	}
	switch {
	case c.half[0].ended && c.half[1].ended, c.x == nil && c.half[0].empty() && c.half[1].empty():
		t.end(c, exchange.Truncated, max(c.half[0].finAt, c.half[1].finAt))
	case c.x != nil:
		t.steer(c, 0)
		t.steer(c, 1)
	}
}

func (t *Table) shift(h *half) {
	t.Stats.LateBytes -= int64(h.late[0].held)
	copy(h.late, h.late[1:])
	h.late[len(h.late)-1] = late{}
	if h.late = h.late[:len(h.late)-1]; len(h.late) == 0 && cap(h.late) > keepLate {
		h.late = nil // Stats.LateBytes does not count its memory any more
	}
}

// deliver passes a segment on, unless it has to wait; then it returns false.
func (t *Table) deliver(c *conn, d exchange.Dir, l *late) bool {
	h := &c.half[d]
	if !t.reaches(c, d, l.At, l.Seq) {
		return false
	}
	switch ahead := int64(int32(l.Seq - h.next)); {
	case ahead > 0:
		if !t.inTurn(c, d, l.At, l.Ack) {
			return false
		}
		t.skip(c, d, ahead)
	case ahead < 0:
		old := int(-ahead)
		t.early(c, d, l.Seq)
		if old >= l.length {
			t.Stats.Duplicates++
			return true
		}
		l.payload = l.payload[min(old, len(l.payload)):]
		l.length -= old
		l.Seq, l.Aligned = h.next, false
	}
	if !t.inTurn(c, d, l.At, l.Ack) {
		return false
	}
	h.settle()
	c.x.Data(d, l.Segment, l.payload)
	h.next += uint32(len(l.payload))
	if cut := l.length - len(l.payload); cut > 0 {
		t.cut(c, d, l.Segment, uint32(cut))
	}
	return true
}

// early gives up what is in progress if a direction turns out to have started
// before what was taken for its start.
func (t *Table) early(c *conn, d exchange.Dir, seq uint32) {
	if h := &c.half[d]; c.x != nil && h.located && !h.syn && before(seq, h.origin) {
		h.origin = seq
		c.x.Gap(d, 0)
	}
}

// inTurn reports whether the other direction has been delivered as far as the
// sender of a segment had received it.
func (t *Table) inTurn(c *conn, d exchange.Dir, at int64, ack uint32) bool {
	other := &c.half[d.Opposite()]
	return !other.known || other.ahead(ack) <= 0 || t.reaches(c, d.Opposite(), at, ack)
}

// reaches reports whether nothing is missing of a direction that is needed and comes
// before a sequence number.
func (t *Table) reaches(c *conn, d exchange.Dir, at int64, seq uint32) bool {
	h := &c.half[d]
	if h.ahead(seq) <= c.x.Skippable(d) {
		return true
	}
	t.fill(c, d, at, seq)
	return h.ahead(seq) <= c.x.Skippable(d)
}

// missing passes over bytes that were sent and will not come: needed or not.
func (t *Table) missing(c *conn, d exchange.Dir, n uint32) {
	if c.x.Skippable(d) < int64(n) {
		known := c.x.Bridge(d, int64(n))
		t.Stats.Missing += uint64(known)
		c.half[d].next += uint32(known)
		n -= uint32(known)
	}
	if n > 0 {
		t.lose(c, d, n)
	}
}

// lose passes over bytes that will not come and may not have been received.
func (t *Table) lose(c *conn, d exchange.Dir, n uint32) {
	if c.x.Skippable(d) >= int64(n) {
		t.skip(c, d, int64(n))
		return
	}
	t.Stats.Missing += uint64(n)
	c.x.Gap(d, int64(n))
	c.half[d].settle()
	c.half[d].next += n
}

func (t *Table) skip(c *conn, d exchange.Dir, n int64) {
	t.Stats.Omitted += uint64(n)
	c.x.Skip(d, n)
	c.half[d].settle()
	c.half[d].next += uint32(n)
}

// endHalf ends a direction when everything before its FIN has been delivered.
func (t *Table) endHalf(c *conn, d exchange.Dir) bool {
	h := &c.half[d]
	if !h.fin || h.ended || len(h.late) > 0 {
		return false
	}
	if !t.reaches(c, d, h.finAt, h.finSeq) || !t.inTurn(c, d, h.finAt, h.finAck) {
		return false
	}
	if n := int64(int32(h.finSeq - h.next)); n > 0 {
		t.skip(c, d, n)
	}
	h.ended = true
	c.x.End(d, h.finAt)
	return true
}

// reset ends a connection. An RST that is far from what is expected is none of
// its own (RFC 5961, section 3.2).
func (t *Table) reset(c *conn, d exchange.Dir, s *segment) {
	const plausible = 1 << 20
	h := &c.half[d]
	t.pump(c)
	if c.x != nil {
		t.fill(c, d, s.at, s.seq)
		if ahead := h.ahead(s.seq); ahead < -plausible || ahead > plausible && ahead-plausible > c.x.Skippable(d) {
			t.Stats.Stray++
			return
		}
	}
	for t.stuck(c) {
		t.giveUp(c)
	}
	if n := h.ahead(s.seq); c.x != nil && n > 0 {
		t.lose(c, d, uint32(n))
	}
	t.end(c, exchange.Reset, s.at)
}

// forget ends a connection of which no more is awaited: what waits is delivered, so
// that no message ends before what is known of it.
func (t *Table) forget(c *conn, why exchange.Outcome, at int64) {
	for t.stuck(c) {
		t.giveUp(c)
	}
	t.end(c, why, at)
	t.remove(c)
}

// end closes a connection towards the exchange layer and keeps it as closed.
func (t *Table) end(c *conn, why exchange.Outcome, at int64) {
	if c.x != nil {
		t.fillBoth(c, at)
		c.x.Close(why, at)
		c.x = nil
	}
	for d := range exchange.Dir(2) {
		h := &c.half[d]
		for len(h.late) > 0 {
			t.shift(h)
		}
		h.late = nil
		t.takeBack(c, d)
		t.unwalk(c, d)
	}
	if c.state != closed {
		t.enlist(c, closed)
		if l := &t.lists[closed]; l.n > maxClosed && l.oldest() != c {
			t.remove(l.oldest())
		}
	}
}
