package exchange

// Of content in chunks some bytes may be missing: where it ends is not known then,
// but what is known of the exchange stays true. Such a body is adrift.

// lastChunk is how content in chunks without trailers ends, behind the last of it.
const lastChunk = "\r\n0\r\n\r\n"

// tail is the last bytes of a body, as far as they are known.
type tail struct {
	bytes [len(lastChunk)]byte // the last n of them are
	n     uint8
}

func (t *tail) add(p []byte) {
	m := len(t.bytes)
	if len(p) < m {
		copy(t.bytes[:], t.bytes[len(p):])
		copy(t.bytes[m-len(p):], p)
	} else {
		copy(t.bytes[:], p[len(p)-m:])
	}
	t.n = uint8(min(int(t.n)+len(p), m))
}

func (t *tail) ends() bool { return int(t.n) == len(lastChunk) && string(t.bytes[:]) == lastChunk }

// mayEnd reports whether the bytes do not show that the content goes on.
func (t *tail) mayEnd() bool {
	n := min(int(t.n), len("\r\n\r\n"))
	return string(t.bytes[len(t.bytes)-n:]) == lastChunk[len(lastChunk)-n:]
}

// drift goes on after bytes of chunks are missing in a direction, unless it is not
// certain that the messages go together. An upload ends with its response: that is
// the next. A response ends where the next request says that it has, if the client
// is one that waits, or with lastChunk.
func (c *Conn) drift(d Dir) bool {
	side, client := &c.sides[d], &c.sides[c.client]
	if c.kind != KindHTTP1 || c.lost || side.mode != inBody {
		return false
	}
	switch framing := side.body.framing; {
	case framing != byChunks && framing != adrift:
		return false
	case d == c.client:
		// The first request since a boundary was found may be content, of an upload that
		// started before: more so if nothing came before it.
		p := c.upload
		if p == nil || p.ambiguous || p.unsent || c.adrift() || c.unsure && p.x.Wire.Index == 0 {
			return false
		}
	case len(c.pending) != 1 || !c.pending[0].requestDone || client.mode != atStart || c.pipelines:
		return false
	}
	side.body = body{framing: adrift, size: UnknownSize}
	if d == c.client && c.upload.responseDone {
		c.emitFirst(Complete)
		c.loseBoundary(DropGap)
	}
	return true
}

// Adrift reports whether bytes of the content in progress in a direction are missing,
// so that where it ends is not known.
func (c *Conn) Adrift(d Dir) bool {
	side := &c.sides[d]
	return c.kind == KindHTTP1 && !c.lost && side.mode == inBody && side.body.framing == adrift
}

// adrift reports whether where the response in progress ends is not known.
func (c *Conn) adrift() bool { return c.Adrift(c.client.Opposite()) }

// endDrift ends a response that is adrift where a request follows it. It reports
// whether b may start a request.
func (c *Conn) endDrift(s Segment, b []byte) bool {
	if !c.adrift() {
		return true
	}
	server := &c.sides[c.client.Opposite()]
	if !s.Aligned || requestLine(b) != yes || s.Ack != server.next || c.lastDir == c.client || !server.body.tail.mayEnd() {
		c.loseAll()
		return false
	}
	c.e.Stats.Resyncs++
	if c.Settle(); len(c.pending) > 0 {
		// With nothing but the request to show it, its response has to confirm it.
		c.pending[0].x.Response.BodySize = UnknownSize
		c.pending[0].responseDone, server.mode = true, atStart
		c.unsure = true
	}
	return true
}

// Settled reports whether a response that is adrift has ended if no more of it
// comes: its last bytes are those of the last chunk.
func (c *Conn) Settled() bool {
	return c.adrift() && c.sides[c.client.Opposite()].body.tail.ends()
}

// Settle ends the response that is adrift if it is Settled.
func (c *Conn) Settle() {
	if c.Settled() {
		c.endResponse()
	}
}

// dropAdrift gives up the response that is adrift.
func (c *Conn) dropAdrift() {
	if c.adrift() {
		c.loseAll()
	}
}
