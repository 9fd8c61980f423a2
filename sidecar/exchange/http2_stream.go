package exchange

import "strings"

// stream is an exchange in progress on an HTTP/2 connection.
type stream struct {
	*pending
	unknown bool // a field of it could not be decoded
	// doubt tells that bytes of the response may have been missed.
	doubt bool
}

// streamCost is what a stream takes besides its exchange, in bytes.
const streamCost = 64

// takeFragment takes a piece of a header block (RFC 9113, sections 6.2, 6.6 and
// 6.10), and the block with its last one.
func (h *h2) takeFragment(d Dir, side *h2side, at int64, payload []byte) {
	const maxPieces = 128
	f := side.frame
	if f.typ != frameContinuation {
		side.first, side.origin, side.pieces = f, side.start, 0
		var ok bool
		if payload, ok = f.fragment(payload); !ok {
			h.giveUp(DropMalformed)
			return
		}
	}
	if side.pieces++; side.pieces > maxPieces {
		h.giveUp(DropHeadTooLarge)
		return
	}
	if f.has(flagEndHeaders) && len(side.block) == 0 {
		h.takeBlock(d, side, at, payload)
		return
	}
	if !h.take(len(payload)) {
		return
	}
	side.block = append(side.block, payload...)
	if f.has(flagEndHeaders) {
		h.takeBlock(d, side, at, h.untake(&side.block))
	}
}

// fragment returns the part of a HEADERS or PUSH_PROMISE payload that is of the
// header block, preceded for PUSH_PROMISE by the promised stream.
func (f frame) fragment(payload []byte) ([]byte, bool) {
	padding := 0
	if f.has(flagPadded) {
		if len(payload) < 1 {
			return nil, false
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if f.typ == frameHeaders && f.has(flagPriority) {
		if len(payload) < 5 {
			return nil, false
		}
		payload = payload[5:]
	}
	if padding > len(payload) {
		return nil, false
	}
	return payload[:len(payload)-padding], true
}

// takeBlock takes a whole header block.
func (h *h2) takeBlock(d Dir, side *h2side, at int64, block []byte) {
	f, origin := side.first, side.origin
	promised := f.typ == framePushPromise
	if promised {
		// The server promises a response to a request that it makes itself. What
		// follows is the promised stream's; here only the table matters.
		if len(block) < 4 {
			h.giveUp(DropMalformed)
			return
		}
		block = block[4:]
	}
	cost := side.fields.costWith(block)
	if cost > side.tables && !h.take(cost-side.tables) {
		return
	}
	h.c.give(int64(max(side.tables-cost, 0)))
	side.tables = cost
	side.first.typ = frameNone
	id := f.stream
	switch st := h.streams[id]; {
	case d == h.c.client && st == nil && id%2 == 1 && id > h.newest:
		h.takeRequestBlock(id, f, origin, at, block)
	case d != h.c.client && st != nil && !promised:
		h.takeResponseBlock(st, id, f, origin, at, block)
	default: // trailers of a request, or of a stream that is over or was not seen
		if !h.decode(d, id, block, func(string, string) {}).ok {
			return
		}
		if st != nil && d == h.c.client && f.has(flagEndStream) {
			h.endRequest(id, st)
		}
	}
}

// decode decodes a header block of a stream, and hands its fields to emit. If that
// cannot be, the stream is dropped; if the whole connection was seen, the sender is
// at fault, and it is given up.
func (h *h2) decode(d Dir, id uint32, block []byte, emit func(name, value string)) decodedBlock {
	side := &h.sides[d]
	b := side.fields.decode(block, 2*h.c.e.limits.Head, emit)
	switch {
	case b.ok && b.large:
		h.giveUp(DropHeadTooLarge)
		b.ok = false
	case b.ok:
	case side.fields.partial:
		h.drop(id, DropGap)
	default:
		h.giveUp(DropMalformed)
	}
	return b
}

func (h *h2) takeRequestBlock(id uint32, f frame, origin Segment, at int64, block []byte) {
	c := h.c
	h.newest = id
	p := c.newPending()
	x := &p.x
	x.Protocol = HTTP2
	st := &stream{pending: p, doubt: h.sides[c.client.Opposite()].lost}
	h.streams[id] = st
	h.most = max(h.most, len(h.streams))
	size := streamCost
	b := h.decode(c.client, id, block, func(name, value string) {
		size += len(name) + len(value)
		x.Request.set(name, value, c.e.limits.Fields)
	})
	switch st.unknown = b.unknown; {
	case !b.ok:
		return
	case !b.pseudo && h.sides[c.client].fields.partial: // trailers of a request from before the capture
		h.forget(id)
		c.e.Stats.Seen--
		c.recycle(p)
		return
	case x.Request.Method == "" && !b.unknown: // RFC 9113, section 8.3.1
		h.drop(id, DropMalformed)
		return
	case len(h.streams) > c.e.limits.Streams:
		h.drop(id, DropPipeline)
		return
	case !c.charge(p, size, len(x.Request.Fields)):
		h.drop(id, DropMemory)
		return
	}
	if x.Request.Method == "CONNECT" && x.Request.Target == "" {
		x.Request.Target = x.Request.Host
	}
	if kind, _ := x.Request.Fields.Get("content-type"); isGRPC(kind) {
		x.Protocol = GRPC
	}
	x.Start, x.End = origin.At, at
	x.Wire = Wire{RequestSeq: origin.Seq, RequestAck: origin.Ack, StreamID: id, Index: c.count}
	c.count++
	if f.has(flagEndStream) {
		h.endRequest(id, st)
	}
}

// isGRPC recognises the content type of gRPC, not that of gRPC-Web.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// set takes a field of a request; pseudo-header fields (RFC 9113, section 8.3.1)
// have places of their own.
func (r *Request) set(name, value string, limit int) {
	switch name {
	case ":method":
		r.Method = value
	case ":path":
		r.Target = value
	case ":authority":
		r.Host = value
	case "host":
		if r.Host == "" {
			r.Host = value
		}
		fallthrough
	default:
		if name[0] != ':' && len(r.Fields) < limit {
			r.Fields = append(r.Fields, Field{name, value})
		}
	}
}

func (h *h2) takeResponseBlock(st *stream, id uint32, f frame, origin Segment, at int64, block []byte) {
	c := h.c
	x := &st.x
	status, size := 0, 0
	fields := &x.Response.Fields
	trailers := x.FirstByte != 0
	if trailers {
		fields = &x.Response.Trailers
	}
	*fields = (*fields)[:0]
	b := h.decode(c.client.Opposite(), id, block, func(name, value string) {
		size += len(name) + len(value)
		if name == ":status" {
			if n, ok := decimal(value); ok && len(value) == 3 {
				status = int(n)
			}
		} else if name[0] != ':' && len(*fields) < c.e.limits.Fields {
			*fields = append(*fields, Field{name, value})
		}
	})
	if !b.ok {
		return
	}
	x.End = at
	if !trailers && 100 <= status && status < 200 { // of an interim response nothing is reported
		*fields = (*fields)[:0]
		return
	}
	st.unknown = st.unknown || b.unknown
	switch {
	case !trailers && status == 0 && st.doubt: // trailers of a response whose head was missed
		h.drop(id, DropGap)
		return
	case trailers && !f.has(flagEndStream): // RFC 9113, section 8.1
		h.dropWithoutHead(id, st)
		return
	case !c.charge(st.pending, size, len(*fields)):
		h.drop(id, DropMemory)
		return
	case !trailers:
		st.doubt = false
		x.Response.Status = status
		x.FirstByte, x.Wire.ResponseSeq = origin.At, origin.Seq
		if x.Request.Method == "CONNECT" && status/100 == 2 {
			// What follows is a tunnel, or WebSocket (RFC 8441).
			h.emit(id, st, Complete)
			return
		}
	}
	if f.has(flagEndStream) {
		h.endResponse(id, st)
	}
}

// takeContent counts content of a message.
func (h *h2) takeContent(d Dir, f frame, at, size int64) {
	st := h.streams[f.stream]
	if st == nil {
		return
	}
	end := f.has(flagEndStream)
	if d == h.c.client {
		st.x.Request.BodySize += size
		if end {
			h.endRequest(f.stream, st)
		}
		return
	}
	if st.x.FirstByte == 0 { // the head of the response was missed, or there is none
		h.dropWithoutHead(f.stream, st)
		return
	}
	if size > 0 && st.x.FirstContent == 0 {
		st.x.FirstContent = at
	}
	st.x.Response.BodySize += size
	st.x.End = at
	if end {
		h.endResponse(f.stream, st)
	}
}

func (h *h2) endRequest(id uint32, st *stream) {
	if st.requestDone = true; st.responseDone {
		h.emit(id, st, Complete)
	}
}

func (h *h2) endResponse(id uint32, st *stream) {
	if st.responseDone = true; st.requestDone {
		h.emit(id, st, Complete)
	}
}

// takeReset ends a stream (RFC 9113, section 6.4). A server may so refuse the
// rest of a request that it has answered.
func (h *h2) takeReset(d Dir, id, code uint32, at int64) {
	st := h.streams[id]
	if st == nil {
		return
	}
	if st.responseDone {
		h.emit(id, st, Complete)
		return
	}
	st.x.Reset = StreamReset{Seen: true, ByServer: d != h.c.client, Code: code}
	st.x.End = at
	h.emit(id, st, Reset)
}

// finish ends what is in progress, with the outcome that the end of the connection
// gives it.
func (h *h2) finish(why Outcome, at int64) {
	for _, id := range h.ids() {
		st := h.streams[id]
		o := why
		switch {
		case st.responseDone:
			o = Complete
		case st.doubt && h.c.sides[h.c.client.Opposite()].seen:
			h.drop(id, DropGap)
			continue
		case !h.c.sides[h.c.client.Opposite()].seen:
			o = OneSided
		case why == Truncated && st.x.FirstByte == 0:
			o = NoResponse
		}
		if o != Complete && o != OneSided {
			st.x.End = max(st.x.End, at)
		}
		h.emit(id, st, o)
	}
}

func (h *h2) emit(id uint32, st *stream, o Outcome) {
	h.forget(id)
	if st.unknown && o == Complete {
		o = Undecoded
	}
	h.c.hand(st.pending, o)
}

func (h *h2) drop(id uint32, why Drop) {
	if st := h.streams[id]; st != nil {
		h.forget(id)
		h.c.drop(st.pending, why)
	}
}

// dropWithoutHead drops a stream whose response does not start with its head: that
// was missed, or the server made a mistake.
func (h *h2) dropWithoutHead(id uint32, st *stream) {
	why := DropMalformed
	if st.doubt || st.unknown {
		why = DropGap
	}
	h.drop(id, why)
}

// forget removes a stream. A map keeps the room that it has had.
func (h *h2) forget(id uint32) {
	const keep = 256
	if delete(h.streams, id); len(h.streams) == 0 && h.most > keep {
		h.streams, h.most = make(map[uint32]*stream), 0
	}
}
