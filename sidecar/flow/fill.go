package flow

import "github.com/spile-dev/spile/sidecar/exchange"

// cut passes over the n next bytes of a direction, which a segment was captured
// without. Of them there may be pieces that were captured beside it. What lies
// between these is left out rightly only if it is not needed, as always.
func (t *Table) cut(c *conn, d exchange.Dir, s exchange.Segment, n uint32) {
	h := &c.half[d]
	for end := h.next + n; h.next != end; {
		f, _, _, _ := c.x.NextFrame(d)
		if f != exchange.NoFrames && t.pass(c, d, s.At, end-h.next) { // no frame starts in it
			return
		}
		hole, piece := t.piece(c, d, end)
		if hole > 0 && !t.pass(c, d, s.At, hole) {
			if t.leftOut(c, d, s.At, end) {
				continue
			}
			if f == exchange.NoFrames {
				t.disown(c)
			}
			t.missing(c, d, hole)
			if f != exchange.NoFrames || c.x.Lost() {
				t.missing(c, d, end-h.next)
				return
			}
		}
		if len(piece) > 0 {
			s.Seq, s.Aligned = h.next, false
			c.x.Data(d, s, piece)
			h.next += uint32(len(piece))
		}
	}
}

// piece returns the next bytes of a direction that were captured beside their
// packet, which goes up to end, and how many are missing before them.
func (t *Table) piece(c *conn, d exchange.Dir, end uint32) (hole uint32, piece []byte) {
	next := c.half[d].next
	if t.config.Walker == nil {
		return end - next, nil
	}
	seq, b, ok := t.config.Walker.Piece(&c.dirs[d], next, end)
	switch {
	case !ok:
		return end - next, nil
	case before(seq, next):
		b = b[next-seq:]
	default:
		hole = seq - next
	}
	return hole, b[:min(len(b), int(end-next-hole))]
}

// pass passes over bytes that were not captured, if they are not needed.
func (t *Table) pass(c *conn, d exchange.Dir, at int64, n uint32) bool {
	if !c.x.Pass(d, at, int64(n)) {
		return false
	}
	t.Stats.Omitted += uint64(n)
	c.half[d].next += n
	return true
}

// fill takes what the filter left out of a direction before a sequence number.
func (t *Table) fill(c *conn, d exchange.Dir, at int64, to uint32) {
	h := &c.half[d]
	if len(h.late) > 0 && before(h.late[0].Seq, to) {
		to = h.late[0].Seq
	}
	for h.walking && before(h.next, to) && t.leftOut(c, d, at, to) {
		h.settle()
	}
}

// fillBoth does so with both directions, and reports whether there was anything.
func (t *Table) fillBoth(c *conn, at int64) bool {
	const all = 1<<31 - 1
	a, b := c.half[0].next, c.half[1].next
	for d := range exchange.Dir(2) {
		if c.x != nil {
			t.fill(c, d, at, c.half[d].next+all)
		}
	}
	return c.half[0].next != a || c.half[1].next != b
}

// leftOut takes the next frames of a direction, before a sequence number, if the
// filter left them out because they are like the one before.
func (t *Table) leftOut(c *conn, d exchange.Dir, at int64, to uint32) bool {
	h := &c.half[d]
	if t.config.Walker == nil {
		return false
	}
	header, next, ok := c.x.Frame(d)
	if !ok {
		return false
	}
	n := t.config.Walker.LeftOut(&c.dirs[d], h.next+uint32(next), header)
	if n == 0 || next > 0 && !t.pass(c, d, at, min(uint32(next), to-h.next)) {
		return false
	}
	k := c.x.Repeat(d, at, n, to-h.next)
	t.Stats.Omitted += uint64(k)
	h.next += k
	return true
}
