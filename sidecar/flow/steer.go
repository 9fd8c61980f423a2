package flow

import "github.com/spile-dev/spile/sidecar/exchange"

// steer tells the filter what of a direction is not needed.
func (t *Table) steer(c *conn, d exchange.Dir) {
	const (
		worth  = 8 << 10  // bytes that are worth telling
		window = 16 << 20 // a packet in so many bytes shows that there is traffic
	)
	if t.config.Skipper == nil || t.walks(c, d) {
		return
	}
	h := &c.half[d]
	n, brief := c.x.Skippable(d), c.brief(d)
	if !h.known || n < worth {
		n = 0
	}
	switch {
	case n == 0 && !brief:
		t.takeBack(c, d)
		return
	case brief != h.brief:
	case n == 0 && !h.skipping, n > 0 && h.skipping && before(h.next, h.skipTo):
		return
	}
	span := uint32(min(n, window))
	if !t.config.Skipper.Skip(t.direction(c, d), h.next, span, brief) {
		return
	}
	h.skipping, h.skipTo = n > 0, h.next+span
	if brief && !h.brief {
		h.briefAt = c.last
	}
	h.brief = brief
}

// brief reports whether of large packets of a direction the start and the end are
// enough. So it is once bytes of content in chunks are missing, and remains for a
// while: what comes next is likely to be the same, faster than it can be told of. Then
// it shows whether content can be captured whole again, and its size be known.
func (c *conn) brief(d exchange.Dir) bool {
	const lasting = 10 * second
	h := &c.half[d]
	return c.x.Adrift(d) || h.brief && c.last-h.briefAt < lasting
}

// walks tells the filter where a direction's next frame is, if it is of HTTP/2, and
// reports whether the filter goes on by itself.
func (t *Table) walks(c *conn, d exchange.Dir) bool {
	h := &c.half[d]
	if t.config.Walker == nil || !h.known {
		return false
	}
	f, after, span, header := c.x.NextFrame(d)
	switch f {
	case exchange.NoFrames:
		t.unwalk(c, d)
		return false
	case exchange.LostFrames:
		// The filter would go on leaving out what a boundary could be found by.
		if !h.unwalked {
			h.walking = true
			t.unwalk(c, d)
			h.unwalked = true
		}
		return true
	case exchange.KnownFrames:
		t.takeBack(c, d)
		h.unwalked = false
		h.walking = t.config.Walker.Walk(t.direction(c, d), h.next+after, span, header)
	}
	return h.walking
}

func (t *Table) unwalk(c *conn, d exchange.Dir) {
	if h := &c.half[d]; h.walking {
		t.config.Walker.Unwalk(t.direction(c, d))
		h.walking = false
	}
}

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
	seq, b, ok := t.config.Walker.Piece(t.direction(c, d), next, end)
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

// takeBack has the filter capture a direction again. It reports whether the filter
// was leaving out packets of it.
func (t *Table) takeBack(c *conn, d exchange.Dir) bool {
	h := &c.half[d]
	skipping := h.skipping
	if skipping || h.brief {
		t.config.Skipper.Forget(t.direction(c, d))
		h.skipping, h.brief = false, false
	}
	return skipping
}

func (t *Table) takeBackSkips(c *conn) bool {
	a, b := t.takeBack(c, 0), t.takeBack(c, 1)
	return a || b
}
