package capture

import "encoding/binary"

// dot11 takes off the header of an IEEE 802.11 data frame. padded says that
// the hardware aligned what follows to 32 bits.
func dot11(b []byte, padded bool) (uint16, []byte, Skip) {
	const (
		versionMask, typeMask, typeData = 0x03, 0x0c, 0x08
		subtypeNoData, subtypeQoS       = 0x40, 0x80

		toAndFromDS, moreFragments, protected, plusHTC = 0x03, 0x04, 0x40, 0x80

		headerLen, address4Len, qosLen, htLen = 24, 6, 2, 4
		amsduPresent                          = 0x80
	)
	if len(b) < 2 {
		return 0, nil, SkipShort
	}
	control, flags := b[0], b[1]
	if control&versionMask != 0 || control&typeMask != typeData || control&subtypeNoData != 0 {
		return 0, nil, SkipNotIP
	}
	n := headerLen
	if flags&toAndFromDS == toAndFromDS {
		n += address4Len
	}
	qos := control&subtypeQoS != 0
	if qos {
		n += qosLen
	}
	if len(b) < n {
		return 0, nil, SkipShort
	}
	fragment := b[22] & 0x0f
	aggregated := qos && b[n-qosLen]&amsduPresent != 0
	if flags&(protected|moreFragments) != 0 || fragment != 0 || aggregated {
		return 0, nil, SkipOpaque
	}
	if qos && flags&plusHTC != 0 {
		n += htLen
	}
	if padded {
		n = (n + 3) &^ 3
	}
	return after(b, n, llc)
}

// radiotap takes off the header that monitor mode puts before an 802.11 frame
// (radiotap.org). Of its fields only the flags matter here; they are the
// second, behind the set of presence words and an aligned 64-bit timestamp.
func radiotap(b []byte) (uint16, []byte, Skip) {
	const (
		fixedLen, version                   = 8, 0
		hasTSFT, hasFlags, more             = 1 << 0, 1 << 1, 1 << 31
		flagPadded, flagBadChecksum, tsfLen = 0x20, 0x40, 8
	)
	if len(b) < fixedLen {
		return 0, nil, SkipShort
	}
	n := int(binary.LittleEndian.Uint16(b[2:]))
	if b[0] != version || n < fixedLen {
		return 0, nil, SkipNotIP
	}
	if len(b) < n {
		return 0, nil, SkipShort
	}
	present := binary.LittleEndian.Uint32(b[4:])
	at := fixedLen
	for word := present; word&more != 0; at += 4 {
		if at+4 > n {
			return 0, nil, SkipNotIP
		}
		word = binary.LittleEndian.Uint32(b[at:])
	}
	if present&hasTSFT != 0 {
		at = (at+7)&^7 + tsfLen
	}
	var flags byte
	if present&hasFlags != 0 && at < n {
		flags = b[at]
	}
	if flags&flagBadChecksum != 0 {
		return 0, nil, SkipOpaque
	}
	return dot11(b[n:], flags&flagPadded != 0)
}
