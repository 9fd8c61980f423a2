package capture

import "encoding/binary"

// mpls takes a label stack off (RFC 3032). Nothing in it says what follows;
// as routers do, the first four bits are taken for it: IP's version, or 0 for
// the control word of a pseudowire that carries Ethernet (RFC 4385).
func mpls(b []byte) (uint16, []byte, Skip) {
	const entryLen, bottom = 4, 1
	for range maxHeaders {
		if len(b) <= entryLen {
			return 0, nil, SkipShort
		}
		last := b[2]&bottom != 0
		b = b[entryLen:]
		if !last {
			continue
		}
		switch b[0] >> 4 {
		case 4, 6:
			return rawIP(b)
		case 0:
			return after(b, 4, func(b []byte) (uint16, []byte, Skip) { return typed(b, 12) })
		}
		return 0, nil, SkipNotIP
	}
	return 0, nil, SkipNotIP
}

// pppoe is the header of a PPPoE session (RFC 2516).
func pppoe(b []byte) (uint16, []byte, Skip) {
	const versionAndType, codeSession, headerLen = 0x11, 0, 6
	switch {
	case len(b) < headerLen:
		return 0, nil, SkipShort
	case b[0] != versionAndType || b[1] != codeSession:
		return 0, nil, SkipNotIP
	}
	return ppp(b[headerLen:])
}

// ppp is the header of PPP, with or without the address and control of HDLC
// framing, which may be compressed away like the protocol's first byte
// (RFC 1661 and 1662).
func ppp(b []byte) (uint16, []byte, Skip) {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		b = b[2:]
	}
	if len(b) < 2 {
		return 0, nil, SkipShort
	}
	protocol, n := binary.BigEndian.Uint16(b), 2
	if b[0]&1 != 0 { // the last byte of a protocol is odd, the first is even
		protocol, n = uint16(b[0]), 1
	}
	switch protocol {
	case 0x0021:
		return etherIPv4, b[n:], 0
	case 0x0057:
		return etherIPv6, b[n:], 0
	case 0x0281, 0x0283:
		return etherMPLS, b[n:], 0
	}
	return 0, nil, SkipNotIP
}

// hdlc is PPP in HDLC-like framing, or else Cisco's HDLC, by its address.
func hdlc(b []byte) (uint16, []byte, Skip) {
	const ciscoUnicast, ciscoMulticast = 0x0f, 0x8f
	if len(b) > 0 && (b[0] == ciscoUnicast || b[0] == ciscoMulticast) {
		return typed(b, 2)
	}
	return ppp(b)
}

// nflog is a packet that netfilter logged: a header of address family, version
// and resource, then attributes in the recording host's byte order.
func nflog(b []byte, order binary.ByteOrder) (uint16, []byte, Skip) {
	const headerLen, attrLen, version, attrPayload, attrType = 4, 4, 0, 9, 0x7fff
	if len(b) < headerLen {
		return 0, nil, SkipShort
	}
	if b[1] != version {
		return 0, nil, SkipNotIP
	}
	for b = b[headerLen:]; len(b) >= attrLen; {
		n := int(order.Uint16(b))
		if n < attrLen {
			return 0, nil, SkipNotIP
		}
		if order.Uint16(b[2:])&attrType == attrPayload {
			return rawIP(b[attrLen:])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return 0, nil, SkipShort
}
