package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// pcapng is the block format, draft-ietf-opsawg-pcapng: sections that describe
// interfaces and then have packets from them.
type pcapng struct {
	win        *window
	order      binary.ByteOrder // of the section
	interfaces []ngInterface    // of the section
	last       int64            // time of the last packet
}

// ngInterface is what an interface description block says of its packets.
type ngInterface struct {
	link    uint16
	snapLen uint32 // 0: no limit
	units   uint64 // of a timestamp, per second
	offset  int64  // seconds to add to a timestamp
}

// maxSectionInterfaces bounds the memory of a section. The obsolete packet block has
// 16 bits for the number of an interface; no tool comes near it.
const maxSectionInterfaces = 1 << 16

const (
	blockSection        = 0x0a0d0d0a
	blockInterface      = 1
	blockPacket         = 2 // obsolete
	blockSimplePacket   = 3
	blockEnhancedPacket = 6
)

var sectionMagic = []byte{0x0a, 0x0d, 0x0d, 0x0a} // the same in both byte orders

// Lengths in bytes.
const (
	blockMinLen     = 12 // type, length, and the length again
	blockHeadLen    = 8
	blockTrailerLen = 4
)

const (
	optionEnd      = 0
	optionTSResol  = 9
	optionTSOffset = 14
)

func newPcapng(w *window) (*pcapng, error) {
	p := &pcapng{win: w}
	_, body, err := p.block()
	if err != nil {
		return nil, err
	}
	return p, p.section(body)
}

// next reads blocks up to the one that has the next packet.
func (p *pcapng) next(r *record) error {
	for {
		typ, body, err := p.block()
		if err != nil {
			return err
		}
		switch typ {
		case blockSection:
			err = p.section(body)
		case blockInterface:
			err = p.addInterface(body)
		case blockPacket, blockEnhancedPacket, blockSimplePacket:
			if body == nil {
				r.skip = SkipTooLong
				return nil
			}
			return p.packet(typ, body, r)
		}
		if err != nil {
			return err
		}
	}
}

// block reads a whole block. The body of one that the window cannot hold is
// nil. The window stays at the block, so that errors give its place.
func (p *pcapng) block() (typ uint32, body []byte, err error) {
	w := p.win
	if err := w.advance(); err != nil {
		return 0, nil, w.fault(err)
	}
	head, err := w.head(blockMinLen, "header of the block")
	if err != nil {
		return 0, nil, err
	}
	if bytes.Equal(head[:4], sectionMagic) {
		if p.order = byteOrder(head[8:]); p.order == nil {
			return 0, nil, p.damaged("section header with the byte-order magic % x", head[8:])
		}
	}
	typ = p.order.Uint32(head)
	n := p.order.Uint32(head[4:])
	switch {
	case n < blockMinLen:
		return 0, nil, p.damaged("length %d, less than that of the smallest block, %d", n, blockMinLen)
	case n > windowSize && (typ == blockSection || typ == blockInterface):
		return 0, nil, p.damaged("%d bytes of description, at most %d are read", n, windowSize)
	case n > windowSize:
		return typ, nil, p.passOver(n)
	}
	b, err := w.whole(int(n), "block")
	if err != nil {
		return 0, nil, err
	}
	if end := p.order.Uint32(b[n-blockTrailerLen:]); end != n {
		return 0, nil, p.damaged("length %d at its start, %d at its end", n, end)
	}
	return typ, b[blockHeadLen : n-blockTrailerLen], nil
}

// passOver leaves out a block of n bytes that is larger than the window.
func (p *pcapng) passOver(n uint32) error {
	w := p.win
	var end []byte
	err := w.skip(int64(n) - blockTrailerLen)
	if err == nil {
		end, err = w.Peek(blockTrailerLen)
	}
	if err != nil {
		return w.cut(err, "block", int64(n), w.offset-w.start+int64(w.Buffered()))
	}
	if end := p.order.Uint32(end); end != n {
		return p.damaged("length %d at its start, %d at its end", n, end)
	}
	w.length = blockTrailerLen
	return nil
}

// section begins a new section: byte order and interfaces are its own.
func (p *pcapng) section(body []byte) error {
	if len(body) < 16 {
		return p.damaged("section header of %d bytes, at least 16 expected", len(body))
	}
	major, minor := p.order.Uint16(body[4:]), p.order.Uint16(body[6:])
	// 1.2 is what some writers call 1.0, says the format's section 4.1.
	if major != 1 || minor != 0 && minor != 2 {
		return fmt.Errorf("section at %s: pcapng version %d.%d: only 1.0 and 1.2 are read", p.win.place(), major, minor)
	}
	p.interfaces = p.interfaces[:0]
	return nil
}

func (p *pcapng) addInterface(body []byte) error {
	if len(body) < 8 {
		return p.damaged("interface description of %d bytes, at least 8 expected", len(body))
	}
	if len(p.interfaces) == maxSectionInterfaces {
		return p.damaged("more than %d interfaces in a section", maxSectionInterfaces)
	}
	i := ngInterface{link: p.order.Uint16(body), snapLen: p.order.Uint32(body[4:]), units: 1e6}
	for opts := body[8:]; len(opts) >= 4; {
		code, n := p.order.Uint16(opts), int(p.order.Uint16(opts[2:]))
		if code == optionEnd {
			break
		}
		padded := 4 + (n+3)&^3
		if 4+n > len(opts) {
			return p.damaged("option %d of %d bytes in an interface description with room for %d", code, n, len(opts)-4)
		}
		value := opts[4 : 4+n]
		switch {
		case code == optionTSResol && n == 1:
			if i.units = unitsPerSecond(value[0]); i.units == 0 {
				return p.damaged("if_tsresol %#02x: up to 10^-19 and 2^-63 seconds are read", value[0])
			}
		case code == optionTSOffset && n == 8:
			i.offset = int64(p.order.Uint64(value))
		}
		opts = opts[min(padded, len(opts)):]
	}
	p.interfaces = append(p.interfaces, i)
	return nil
}

// packet reads any of the three packet blocks into r.
func (p *pcapng) packet(typ uint32, body []byte, r *record) error {
	fixed := 20
	if typ == blockSimplePacket {
		fixed = 4
	}
	if len(body) < fixed {
		return p.damaged("packet of %d bytes, at least %d expected", len(body), fixed)
	}
	var id, captured, wire uint32
	switch typ {
	case blockEnhancedPacket:
		id = p.order.Uint32(body)
	case blockPacket:
		id = uint32(p.order.Uint16(body)) // the other half counts drops
	}
	if int64(id) >= int64(len(p.interfaces)) {
		return p.damaged("packet from interface %d, the section has described %d", id, len(p.interfaces))
	}
	i := &p.interfaces[id]
	if typ == blockSimplePacket {
		// It has no time: that of the packet before it keeps the order.
		wire = p.order.Uint32(body)
		captured = wire
		if i.snapLen != 0 {
			captured = min(captured, i.snapLen)
		}
	} else {
		stamp := uint64(p.order.Uint32(body[4:]))<<32 | uint64(p.order.Uint32(body[8:]))
		p.last = i.unixNano(stamp)
		captured, wire = p.order.Uint32(body[12:]), p.order.Uint32(body[16:])
	}
	if int64(captured) > int64(len(body)-fixed) {
		return p.damaged("%d captured bytes in a packet block with room for %d", captured, len(body)-fixed)
	}
	r.link, r.order, r.at = i.link, p.order, p.last
	r.data, r.wireLen = body[fixed:fixed+int(captured)], wire
	return nil
}

// byteOrder tells that of a pcapng section by its byte-order magic.
func byteOrder(magic []byte) binary.ByteOrder {
	switch {
	case bytes.Equal(magic, []byte{0x1a, 0x2b, 0x3c, 0x4d}):
		return binary.BigEndian
	case bytes.Equal(magic, []byte{0x4d, 0x3c, 0x2b, 0x1a}):
		return binary.LittleEndian
	}
	return nil
}

// unixNano converts a timestamp to nanoseconds since the Unix epoch. One that
// the type cannot hold, which is not before 2262, becomes its largest value
// less a day, so that adding a timeout to it does not overflow.
func (i *ngInterface) unixNano(stamp uint64) int64 {
	const maxSec = math.MaxInt64/int64(1e9) - 24*60*60
	sec, rest := stamp/i.units, stamp%i.units
	hi, lo := bits.Mul64(rest, 1e9)
	nanos, _ := bits.Div64(hi, lo, i.units) // rest < units, so the quotient fits
	if sec > uint64(maxSec) || i.offset > maxSec-int64(sec) {
		return maxSec * 1e9
	}
	if i.offset < -int64(sec) {
		return 0
	}
	return (int64(sec)+i.offset)*1e9 + int64(nanos)
}

// unitsPerSecond is the meaning of an if_tsresol; 0 if it is beyond 64 bits.
func unitsPerSecond(resol byte) uint64 {
	exp := resol & 0x7f
	if resol&0x80 != 0 {
		if exp > 63 {
			return 0
		}
		return 1 << exp
	}
	if exp > 19 {
		return 0
	}
	units := uint64(1)
	for range exp {
		units *= 10
	}
	return units
}

// damaged is the error of a block that contradicts itself or the section.
func (p *pcapng) damaged(format string, args ...any) error {
	return fmt.Errorf("block at %s: %s", p.win.place(), fmt.Sprintf(format, args...))
}
