package flow

import (
	"encoding/binary"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/sidecar/capture"
)

const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10

	protocolTCP = 6
)

// segment is a TCP segment. Its payload may be captured in part: length is what
// it was on the wire.
type segment struct {
	from     bpf.Direction
	at       int64
	out      bool
	v4       bool
	flags    uint8
	seq, ack uint32
	payload  []byte
	length   int
}

// verdict is what a packet turned out to be.
type verdict uint8

const (
	isSegment verdict = iota
	isFragment
	isNotTCP
	isMalformed
)

// decode reads the IP and TCP headers of a packet (RFC 791, 8200, 9293).
func decode(p *capture.Packet, s *segment) verdict {
	if len(p.Data) == 0 {
		return isMalformed
	}
	s.at, s.out = p.At, p.Out
	switch p.Data[0] >> 4 {
	case 4:
		return decodeIPv4(p, s)
	case 6:
		return decodeIPv6(p, s)
	}
	return isNotTCP
}

func decodeIPv4(p *capture.Packet, s *segment) verdict {
	b := p.Data
	if len(b) < 20 {
		return isMalformed
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // more than 64 KiB, or cut by the sender's network card
		total = p.Len
	}
	switch {
	case header < 20 || total < header || total > p.Len:
		return isMalformed
	case b[9] != protocolTCP:
		return isNotTCP
	case binary.BigEndian.Uint16(b[6:])&0x1fff != 0:
		return isFragment
	}
	s.v4 = true
	s.from.Source, s.from.Destination = [16]byte{}, [16]byte{}
	copy(s.from.Source[8:], b[12:16])
	copy(s.from.Destination[8:], b[16:20])
	return decodeTCP(b, header, total, s)
}

func decodeIPv6(p *capture.Packet, s *segment) verdict {
	const (
		hopByHop, routing, fragment, authentication, destination = 0, 43, 44, 51, 60

		maxExtensions = 8
	)
	b := p.Data
	if len(b) < 40 {
		return isMalformed
	}
	total := int(binary.BigEndian.Uint16(b[4:])) + 40
	if total == 40 { // a jumbogram
		total = p.Len
	}
	if total > p.Len {
		return isMalformed
	}
	s.v4 = false
	copy(s.from.Source[:], b[8:24])
	copy(s.from.Destination[:], b[24:40])
	next, at := b[6], 40
	for range maxExtensions {
		if next == protocolTCP {
			return decodeTCP(b, at, total, s)
		}
		if next != hopByHop && next != routing && next != destination && next != authentication {
			break
		}
		if len(b) < at+2 {
			return isMalformed
		}
		length := (int(b[at+1]) + 1) * 8
		if next == authentication {
			length = (int(b[at+1]) + 2) * 4
		}
		next, at = b[at], at+length
	}
	if next == fragment {
		return isFragment
	}
	return isNotTCP
}

func decodeTCP(b []byte, at, total int, s *segment) verdict {
	if len(b) < at+20 {
		return isMalformed
	}
	t := b[at:]
	data := at + int(t[12]>>4)*4
	if data < at+20 || data > total {
		return isMalformed
	}
	s.from.SourcePort = binary.BigEndian.Uint16(t)
	s.from.DestinationPort = binary.BigEndian.Uint16(t[2:])
	s.seq = binary.BigEndian.Uint32(t[4:])
	s.ack = binary.BigEndian.Uint32(t[8:])
	s.flags = t[13]
	s.length = total - data
	s.payload = nil
	if end := min(len(b), total); data < end { // what follows is padding of the link
		s.payload = b[data:end]
	}
	return isSegment
}
