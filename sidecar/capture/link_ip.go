package capture

import "encoding/binary"

// tunnelled returns what an IP packet carries of another: IP in IP (RFC 2003, 4213,
// 2473), GRE (RFC 2784, 2890), VXLAN (RFC 7348) and Geneve (RFC 8926) on their
// ports. It reports false for any other packet, and for a fragment. What is too
// short for the headers of a tunnel carries nothing.
func tunnelled(b []byte) (etherType uint16, rest []byte, ok bool) {
	const (
		protoIPv4, protoUDP, protoIPv6, protoGRE = 4, 17, 41, 47

		fragmentBits = 0x3fff // more fragments, offset
	)
	header, proto := 40, b[6]
	if b[0]>>4 == 4 {
		header, proto = int(b[0]&0xf)*4, b[9]
		if header < 20 || binary.BigEndian.Uint16(b[6:])&fragmentBits != 0 {
			return 0, nil, false
		}
	}
	switch b = b[min(header, len(b)):]; proto {
	case protoIPv4:
		return etherIPv4, b, true
	case protoIPv6:
		return etherIPv6, b, true
	case protoGRE:
		return gre(b)
	case protoUDP:
		return overlay(b)
	}
	return 0, nil, false
}

func gre(b []byte) (uint16, []byte, bool) {
	const checksum, key, sequence, routingAndVersion = 0x80, 0x20, 0x10, 0x4007
	switch {
	case len(b) < 4:
		return etherIPv4, nil, true
	case binary.BigEndian.Uint16(b)&routingAndVersion != 0:
		return 0, nil, false
	}
	n := 4
	for _, flag := range [...]byte{checksum, key, sequence} {
		if b[0]&flag != 0 {
			n += 4
		}
	}
	if len(b) < n {
		return etherIPv4, nil, true
	}
	return binary.BigEndian.Uint16(b[2:]), b[n:], true
}

// overlay takes UDP and the header of an overlay network off.
func overlay(b []byte) (uint16, []byte, bool) {
	const udpHeader, header, portVXLAN, portGeneve = 8, 8, 4789, 6081
	if len(b) < udpHeader {
		return etherIPv4, nil, true
	}
	port, b := binary.BigEndian.Uint16(b[2:]), b[udpHeader:]
	switch {
	case port != portVXLAN && port != portGeneve:
		return 0, nil, false
	case len(b) < header:
		return etherIPv4, nil, true
	case port == portVXLAN && b[0] == 0x08:
		return etherBridged, b[header:], true
	case port == portGeneve && b[0]>>6 == 0:
		return binary.BigEndian.Uint16(b[2:]), b[min(header+int(b[0]&0x3f)*4, len(b)):], true
	}
	return 0, nil, false
}
