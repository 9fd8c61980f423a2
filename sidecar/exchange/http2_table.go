package exchange

// decoderCost is what a decoder with an empty table takes, in bytes.
const decoderCost = 256

// tableCost bounds the memory that the table of a decoder takes.
type tableCost struct {
	max   int // bytes, as the sender set it (RFC 7541, section 4.2)
	bytes int
}

// most is the memory that a full table takes, as measured.
func (t tableCost) most() int { return t.max + t.max/2 }

// add counts what the representations of a header block (RFC 7541, section 6)
// insert, up to the first that is malformed.
func (t *tableCost) add(block []byte) {
	for rest := block; len(rest) > 0; {
		first, n, ok := rest[0], 0, true
		switch {
		case first&0x80 != 0: // indexed
			_, rest, ok = prefixed(rest, 7)
		case first&0xc0 == 0x40: // literal, inserted
			n, rest, ok = literal(rest, 6)
			t.bytes = min(t.bytes+n+entrySize*3/2, t.most())
		case first&0xe0 == 0x20: // size update
			n, rest, ok = prefixed(rest, 5)
			t.max = min(n, largestTable)
			t.bytes = min(t.bytes, t.most())
		default: // literal, not inserted
			_, rest, ok = literal(rest, 4)
		}
		if !ok {
			return
		}
	}
}

// literal passes over a literal, with its name as an index or as a string, and
// returns how many bytes its strings take once decoded, at most.
func literal(b []byte, prefix int) (size int, rest []byte, ok bool) {
	index, b, ok := prefixed(b, prefix)
	strings := 1
	if index == 0 {
		strings = 2
	}
	for range strings {
		if !ok || len(b) == 0 {
			return size, nil, false
		}
		huffman := b[0]&0x80 != 0
		var n int
		if n, b, ok = prefixed(b, 7); !ok || n > len(b) {
			return size, nil, false
		}
		b = b[n:]
		if huffman { // the shortest code has 5 bits
			n = n * 8 / 5
		}
		size += n
	}
	return size, b, ok
}

// prefixed reads an integer with a prefix of so many bits (RFC 7541, section 5.1).
func prefixed(b []byte, bits int) (n int, rest []byte, ok bool) {
	limit := 1<<bits - 1
	n = int(b[0]) & limit
	if b = b[1:]; n < limit {
		return n, b, true
	}
	for shift := 0; shift <= 21 && len(b) > 0; shift += 7 {
		c := b[0]
		b = b[1:]
		n += int(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}
