package exchange

// Frames tells of the frames of a direction whether there are any.
type Frames uint8

const (
	NoFrames        Frames = iota // it is not of HTTP/2
	LostFrames                    // no boundary between them is known
	UnsettledFrames               // the next boundary is not known yet
	KnownFrames                   // it is
)

// NextFrame returns where the next frame of a direction starts: after how many bytes,
// and how many of these, all or none, are not needed. header is that of the DATA
// frame that they are of, if others are likely to be similar.
func (c *Conn) NextFrame(d Dir) (f Frames, after, span uint32, header []byte) {
	const large = 1 << 10
	if c.h2 == nil {
		return NoFrames, 0, 0, nil
	}
	side := &c.h2.sides[d]
	if side.lost {
		return LostFrames, 0, 0, nil
	}
	n, known := side.boundary()
	if !known {
		return UnsettledFrames, 0, 0, nil
	}
	if side.passes() {
		if span = uint32(n); side.frame.typ == frameData && side.frame.length >= large && !side.frame.has(flagPadded) {
			header = side.header[:]
		}
	}
	return KnownFrames, uint32(n), span, header
}

// passes tells that a payload is coming that is not needed.
func (s *h2side) passes() bool {
	return !s.lost && s.have == len(s.header) && !s.frame.whole() && s.padding >= 0
}

// boundary returns how many bytes come before the next frame, if that is known.
func (s *h2side) boundary() (n int, known bool) {
	switch {
	case s.lost || s.preface > 0:
		return 0, false
	case s.have == len(s.header):
		return s.left, true
	}
	return 0, s.have == 0
}
