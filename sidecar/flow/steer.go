package flow

import "github.com/spile-dev/spile/sidecar/exchange"

// steer tells the filter what of a direction is not needed.
func (t *Table) steer(c *conn, d exchange.Dir) {
	const (
		worth  = 8 << 10  // bytes that are worth telling
		window = 16 << 20 // a packet in so many bytes shows that there is traffic
	)
	if t.config.Skipper == nil {
		return
	}
	h := &c.half[d]
	n := c.x.Skippable(d)
	if !h.known || n < worth {
		t.takeBack(c, d)
		return
	}
	if h.skipping && before(h.next, h.skipTo) {
		return
	}
	span := uint32(min(n, window))
	key := c.direction(d)
	if t.config.Skipper.Skip(&key, h.next, span) {
		h.skipping, h.skipTo = true, h.next+span
	}
}

// takeBack has the filter capture a direction again.
func (t *Table) takeBack(c *conn, d exchange.Dir) bool {
	h := &c.half[d]
	if !h.skipping {
		return false
	}
	key := c.direction(d)
	t.config.Skipper.Forget(&key)
	h.skipping = false
	return true
}

func (t *Table) takeBackSkips(c *conn) bool {
	a, b := t.takeBack(c, 0), t.takeBack(c, 1)
	return a || b
}
