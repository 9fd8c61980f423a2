package flow

import "github.com/spile-dev/spile/sidecar/exchange"

// half is one direction of a connection.
type half struct {
	known    bool   // next is
	located  bool   // and it will not turn out that it was earlier
	syn      bool   // the handshake was seen
	fin      bool   // FIN was seen, after finSeq
	ended    bool   // and everything before it
	skipping bool   // the filter was told to leave out bytes up to skipTo
	brief    bool   // the filter was told that the direction is brief, since briefAt
	walking  bool   // the filter was told where frames are, last at walkedAt
	unwalked bool   // the filter was told that no frame boundary is known
	acks     bool   // acked is valid
	isn      uint32 // initial sequence number
	origin   uint32 // where it was taken to start, without a SYN
	next     uint32 // sequence number of the byte to come
	finSeq   uint32
	finAck   uint32 // what the sender of FIN had received
	skipTo   uint32
	walkedAt uint32
	finAt    int64
	briefAt  int64
	// The lowest and the highest acknowledgement number sent in this direction.
	ackedFirst, acked uint32
	late              []late // by sequence number
}

// locate finds out where a direction starts, until something of it has been
// delivered. Without its SYN that is at the first byte that was captured, or that
// the other end did not have when it was first heard of: what is between them is
// late or missing.
func (c *conn) locate(d exchange.Dir, start uint32, syn bool) {
	const plausible = 1 << 30
	h, other := &c.half[d], &c.half[d.Opposite()]
	switch {
	case h.located:
		return
	case syn:
		h.known, h.located, h.next = true, true, start
		return
	case !h.known || before(start, h.next):
		h.known, h.next = true, start
	}
	if missing := h.next - other.ackedFirst; other.acks && missing < plausible {
		h.next = other.ackedFirst
	}
}

// settle tells that something is delivered: the direction starts where it is.
func (h *half) settle() {
	if !h.located {
		h.located, h.origin = true, h.next
	}
}

// sentSYN reports whether a SYN with a sequence number is of this connection: sent
// again, captured twice, or captured after the first data. That of another one on
// the same ports would have a later number (RFC 6528).
func (h *half) sentSYN(seq uint32, closed bool) bool {
	const late = 1 << 16
	if h.syn {
		return h.isn == seq
	}
	return !closed && (!h.known || h.next-seq <= late)
}

// ahead returns how many bytes are missing before a sequence number.
func (h *half) ahead(seq uint32) int64 {
	n := int64(int32(seq - h.next))
	if h.ended {
		n-- // FIN takes a sequence number
	}
	return n
}

// empty reports whether a direction ended without data.
func (h *half) empty() bool { return h.fin && h.finSeq == h.next }

func (h *half) acknowledge(ack uint32) {
	if !h.acks || before(ack, h.ackedFirst) {
		h.ackedFirst = ack
	}
	if !h.acks || before(h.acked, ack) {
		h.acked = ack
	}
	h.acks = true
}

// acked returns up to where the sender of a segment had received the other direction.
func (c *conn) acked(d exchange.Dir, s *segment) uint32 {
	if s.flags&flagACK == 0 {
		return c.half[d.Opposite()].next
	}
	return s.ack
}
