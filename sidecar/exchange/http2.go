package exchange

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
)

// h2 is an HTTP/2 connection (RFC 9113). It follows the frames of both
// directions and keeps no DATA.
type h2 struct {
	c       *Conn
	sides   [2]h2side
	streams map[uint32]*stream
	most    int    // streams at once since the map was made
	newest  uint32 // highest stream that the client opened
}

// h2side is one direction of an HTTP/2 connection.
type h2side struct {
	preface int     // bytes of the client's preface to come
	header  [9]byte // of the frame
	have    int     // bytes of it
	frame   frame
	start   Segment // where the frame starts
	left    int     // bytes of its payload to come
	padding int     // its pad length, -1 before it is known
	payload []byte  // of a frame that is read whole, so far

	// A header block that CONTINUATION frames complete.
	block  []byte
	first  frame // the frame that it started with; its type is frameNone without
	origin Segment
	pieces int

	fields fieldDecoder
	tables int  // bytes that fields takes
	lost   bool // no frame boundary is known
	tries  int  // segments without a boundary while lost
}

// frame is a frame header (RFC 9113, section 4.1).
type frame struct {
	length int
	typ    frameType
	flags  uint8
	stream uint32
}

type frameType uint8

const (
	frameData         frameType = 0
	frameHeaders      frameType = 1
	framePriority     frameType = 2
	frameRSTStream    frameType = 3
	frameSettings     frameType = 4
	framePushPromise  frameType = 5
	framePing         frameType = 6
	frameGoAway       frameType = 7
	frameWindowUpdate frameType = 8
	frameContinuation frameType = 9
	frameNone         frameType = 0xff
)

const (
	flagEndStream  = 0x1 // DATA, HEADERS
	flagAck        = 0x1 // SETTINGS, PING
	flagEndHeaders = 0x4 // HEADERS, PUSH_PROMISE, CONTINUATION
	flagPadded     = 0x8 // DATA, HEADERS, PUSH_PROMISE
	flagPriority   = 0x20
)

// newH2 returns a connection whose client direction is c.client. The sides are at
// the start of a frame, or lost.
func newH2(c *Conn) *h2 {
	h := &h2{c: c, streams: make(map[uint32]*stream)}
	for d := range h.sides {
		h.sides[d].first.typ = frameNone
	}
	return h
}

// becomeH2 starts HTTP/2 on a connection whose client direction starts with the
// preface, of which some bytes came before b. The server may have sent its first
// frames before that (RFC 9113, section 3.4).
func (c *Conn) becomeH2(d Dir, s Segment, b []byte, before int) {
	c.becomeHTTP(d, c.sides[d].start)
	c.setKind(KindHTTP2)
	c.h2 = newH2(c)
	c.h2.sides[d].preface = len(http2Preface) - before
	server := &c.sides[d.Opposite()]
	early, start := append([]byte(nil), server.held...), server.start
	c.release(&c.sides[0])
	c.release(&c.sides[1])
	c.h2.data(d, s, b)
	if len(early) > 0 && c.h2 != nil {
		c.h2.data(d.Opposite(), start, early)
	}
}

// upgradesToH2 reports that the response to p switches to HTTP/2 (RFC 7540,
// section 3.2).
func (c *Conn) upgradesToH2(p *pending) bool {
	to, _ := p.x.Response.Fields.Get("Upgrade")
	return len(to) == len("h2c") && equalFold(to, "h2c") && p.requestDone && len(c.pending) == 1
}

// upgradeToH2 goes on as HTTP/2: the request is that of stream 1, whose response
// is still to come.
func (c *Conn) upgradeToH2(p *pending) {
	c.pop()
	c.release(&c.sides[0])
	c.release(&c.sides[1])
	c.setKind(KindHTTP2)
	c.h2 = newH2(c)
	c.h2.sides[c.client].preface = len(http2Preface)
	c.h2.newest = 1
	c.h2.streams[1] = &stream{pending: p}
	x := &p.x
	if settings, ok := x.Request.Fields.Get("HTTP2-Settings"); ok { // RFC 7540, section 3.2.1
		if payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(settings, "=")); err == nil {
			c.h2.takeSettings(c.client, payload)
		}
	}
	x.Protocol, x.Wire.StreamID = HTTP2, 1
	x.FirstByte, x.Response = 0, Response{Fields: x.Response.Fields[:0]}
}

// data takes the next bytes of a direction.
func (h *h2) data(d Dir, s Segment, b []byte) {
	side := &h.sides[d]
	if side.lost && !h.resync(side, s, b) {
		return
	}
	for len(b) > 0 && h.c.kind == KindHTTP2 && !side.lost {
		n := h.step(d, side, s, b)
		b = b[n:]
		s.Seq += uint32(n)
	}
}

// step takes what b has of the preface, of a frame header, or of a payload, and
// returns how many bytes that is.
func (h *h2) step(d Dir, side *h2side, s Segment, b []byte) int {
	switch {
	case side.preface > 0:
		n := min(side.preface, len(b))
		side.preface -= n
		return n
	case side.have < len(side.header):
		if side.have == 0 {
			side.start = s
		}
		n := copy(side.header[side.have:], b)
		side.have += n
		if side.have == len(side.header) {
			h.beginFrame(d, side, s)
		}
		return n
	}
	n := min(side.left, len(b))
	if side.frame.whole() {
		h.takeWhole(d, side, s, b[:n])
	} else {
		if side.padding < 0 {
			side.padding = int(b[0])
		}
		h.passPayload(d, side, s.At, n)
	}
	return n
}

func parseFrame(b []byte) frame {
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		typ:    frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

// whole tells that the payload of the frame is needed.
func (f frame) whole() bool {
	switch f.typ {
	case frameHeaders, frameRSTStream, frameSettings, framePushPromise, frameContinuation:
		return true
	}
	return false
}

func (f frame) has(flag uint8) bool { return f.flags&flag != 0 }

func (h *h2) beginFrame(d Dir, side *h2side, s Segment) {
	f := parseFrame(side.header[:])
	side.frame, side.left, side.padding = f, f.length, 0
	if f.typ == frameData && f.has(flagPadded) {
		side.padding = -1
	}
	continued := f.typ == frameContinuation
	switch {
	case continued != (side.first.typ != frameNone), continued && f.stream != side.first.stream:
		h.giveUp(DropMalformed) // a header block is in one piece (RFC 9113, section 4.3)
	case f.whole() && f.length+len(side.block) > h.c.e.limits.Head:
		h.giveUp(DropHeadTooLarge)
	case f.length == 0:
		h.endFrame(d, side, s.At, nil)
	}
}

// takeWhole takes bytes of a payload that is read as a whole; one that comes in
// one piece is not copied.
func (h *h2) takeWhole(d Dir, side *h2side, s Segment, b []byte) {
	side.left -= len(b)
	if len(side.payload) == 0 && side.left == 0 {
		h.endFrame(d, side, s.At, b)
		return
	}
	if !h.take(len(b)) {
		return
	}
	side.payload = append(side.payload, b...)
	if side.left == 0 {
		payload := h.untake(&side.payload)
		h.endFrame(d, side, s.At, payload)
	}
}

// take counts bytes that are kept, or gives the connection up.
func (h *h2) take(n int) bool {
	if !h.c.take(int64(n)) {
		h.giveUp(DropMemory)
		return false
	}
	return true
}

// untake returns what a buffer has, whose bytes are not kept any more.
func (h *h2) untake(buffer *[]byte) []byte {
	const keep = 1 << 10
	b := *buffer
	h.c.give(int64(len(b)))
	if *buffer = b[:0]; cap(b) > keep {
		*buffer = nil
	}
	return b
}

// passPayload passes over bytes of a payload that is not needed.
func (h *h2) passPayload(d Dir, side *h2side, at int64, n int) {
	side.left -= n
	if side.left == 0 {
		h.endFrame(d, side, at, nil)
	}
}

// endFrame acts on a frame, now that all of it has been seen.
func (h *h2) endFrame(d Dir, side *h2side, at int64, payload []byte) {
	f := side.frame
	side.have = 0
	switch f.typ {
	case frameData:
		size := f.length
		if f.has(flagPadded) {
			size -= 1 + max(side.padding, 0)
		}
		h.takeContent(d, f, at, int64(max(size, 0)))
	case frameHeaders, framePushPromise, frameContinuation:
		h.takeFragment(d, side, at, payload)
	case frameRSTStream:
		if len(payload) == 4 {
			h.takeReset(d, f.stream, binary.BigEndian.Uint32(payload), at)
		}
	case frameSettings:
		if !f.has(flagAck) {
			h.takeSettings(d, payload)
		}
	}
}

// takeSettings learns how large the table may be by which the receiver of the
// settings compresses fields (RFC 7541, section 4.2).
func (h *h2) takeSettings(d Dir, payload []byte) {
	const headerTableSize = 1
	for ; len(payload) >= 6; payload = payload[6:] {
		if binary.BigEndian.Uint16(payload) == headerTableSize {
			h.sides[d.Opposite()].fields.allow(binary.BigEndian.Uint32(payload[2:]))
		}
	}
}

// skippable is how many of the bytes to come in a direction are not needed. The
// last byte of a message is: it ends it.
func (h *h2) skippable(d Dir) int64 {
	side := &h.sides[d]
	if !side.passes() {
		return 0
	}
	if side.frame.typ == frameData && side.frame.has(flagEndStream) {
		return int64(max(side.left-1, 0))
	}
	return int64(side.left)
}

// pass passes over bytes of a segment that was captured without them. It reports
// whether they are not needed.
func (h *h2) pass(d Dir, at, n int64) bool {
	side := &h.sides[d]
	if !side.passes() || n > int64(side.left) {
		return false
	}
	h.passPayload(d, side, at, int(n))
	return true
}

// gap tells that bytes of a direction are missing: header blocks may be among
// them, so what the table of its fields holds is not known any more.
func (h *h2) gap(d Dir) {
	if d == h.c.client {
		h.dropRequest(DropGap)
	}
	h.dropAll(DropGap)
	h.lose(d)
}

// lose makes a direction wait for a certain frame boundary.
func (h *h2) lose(d Dir) {
	side := &h.sides[d]
	h.release(side)
	side.fields.forget()
	*side = h2side{lost: true, first: frame{typ: frameNone}, fields: side.fields}
}

func (h *h2) release(side *h2side) {
	h.untake(&side.payload)
	h.untake(&side.block)
	h.c.give(int64(side.tables))
	side.tables = 0
}

// giveUp ends the parsing of the connection.
func (h *h2) giveUp(why Drop) {
	h.dropAll(why)
	h.end(why)
	h.c.ignore(KindGivenUp)
}

// end frees what is held. A request whose header block is not complete is counted.
func (h *h2) end(why Drop) {
	h.dropRequest(why)
	h.release(&h.sides[0])
	h.release(&h.sides[1])
}

// dropRequest counts the request whose header block is not complete, if there is
// one.
func (h *h2) dropRequest(why Drop) {
	side := &h.sides[h.c.client]
	f := side.first
	if f.typ == frameNone && side.have == len(side.header) {
		f = side.frame
	}
	if f.typ == frameHeaders && f.stream%2 == 1 && f.stream > h.newest {
		h.newest = f.stream
		h.c.e.dropUnparsed(why)
	}
}

func (h *h2) dropAll(why Drop) {
	for _, id := range h.ids() {
		h.drop(id, why)
	}
}

// ids returns the streams in progress, in order.
func (h *h2) ids() []uint32 {
	ids := make([]uint32, 0, len(h.streams))
	for id := range h.streams {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
