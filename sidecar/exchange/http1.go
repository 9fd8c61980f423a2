package exchange

import "bytes"

// feed takes bytes of an HTTP/1 connection, up to where it becomes another.
func (c *Conn) feed(d Dir, s Segment, b []byte) {
	for len(b) > 0 && c.kind == KindHTTP1 && !c.lost {
		var n int
		if c.sides[d].mode == inBody {
			n = c.feedBody(d, s, b)
		} else {
			n = c.feedHead(d, s, b)
		}
		b = b[n:]
		s.Seq += uint32(n)
		s.Aligned = false
	}
	if c.h2 != nil {
		c.h2.data(d, s, b)
	}
}

// feedHead reads a message head, which may come in any number of pieces, and
// returns how many bytes of b belong to it.
func (c *Conn) feedHead(d Dir, s Segment, b []byte) int {
	side := &c.sides[d]
	if side.mode == atStart && d == c.client {
		// Empty lines before a request are no part of it (RFC 9112, section 2.2).
		if n := leadingLines(b); n > 0 {
			return n
		}
		if !c.confirm(s, b) || !c.endDrift(s, b) {
			c.countLost(d, s, b)
			return len(b)
		}
	}
	if side.mode = inHead; !side.started {
		side.start, side.started = s, true
	}
	before := len(side.held)
	if before == 0 {
		if n := headEnd(b, 0); n >= 0 {
			c.takeHead(d, s, b[:n])
			return n
		}
	}
	// A packet may hold the end of this head and more than a head may have.
	room := min(len(b), c.e.limits.Head-before)
	held := c.hold(side, b[:room])
	if held == nil {
		return len(b)
	}
	n := headEnd(held, max(before-2, 0))
	switch {
	case n >= 0:
		c.unholdFrom(side, 0) // whose memory keeps its content until it is appended to
		c.takeHead(d, s, held[:n])
		return n - before
	case startsMessage(held, before, d == c.client) == no && c.unsure && d != c.client:
		c.loseAll() // what was taken for a request was none
	case startsMessage(held, before, d == c.client) == no:
		c.notHTTP()
	case room < len(b):
		c.giveUpHead(side, DropHeadTooLarge)
	}
	return len(b)
}

// startsMessage looks at the start of an incomplete head, of which the first
// before bytes have been looked at.
func startsMessage(b []byte, before int, request bool) answer {
	const early = 256 // what is not HTTP shows in the first bytes, or with the line
	switch {
	case before >= early && bytes.IndexByte(b[before:], '\n') < 0:
		return maybe
	case request:
		return requestLine(b)
	}
	return statusLine(b)
}

// notHTTP gives up a connection on which something else follows.
func (c *Conn) notHTTP() {
	c.dropHead(DropMalformed)
	c.dropPending(DropMalformed)
	if c.count == 0 {
		c.ignore(KindOther)
	} else {
		c.ignore(KindGivenUp)
	}
}

func (c *Conn) takeHead(d Dir, s Segment, b []byte) {
	if d == c.client {
		c.takeRequest(s, b)
		if c.sides[d.Opposite()].ended && c.kind == KindHTTP1 && !c.lost {
			c.finish(Truncated, s.At) // whichever of this request and the server's FIN was captured first
		}
	} else {
		c.takeResponse(s, b)
	}
}

func (c *Conn) takeRequest(s Segment, b []byte) {
	side := &c.sides[c.client]
	if len(b) > c.e.limits.Head {
		c.giveUpHead(side, DropHeadTooLarge)
		return
	}
	if len(c.pending) >= c.e.limits.Pipeline && !c.sides[c.client.Opposite()].seen {
		c.finish(OneSided, s.At)
	}
	if len(c.pending) >= c.e.limits.Pipeline {
		c.giveUpHead(side, DropPipeline)
		return
	}
	p := c.newPending()
	x := &p.x
	h, ok := parseRequest(keep(&p.request, b), &x.Request, c.e.limits.Fields)
	if !ok {
		c.drop(p, DropMalformed)
		side.mode = atStart
		c.notHTTP()
		return
	}
	if !c.charge(p, len(b), len(x.Request.Fields)) {
		c.recycle(p)
		c.e.Stats.Seen--
		c.giveUpHead(side, DropMemory)
		return
	}
	x.Protocol = h.protocol
	x.Start, x.End = side.start.At, s.At
	x.Wire = Wire{RequestSeq: side.start.Seq, RequestAck: side.start.Ack, Index: c.count}
	c.count++
	c.pending = append(c.pending, p)
	c.pipelines = c.pipelines || len(c.pending) > 1 && !c.unsure
	c.upload = p
	side.started, side.mode = false, inBody
	side.body = h.requestBody()
	if p.ambiguous = h.ambiguous; p.ambiguous {
		side.body = body{framing: untilClose} // where it ends is not known
		return
	}
	if side.body.empty() {
		c.endRequest()
		return
	}
	expect, _ := x.Request.Fields.Get("Expect")
	p.unsent = len(expect) == len("100-continue") && equalFold(expect, "100-continue")
}

func (c *Conn) takeResponse(s Segment, b []byte) {
	side := &c.sides[c.client.Opposite()]
	first := side.start
	side.started = false
	if len(c.pending) == 0 {
		// Nothing says what it answers, so its framing is not known either.
		c.e.Stats.Orphans++
		c.loseBoundary(DropIncomplete)
		return
	}
	p := c.pending[0]
	if c.unsure && p.responseDone && len(c.pending) == 2 {
		p = c.pending[1] // the first is emitted if this turns out to be answered
	}
	x := &p.x
	if !p.mayBeAnsweredBy(first) {
		c.loseAll()
		return
	}
	if p.responseDone {
		c.emitFirst(Complete)
		c.e.Stats.Orphans++
		c.ignore(KindGivenUp)
		return
	}
	x.Response.Fields = x.Response.Fields[:0]
	h, ok := parseResponse(keep(&p.response, b), &x.Response, c.e.limits.Fields)
	if !ok {
		x.Response.Status = 0
		c.notHTTP()
		return
	}
	if len(b) > c.e.limits.Head {
		c.giveUpHead(side, DropHeadTooLarge)
		return
	}
	x.End = s.At
	if x.Response.Status < 200 && x.Response.Status != 101 {
		c.passInterim(p, h)
		return
	}
	if !c.answers(p, first) {
		c.loseAll()
		return
	}
	if p != c.pending[0] {
		c.emitFirst(Complete)
	}
	if !c.charge(p, len(b), len(x.Response.Fields)) {
		c.giveUpHead(side, DropMemory)
		return
	}
	x.FirstByte = first.At
	x.Wire.ResponseSeq = first.Seq
	c.beginResponse(p, h)
}

// beginResponse goes on after the head of a final response.
func (c *Conn) beginResponse(p *pending, h head) {
	side, x := &c.sides[c.client.Opposite()], &p.x
	c.unsure = false
	side.mode = inBody
	side.body = h.responseBody(x.Request.Method, x.Response.Status)
	switch {
	case x.Response.Status == 101 && c.upgradesToH2(p):
		c.upgradeToH2(p)
	case x.Response.Status == 101:
		c.switchProtocol(KindUpgraded)
	case x.Request.Method == "CONNECT" && x.Response.Status < 300:
		c.switchProtocol(KindTunnel)
	case h.ambiguous:
		c.giveUpAmbiguous()
	case side.body.empty():
		c.endResponse()
	}
}

// passInterim passes over an interim response, of which nothing is reported.
func (c *Conn) passInterim(p *pending, h head) {
	r := &p.x.Response
	p.unsent = p.unsent && r.Status != 100
	r.Status, r.Fields = 0, r.Fields[:0]
	c.sides[c.client.Opposite()].mode = atStart
	if h.ambiguous {
		c.giveUpAmbiguous()
	}
}

// mayBeAnsweredBy reports whether a response that starts with s can be one to p:
// the server had received the start of the request, the client nothing of the
// response when it sent that. Otherwise what came before was not captured.
func (p *pending) mayBeAnsweredBy(s Segment) bool {
	before := func(a, b uint32) bool { return int32(a-b) < 0 } // RFC 9293, section 3.4
	asked := p.x.Wire.RequestAck
	return before(p.x.Wire.RequestSeq, s.Ack) && (asked == 0 || !before(s.Seq, asked))
}

// switchProtocol emits the exchange that ended HTTP on the connection.
func (c *Conn) switchProtocol(k Kind) {
	c.emitFirst(Complete)
	c.ignore(k)
}

// giveUpAmbiguous emits what is certain of the first exchange; what follows on
// the connection is not.
func (c *Conn) giveUpAmbiguous() {
	c.emitFirst(Ambiguous)
	c.ignore(KindAmbiguous)
}

// feedBody reads content and returns how many bytes of b belong to it.
func (c *Conn) feedBody(d Dir, s Segment, b []byte) int {
	side := &c.sides[d]
	if d == c.client && c.upload != nil && c.upload.unsent {
		if c.upload.responseDone { // a client that was refused may go on with its next request
			c.giveUpAmbiguous()
			return len(b)
		}
		c.upload.unsent = false
	}
	if d == c.client && side.body.framing == adrift { // it may have ended, and requests may follow
		c.countLost(d, s, b)
	}
	n, state := side.body.consume(b)
	if d == c.client {
		switch state {
		case bodyDone:
			c.endBody(d, s.At)
		case bodyBad:
			side.body = body{framing: untilClose} // where it ends is not known
			switch p := c.upload; {
			case p == nil:
			case p.responseDone:
				c.giveUpAmbiguous()
			default:
				p.ambiguous = true
			}
		}
		return n
	}
	c.pending[0].x.End = s.At
	switch state {
	case bodyDone:
		c.endBody(d, s.At)
	case bodyBad:
		c.giveUpAmbiguous()
	}
	return n
}

// endBody ends the message whose content has ended.
func (c *Conn) endBody(d Dir, at int64) {
	if d == c.client {
		c.endRequest()
		return
	}
	c.pending[0].x.End = at
	c.endResponse()
}

func (c *Conn) endRequest() {
	side := &c.sides[c.client]
	side.mode = atStart
	p := c.upload
	if p == nil { // the server closed its direction before
		return
	}
	c.upload = nil
	p.x.Request.BodySize = side.body.size
	p.requestDone = true
	if p.responseDone { // an early response: p is the only one
		c.emitFirst(Complete)
	}
}

func (c *Conn) endResponse() {
	side := &c.sides[c.client.Opposite()]
	p := c.pending[0]
	p.x.Response.BodySize = side.body.size
	side.mode = atStart
	p.responseDone = true
	switch {
	case p.ambiguous:
		c.giveUpAmbiguous()
	case p.requestDone:
		c.emitFirst(Complete)
	case c.upload == p && c.sides[c.client].body.framing == adrift:
		c.emitFirst(Complete)
		c.loseBoundary(DropGap)
	}
}

// finish emits everything in progress, with the outcome that the end of the
// connection gives it.
func (c *Conn) finish(why Outcome, at int64) {
	if c.sides[c.client.Opposite()].seen {
		c.confirm(Segment{}, nil)
	}
	for len(c.pending) > 0 {
		p := c.pending[0]
		o := why
		switch {
		case p.responseDone:
			o = Complete
		case p.ambiguous:
			o = Ambiguous
		case !c.sides[c.client.Opposite()].seen:
			o = OneSided
		case why == Truncated && p.x.FirstByte == 0 && c.sides[c.client.Opposite()].mode == atStart:
			o = NoResponse
		}
		if o != Complete && o != OneSided {
			p.x.End = max(p.x.End, at)
		}
		c.emitFirst(o)
	}
}

// emitFirst hands over the first exchange in progress and forgets it.
func (c *Conn) emitFirst(o Outcome) {
	p := c.pending[0]
	x := &p.x
	server := &c.sides[c.client.Opposite()]
	size := func(b *body) int64 {
		if o == Ambiguous { // what of it is content is not known
			return UnknownSize
		}
		return b.size
	}
	if c.upload == p {
		x.Request.BodySize = size(&c.sides[c.client].body)
	}
	if !p.responseDone {
		if server.mode == inBody {
			x.Response.BodySize = size(&server.body)
		}
		server.mode = atStart
	}
	c.pop()
	c.hand(p, o)
}
