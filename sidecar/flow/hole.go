package flow

import "github.com/spile-dev/spile/sidecar/exchange"

// hole is what something waits for: bytes of a direction, from its next one up
// to a sequence number.
type hole struct {
	dir exchange.Dir
	to  uint32
}

// hole returns what the first segment, or the end, of a direction waits for.
func (t *Table) hole(c *conn, d exchange.Dir) (hole, bool) {
	h := &c.half[d]
	seq, ack := h.finSeq, h.finAck
	switch {
	case len(h.late) > 0:
		seq, ack = h.late[0].Seq, h.late[0].Ack
	case !h.fin || h.ended:
		return hole{}, false
	}
	if before(h.next, seq) && c.x.Skippable(d) < int64(seq-h.next) {
		return hole{d, seq}, true
	}
	return hole{d.Opposite(), ack}, true // deliver or endHalf saw that it is not in turn
}

// stuck reports whether anything of the connection waits.
func (t *Table) stuck(c *conn) bool {
	if c.x == nil {
		return false
	}
	_, a := t.hole(c, 0)
	_, b := t.hole(c, 1)
	return a || b
}

// giveUp declares the bytes missing that something waits for, and goes on. A
// direction that waits for its own bytes comes before one that waits for the
// other.
func (t *Table) giveUp(c *conn) {
	best, found := hole{}, false
	for d := range exchange.Dir(2) {
		if h, ok := t.hole(c, d); ok && (!found || h.dir == d) {
			best, found = h, true
		}
	}
	if !found {
		return
	}
	h := &c.half[best.dir]
	t.fill(c, best.dir, c.last, best.to)
	if n := best.to - h.next; int32(n) > 0 {
		t.missing(c, best.dir, n)
	}
	t.pump(c)
}

// watch puts a connection on the list of those with something that waits.
func (t *Table) watch(c *conn, now int64) {
	switch {
	case t.stuck(c):
		if c.since == 0 {
			c.since = now
		}
	case c.x != nil && c.x.Settled():
		c.since = 0
	default:
		c.since = 0
		return
	}
	if !c.stalled {
		c.stalled = true
		t.stalled = append(t.stalled, c)
	}
}

// expire gives up what a connection has waited for too long. It reports whether
// anything still waits.
func (t *Table) expire(c *conn, now int64) bool {
	if t.stuck(c) {
		t.pump(c) // the filter may have left out since what is waited for
	}
	for t.stuck(c) {
		timeout := holeTimeout
		if t.acknowledged(c) {
			timeout = holeTimeoutAcked
		}
		if now-c.since < timeout+t.config.Lag {
			return true
		}
		t.giveUp(c)
	}
	c.since = 0
	if c.x != nil && c.x.Settled() {
		if now-c.last < settleTimeout+t.config.Lag {
			return true
		}
		c.x.Settle()
		t.pump(c)
	}
	return false
}

// acknowledged reports whether the receiver has what something waits for, so
// that it will not be sent again: it was lost on the way to us.
func (t *Table) acknowledged(c *conn) bool {
	for d := range exchange.Dir(2) {
		h, ok := t.hole(c, d)
		if !ok {
			continue
		}
		if other := &c.half[h.dir.Opposite()]; other.acks && !before(other.acked, h.to) {
			return true
		}
	}
	return false
}
