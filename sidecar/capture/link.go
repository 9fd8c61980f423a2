package capture

import (
	"encoding/binary"
	"fmt"
)

// Skip is why a packet of a file was not returned.
type Skip uint8

const (
	// SkipNotIP is a frame that carries something else, such as ARP, or nothing.
	SkipNotIP Skip = iota + 1
	// SkipLinkType is a packet of a link type that is not read.
	SkipLinkType
	// SkipShort is one that was captured, or sent, only in part: too little for
	// its link header and a fixed IP header.
	SkipShort
	// SkipOpaque is an 802.11 frame whose payload cannot be read as it is:
	// encrypted, aggregated (A-MSDU), a fragment, or with a bad checksum.
	SkipOpaque
	// SkipTooLong is a pcapng packet block of more than 512 KiB.
	SkipTooLong
)

var skipNames = [...]string{
	SkipNotIP:    "not_ip",
	SkipLinkType: "unsupported_link_type",
	SkipShort:    "short",
	SkipOpaque:   "opaque_802_11",
	SkipTooLong:  "too_long",
}

// String returns the name of the counter.
func (s Skip) String() string {
	if int(s) < len(skipNames) && skipNames[s] != "" {
		return skipNames[s]
	}
	return fmt.Sprintf("skip_%d", uint8(s))
}

// Values of LINKTYPE_*, https://www.tcpdump.org/linktypes.html.
const (
	linkNull       = 0
	linkEthernet   = 1
	linkPPP        = 9
	linkRawDLT     = 12 // DLT_RAW of most systems, which some writers leave in
	linkRawOpenBSD = 14
	linkPPPHDLC    = 50
	linkPPPoE      = 51
	linkATMRFC1483 = 100
	linkRaw        = 101
	linkCiscoHDLC  = 104
	linkIEEE80211  = 105
	linkLoop       = 108
	linkEnc        = 109
	linkLinuxSLL   = 113
	linkRadiotap   = 127
	linkPPPWithDir = 204
	linkIPv4       = 228
	linkIPv6       = 229
	linkNFLOG      = 239
	linkLinuxSLL2  = 276
)

// Values of EtherType. Below etherMin the field of an Ethernet header is a
// length, and an LLC header follows.
const (
	etherMin      = 0x600
	etherIPv4     = 0x0800
	etherIPv6     = 0x86dd
	etherVLAN     = 0x8100
	etherQinQ     = 0x88a8
	etherQinQOld  = 0x9100
	etherMPLS     = 0x8847
	etherMPLSUp   = 0x8848
	etherPPPoE    = 0x8864
	etherJumboLLC = 0x8870
	etherBridged  = 0x6558 // Transparent Ethernet Bridging (RFC 1701)
)

// maxHeaders is how many tags and headers are taken off between the link
// header and IP. It bounds the work on a frame made of nothing but tags.
const maxHeaders = 16

// A header is taken off a packet by a function that returns the EtherType of
// what follows, and what follows.
type header func(b []byte) (etherType uint16, rest []byte, skip Skip)

// ipPacket returns what of a packet follows its link header: a slice of its
// end that begins with an IP header, whose fixed part is whole. The byte order
// is that of the recording host, in which some link types have their fields.
func ipPacket(link uint16, order binary.ByteOrder, b []byte) ([]byte, Skip) {
	etherType, b, skip := linkHeader(link, order, b)
	for range maxHeaders {
		if skip != 0 {
			return nil, skip
		}
		switch etherType {
		case etherIPv4, etherIPv6:
			if b, skip = wholeIP(b); skip != 0 {
				return nil, skip
			}
			inner, rest, ok := tunnelled(b)
			if !ok {
				return b, 0
			}
			etherType, b = inner, rest
		case etherVLAN, etherQinQ, etherQinQOld:
			etherType, b, skip = typed(b, 2)
		case etherMPLS, etherMPLSUp:
			etherType, b, skip = mpls(b)
		case etherPPPoE:
			etherType, b, skip = pppoe(b)
		case etherJumboLLC:
			etherType, b, skip = llc(b)
		case etherBridged:
			etherType, b, skip = typed(b, 12)
		default:
			if etherType >= etherMin {
				return nil, SkipNotIP
			}
			etherType, b, skip = llc(b)
		}
	}
	return nil, SkipNotIP
}

func linkHeader(link uint16, order binary.ByteOrder, b []byte) (uint16, []byte, Skip) {
	switch link {
	case linkEthernet:
		return typed(b, 12)
	case linkLinuxSLL:
		return linuxCooked(b, 14, 16)
	case linkLinuxSLL2:
		return linuxCooked(b, 0, 20)
	case linkRaw, linkRawDLT, linkRawOpenBSD, linkIPv4, linkIPv6:
		return rawIP(b)
	case linkNull, linkLoop:
		return addressFamily(b, 4)
	case linkEnc:
		return addressFamily(b, 12) // family, SPI, flags: OpenBSD's IPsec
	case linkPPP:
		return ppp(b)
	case linkPPPHDLC:
		return hdlc(b)
	case linkCiscoHDLC:
		return typed(b, 2)
	case linkPPPWithDir:
		return after(b, 1, ppp)
	case linkPPPoE:
		return pppoe(b)
	case linkATMRFC1483:
		return llc(b)
	case linkIEEE80211:
		return dot11(b, false)
	case linkRadiotap:
		return radiotap(b)
	case linkNFLOG:
		return nflog(b, order)
	}
	return 0, nil, SkipLinkType
}

// wholeIP checks that a fixed IP header is there. Which version it is, its own
// first bits say.
func wholeIP(b []byte) ([]byte, Skip) {
	if len(b) == 0 {
		return nil, SkipShort
	}
	fixed := 0
	switch b[0] >> 4 {
	case 4:
		fixed = 20
	case 6:
		fixed = 40
	default:
		return nil, SkipNotIP
	}
	if len(b) < fixed {
		return nil, SkipShort
	}
	return b, 0
}

// rawIP is where nothing but its version tells what is IP.
func rawIP(b []byte) (uint16, []byte, Skip) { return etherIPv4, b, 0 }

// after takes n bytes and then a header off.
func after(b []byte, n int, next header) (uint16, []byte, Skip) {
	if len(b) < n {
		return 0, nil, SkipShort
	}
	return next(b[n:])
}

// typed is a header that ends with an EtherType, at offset at.
func typed(b []byte, at int) (uint16, []byte, Skip) {
	if len(b) < at+2 {
		return 0, nil, SkipShort
	}
	return binary.BigEndian.Uint16(b[at:]), b[at+2:], 0
}

// linuxCooked is the header of Linux's "any" device: n bytes, with the
// protocol at offset at, as packet(7) has it.
func linuxCooked(b []byte, at, n int) (uint16, []byte, Skip) {
	if len(b) < n {
		return 0, nil, SkipShort
	}
	const ethP8022 = 4
	protocol := binary.BigEndian.Uint16(b[at:])
	switch {
	case protocol == ethP8022:
		return etherJumboLLC, b[n:], 0
	case protocol < etherMin: // ETH_P_*: no lengths, but other protocols
		return 0, nil, SkipNotIP
	}
	return protocol, b[n:], 0
}

// addressFamily is a header of n bytes that begins with an AF_* value, in the
// byte order of the recording host or, on OpenBSD, of the network.
func addressFamily(b []byte, n int) (uint16, []byte, Skip) {
	if len(b) < n {
		return 0, nil, SkipShort
	}
	family := binary.BigEndian.Uint32(b)
	if family > 0xffff {
		family = binary.LittleEndian.Uint32(b)
	}
	switch family {
	case 2: // AF_INET everywhere
		return etherIPv4, b[n:], 0
	case 10, 24, 28, 30: // AF_INET6: Linux; NetBSD and OpenBSD; FreeBSD; Darwin
		return etherIPv6, b[n:], 0
	}
	return 0, nil, SkipNotIP
}

// llc is the header of IEEE 802.2, followed by one of SNAP that has an
// EtherType (RFC 1042), or directly by IP.
func llc(b []byte) (uint16, []byte, Skip) {
	if len(b) < 3 {
		return 0, nil, SkipShort
	}
	const sapSNAP, sapIP, unnumbered = 0xaa, 0x06, 0x03
	switch {
	case b[0] == sapIP && b[1] == sapIP && b[2] == unnumbered:
		return rawIP(b[3:])
	case b[0] != sapSNAP || b[1] != sapSNAP || b[2] != unnumbered:
		return 0, nil, SkipNotIP
	case len(b) < 8:
		return 0, nil, SkipShort
	}
	// An EtherType follows the organisation codes of RFC 1042 and 802.1H.
	if b[3] != 0 || b[4] != 0 || b[5] != 0 && b[5] != 0xf8 {
		return 0, nil, SkipNotIP
	}
	return typed(b, 6)
}
