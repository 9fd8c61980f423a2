package exchange

import (
	"math"
	"net/netip"
)

// Segment says where bytes come from.
type Segment struct {
	At      int64  // when they were captured, nanoseconds since the Unix epoch
	Seq     uint32 // sequence number of the first of them
	Ack     uint32 // acknowledgement number of the segment
	Out     bool   // the watched namespace sent them
	Aligned bool   // the first of them is the first of a TCP segment
}

// Conn is one TCP connection. It takes the bytes of both directions in order,
// and in an order in which neither direction runs ahead of what the other has
// acknowledged.
type Conn struct {
	e       *Engine
	ends    [2]netip.AddrPort // of the sender of direction 0, and of 1
	kind    Kind
	sides   [2]side
	pending []*pending // in the order of the requests
	upload  *pending   // whose content the client is sending
	count   uint32     // exchanges so far

	heldBytes int64 // its part of Stats.HeldBytes

	h2        *h2  // once the kind is HTTP/2
	opened    bool // opener is known
	opener    Dir
	name      string // of the server, by TLS
	client    Dir    // of requests, once the kind is HTTP/1 or HTTP/2
	role      Role   // of the client direction
	pipelines bool   // the client does not wait for responses
	lost      bool   // no message boundary is known
	unsure    bool   // the first request since then has no response yet
	any       bool   // data has been seen, or is missing
	lastDir   Dir    // of the last data
	gapped    bool   // no data has been seen since the last gap
	interim   bool   // since it has that direction, it may have been an interim response (1xx) only
	tries     int    // segments without a boundary while lost
	ahead     ahead  // of a response that was due when a gap in the client's direction began
}

// side is one direction of a connection.
type side struct {
	mode    mode
	seen    bool   // a packet of this direction was captured
	ended   bool   // its last byte was seen
	next    uint32 // sequence number of the byte to come
	body    body
	held    []byte // of a head that is not complete, or too short to sniff
	start   Segment
	started bool // start is that of the message in held
}

type mode uint8

const (
	atStart mode = iota // of a message
	inHead
	inBody
)

// NewConn returns a connection whose direction d is sent by ends[d]. If its
// handshake was not seen, fromStart is false: the bytes may start anywhere.
func (e *Engine) NewConn(ends [2]netip.AddrPort, fromStart bool) *Conn {
	e.Stats.Kinds[KindUndecided]++
	return &Conn{e: e, ends: ends, lost: !fromStart}
}

// Kind returns what the connection turned out to be.
func (c *Conn) Kind() Kind { return c.kind }

// Saw tells that a packet of the direction was captured, with or without data.
func (c *Conn) Saw(d Dir) { c.sides[d].seen = true }

func (c *Conn) setKind(k Kind) {
	c.e.Stats.Kinds[c.kind]--
	c.e.Stats.Kinds[k]++
	c.kind = k
}

// Skippable returns how many of the bytes to come in a direction are not needed:
// they may be passed over by Skip. math.MaxInt64 means all.
func (c *Conn) Skippable(d Dir) int64 {
	switch {
	case c.kind.ignored():
		return math.MaxInt64
	case c.h2 != nil:
		return c.h2.skippable(d)
	case c.lost || c.sides[d].mode != inBody || d == c.client && c.upload != nil && c.upload.unsent:
		return 0
	}
	return c.sides[d].body.skippable()
}

// Lost reports that no message boundary is known.
func (c *Conn) Lost() bool { return c.lost }

// Skip passes over n bytes, at most Skippable.
func (c *Conn) Skip(d Dir, n int64) {
	c.sides[d].next += uint32(n)
	switch {
	case c.kind.ignored():
	case c.h2 != nil:
		c.h2.pass(d, 0, n)
	default:
		c.sides[d].body.skip(n)
	}
}

// Pass takes the next n bytes of a direction, of a segment that was captured
// without them. It reports whether they are not needed; if they are, nothing
// changes, and they are a Gap.
func (c *Conn) Pass(d Dir, at int64, n int64) bool {
	side := &c.sides[d]
	switch {
	case c.kind.ignored():
	case c.h2 != nil:
		if !c.h2.pass(d, at, n) {
			return false
		}
	case c.lost || side.mode != inBody || d == c.client && c.upload != nil && c.upload.unsent || !side.body.pass(n):
		return false
	case side.body.framing == byLength && side.body.left == 0:
		c.endBody(d, at)
	case side.body.framing == adrift && d != c.client:
		c.pending[0].x.End = at
	}
	side.next += uint32(n)
	return true
}

// Data takes the next bytes of a direction. They are not kept.
func (c *Conn) Data(d Dir, s Segment, b []byte) {
	if len(b) == 0 || c.kind.ignored() {
		return
	}
	if c.ahead.due && d != c.client {
		c.pipelines = c.pipelines || c.ahead.of(s)
		c.ahead.due = false
	}
	if c.lost && !c.resync(d, s, b) {
		c.countLost(d, s, b)
		c.note(d, s, b)
		return
	}
	switch {
	case c.h2 != nil:
		c.h2.data(d, s, b)
	case c.kind == KindUndecided:
		c.decide(d, s, b)
	default:
		c.feed(d, s, b)
	}
	c.note(d, s, b)
}

// decide waits for enough bytes to tell what the connection is. A server that
// speaks first speaks no HTTP.
func (c *Conn) decide(d Dir, s Segment, b []byte) {
	if isTLS(c.sides[d.Opposite()].held) {
		c.ignore(KindTLS)
		return
	}
	side := &c.sides[d]
	before := len(side.held)
	if before == 0 {
		n := leadingLines(b)
		if b = b[n:]; len(b) == 0 {
			return
		}
		s.Seq += uint32(n)
		side.start = s
	}
	room := min(len(b), c.e.limits.Head-before)
	held := b[:room]
	if before > 0 {
		if held = c.hold(side, b[:room]); held == nil {
			return
		}
	}
	switch g, kind := sniff(held); g {
	case guessRequest:
		c.becomeHTTP(d, side.start)
		if before > 0 {
			c.unholdFrom(side, before)
			side.mode, side.started = inHead, true
		}
		c.feed(d, s, b)
	case guessResponse:
		c.e.Stats.Orphans++
		c.becomeHTTP(d.Opposite(), Segment{})
		c.loseBoundary(DropIncomplete)
	case guessOther:
		switch {
		case kind == KindHTTP2:
			c.becomeH2(d, s, b, before)
		case kind == KindTLS && room == len(b) && !c.tls(d, held):
			if before == 0 {
				c.hold(side, b)
			}
		default:
			c.ignore(kind)
		}
	case guessMore:
		switch {
		case room < len(b):
			c.giveUpHead(side, DropHeadTooLarge)
		case before == 0:
			c.hold(side, b)
		}
	}
}

// becomeHTTP makes the connection one of HTTP/1, of which d is the direction of
// requests: s is the first of them. Only the zero Segment stands for none, when
// a response shows it.
func (c *Conn) becomeHTTP(d Dir, s Segment) {
	c.setKind(KindHTTP1)
	c.client, c.role = d, RoleServer
	if s.Out {
		c.role = RoleClient
	}
}

// hold appends to the bytes held of a direction and returns them, or nil if
// that exceeded a bound and the connection was given up.
func (c *Conn) hold(side *side, b []byte) []byte {
	switch {
	case len(side.held)+len(b) > c.e.limits.Head:
		c.giveUpHead(side, DropHeadTooLarge)
		return nil
	case !c.takeUnproven(int64(len(b))):
		c.giveUpHead(side, DropMemory)
		return nil
	}
	side.held = append(side.held, b...)
	return side.held
}

// giveUpHead ends the parsing of a connection whose current head cannot be held.
func (c *Conn) giveUpHead(side *side, why Drop) {
	if side == &c.sides[c.client] && c.kind == KindHTTP1 {
		c.e.dropUnparsed(why)
		side.mode = atStart
	}
	c.dropPending(why)
	c.ignore(KindGivenUp)
}

// unholdFrom holds no more than the first n bytes of what is held of a direction.
func (c *Conn) unholdFrom(side *side, n int) {
	const keep = 1 << 10
	c.give(int64(len(side.held) - n))
	if side.held = side.held[:n]; n == 0 && cap(side.held) > keep {
		side.held = nil
	}
}

func (c *Conn) release(side *side) {
	c.unholdFrom(side, 0)
	side.held = nil
	side.started = false
}

// tls looks at the start of TLS in a direction. It reports whether more of it is
// of no use.
func (c *Conn) tls(d Dir, b []byte) (done bool) {
	const maxHello = 16 << 10
	if server := b[5] == 2; !c.opened {
		if c.OpenedBy(d); server {
			c.OpenedBy(d.Opposite())
		}
	}
	c.name, done = serverName(b)
	return done || len(b) > maxHello
}

// endHello ignores a connection whose ClientHello will not be seen whole.
func (c *Conn) endHello() bool {
	if c.kind != KindUndecided || !isTLS(c.sides[0].held) && !isTLS(c.sides[1].held) {
		return false
	}
	c.ignore(KindTLS)
	return true
}

// ignore ends the parsing of the connection.
func (c *Conn) ignore(k Kind) {
	c.dropPending(DropGivenUp)
	c.dropHead(DropGivenUp)
	c.e.Stats.Unseen.add(Unseen{k, c.server(), c.name})
	c.name = ""
	c.setKind(k)
	c.h2 = nil
	c.release(&c.sides[0])
	c.release(&c.sides[1])
}

// dropHead counts the request whose head is not complete, if there is one.
func (c *Conn) dropHead(why Drop) {
	for d := range c.sides {
		if s := &c.sides[d]; c.kind == KindUndecided && knownMethod(s.held) {
			c.becomeHTTP(Dir(d), s.start)
			s.mode = inHead
		}
	}
	if s := &c.sides[c.client]; c.kind == KindHTTP1 && s.mode == inHead {
		s.mode = atStart
		c.e.dropUnparsed(why)
	}
}

// End tells that a direction has ended, with FIN.
func (c *Conn) End(d Dir, at int64) {
	side := &c.sides[d]
	if side.ended {
		return
	}
	side.ended = true
	if c.h2 != nil && d != c.client {
		c.h2.finish(Truncated, at)
	}
	if c.kind != KindHTTP1 || c.lost || d == c.client {
		return
	}
	if side.mode == inBody && side.body.framing == untilClose {
		c.pending[0].x.End = at
		c.endResponse()
	}
	c.Settle()
	c.dropAdrift()
	c.finish(Truncated, at)
}

// Close tells that the connection is over, or that it is not watched any more.
// why is the Outcome of an exchange in progress: Truncated after both directions
// have ended, Reset, Evicted or Unfinished. The Conn must not be used afterwards.
func (c *Conn) Close(why Outcome, at int64) {
	c.endHello()
	if c.kind == KindUndecided {
		c.dropHead(DropIncomplete)
	}
	if c.kind == KindHTTP1 && !c.lost {
		c.dropHead(DropIncomplete)
		c.Settle()
		c.dropAdrift()
		c.finish(why, at)
	}
	if c.h2 != nil {
		c.h2.finish(why, at)
		c.h2.end(DropIncomplete)
	}
	c.release(&c.sides[0])
	c.release(&c.sides[1])
}

// hand counts an exchange, hands it over and forgets it.
func (c *Conn) hand(p *pending, o Outcome) {
	x := &p.x
	x.Peers = Peers{Client: c.ends[c.client], Server: c.ends[c.client.Opposite()]}
	x.Role = c.role
	x.Outcome = o
	c.e.Stats.Outcomes[o]++
	c.e.emit(x)
	c.recycle(p)
}
