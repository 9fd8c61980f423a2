package exchange

// Bridge takes the next n bytes of a direction, which are missing though they
// were sent, as far as it is known what they are: the rest of a body of known
// length. It returns how many that is.
func (c *Conn) Bridge(d Dir, n int64) int64 {
	side := &c.sides[d]
	if c.kind != KindHTTP1 || c.lost || side.mode != inBody || side.body.framing != byLength ||
		side.body.left > n || d == c.client && c.upload != nil && c.upload.unsent {
		return 0
	}
	n = side.body.left
	side.next += uint32(n)
	side.body.skip(n)
	at := int64(0) // they were not seen
	if len(c.pending) > 0 {
		at = c.pending[0].x.End
	}
	c.endBody(d, at)
	return n
}

// Gap tells that the next n bytes of a direction are missing though they were
// needed. Every exchange in progress is given up, and a boundary is awaited.
func (c *Conn) Gap(d Dir, n int64) {
	c.sides[d].next += uint32(n)
	if c.kind.ignored() || c.endHello() {
		return
	}
	c.e.Stats.Gaps++
	if c.h2 != nil {
		c.h2.gap(d)
		return
	}
	if c.drift(d) {
		return
	}
	if c.ahead.due = n > 0 && d == c.client && c.waitsForResponse(); c.ahead.due {
		c.ahead.response, c.ahead.gap = c.sides[d.Opposite()].next, c.sides[d].next
		if c.lastDir == d { // nothing of it yet
			c.ahead.response = c.pending[0].x.Wire.RequestAck
		}
	}
	c.dropPending(DropGap)
	c.loseBoundary(DropGap)
	if !c.any || c.lastDir != d {
		c.any, c.lastDir, c.interim = true, d, true
	}
	c.gapped = true
}

// ahead is what shows that a client did not wait: it sent the bytes of a gap while a
// response was due, of which the next byte was to be response.
type ahead struct {
	due           bool
	response, gap uint32 // sequence numbers; gap is that after it
}

// of reports whether that response, going on with s, was sent to a client that had
// sent the bytes of the gap.
func (a *ahead) of(s Segment) bool {
	return s.Seq == a.response && int32(s.Ack-a.gap) >= 0
}

// waitsForResponse reports whether a client that does not pipeline has nothing to send.
func (c *Conn) waitsForResponse() bool {
	return len(c.pending) == 1 && c.pending[0].requestDone && !c.pending[0].responseDone && !c.adrift()
}

// loseBoundary makes the connection wait for a certain boundary.
func (c *Conn) loseBoundary(why Drop) {
	c.dropHead(why)
	c.lost, c.unsure, c.tries = true, false, 0
	for i := range c.sides {
		c.release(&c.sides[i])
		c.sides[i].mode = atStart
		c.sides[i].body = body{}
	}
}

// resync reports whether a request certainly starts with b: it fills the start
// of a segment, the bytes before it on the connection were a final response, its
// sender had received all of that and is one that waits for responses. On a
// connection of which nothing is known to be before, its looks must do.
func (c *Conn) resync(d Dir, s Segment, b []byte) bool {
	const maxTries = 4096
	if c.tries++; c.tries > maxTries {
		c.ignore(KindGivenUp)
		return false
	}
	if c.kind == KindUndecided && s.Aligned && c.resyncH2(d, s, b) {
		return true
	}
	if !s.Aligned || c.pipelines || c.count > 0 && d != c.client || requestLine(b) != yes || !knownMethod(b) {
		return false // without a known method it may be the end of one
	}
	if c.any && (c.lastDir == d || c.interim || s.Ack != c.sides[d.Opposite()].next) {
		return false
	}
	if c.any {
		c.e.Stats.Resyncs++
	}
	c.lost, c.unsure = false, true
	if c.count == 0 {
		c.becomeHTTP(d, s)
	}
	return true
}

// countLost counts what starts in a segment while no boundary is known, on the
// connection or of content that is adrift: a request that becomes no exchange, or a
// response to one that was not seen.
func (c *Conn) countLost(d Dir, s Segment, b []byte) {
	switch {
	case !s.Aligned || c.kind != KindUndecided && c.kind != KindHTTP1:
	case statusLine(b) == yes && (c.count == 0 || d != c.client):
		c.e.Stats.Orphans++
		if c.kind == KindUndecided {
			c.becomeHTTP(d.Opposite(), Segment{})
		}
	case requestLine(b) != no && knownMethod(b) && (c.count == 0 || d == c.client):
		if c.kind == KindUndecided {
			c.becomeHTTP(d, s)
		}
		// One request after another, or content that looks like one: in either case
		// the next response may be to what was missed.
		c.pipelines = c.pipelines || (c.gapped || !c.lost) && c.lastDir == d
		c.e.dropUnparsed(DropGap)
	}
}

// confirm reports that the request with which a boundary was found may be taken
// for one, though b follows. More from its sender before the response means that
// it was content, of an upload whose start was missed or whose response came
// early, or that responses to others are due. Where no server is seen, more
// requests may follow.
func (c *Conn) confirm(s Segment, b []byte) bool {
	if !c.unsure || len(c.pending) == 0 || !c.sides[c.client.Opposite()].seen && s.Aligned && requestLine(b) == yes {
		return true
	}
	c.pipelines = c.pipelines || s.Aligned && requestLine(b) == yes && c.pending[0].requestDone && len(c.pending) == 1
	c.loseAll()
	return false
}

// loseAll gives up the exchanges in progress and waits for a boundary.
func (c *Conn) loseAll() {
	c.dropPending(DropGap)
	c.loseBoundary(DropGap)
}

// answers reports whether the first response since a boundary was found, which
// starts with s, is one to p: its server had received that request and no more.
func (c *Conn) answers(p *pending, s Segment) bool {
	client := &c.sides[c.client]
	sent := p.requestDone || client.body.framing == adrift
	return !c.unsure || p == c.pending[len(c.pending)-1] && sent && s.Ack == client.next
}

// note remembers of the last bytes what resync asks for.
func (c *Conn) note(d Dir, s Segment, b []byte) {
	const beforeStatus = len("HTTP/1.1 ")
	if status := statusLine(b); status == yes || !c.any || c.lastDir != d {
		c.interim = status == maybe || status == yes && (len(b) <= beforeStatus || b[beforeStatus] == '1')
	}
	c.any, c.lastDir, c.gapped = true, d, false
	c.sides[d].next = s.Seq + uint32(len(b))
}
