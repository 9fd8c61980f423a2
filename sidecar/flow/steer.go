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
	if !t.config.Skipper.Skip(&c.dirs[d], h.next, span, brief) {
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
	const often = 4 << 10 // bytes
	h := &c.half[d]
	switch {
	case t.config.Walker == nil || !h.known:
		return false
	case h.walking && h.next-h.walkedAt < often && c.x.HasFrames(d):
		return true // the filter goes on, or is told soon that it has lost its way
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
		h.unwalked, h.walkedAt = false, h.next
		h.walking = t.config.Walker.Walk(&c.dirs[d], h.next+after, span, header)
	}
	return h.walking
}

func (t *Table) unwalk(c *conn, d exchange.Dir) {
	if h := &c.half[d]; h.walking {
		t.config.Walker.Unwalk(&c.dirs[d])
		h.walking = false
	}
}

// disown has the filter walk nothing of a connection without frames: it may have taken
// content for the start of HTTP/2.
func (t *Table) disown(c *conn) {
	if t.config.Walker != nil {
		t.config.Walker.Unwalk(&c.dirs[0])
		t.config.Walker.Unwalk(&c.dirs[1])
	}
}

// takeBack has the filter capture a direction again. It reports whether the filter
// was leaving out packets of it.
func (t *Table) takeBack(c *conn, d exchange.Dir) bool {
	h := &c.half[d]
	skipping := h.skipping
	if skipping || h.brief {
		t.config.Skipper.Forget(&c.dirs[d])
		h.skipping, h.brief = false, false
	}
	return skipping
}

func (t *Table) takeBackSkips(c *conn) bool {
	a, b := t.takeBack(c, 0), t.takeBack(c, 1)
	return a || b
}
