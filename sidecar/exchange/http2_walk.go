package exchange

// FrameHeader is how long the header of a frame is, in bytes (RFC 9113, section 4.1).
const FrameHeader = 9

// Frames tells of the frames of a direction whether there are any.
type Frames uint8

const (
	NoFrames        Frames = iota // it is not of HTTP/2
	LostFrames                    // no boundary between them is known
	UnsettledFrames               // the next boundary is not known yet
	KnownFrames                   // it is
)

// HasFrames reports whether the boundaries between the frames of a direction are
// known.
func (c *Conn) HasFrames(d Dir) bool { return c.h2 != nil && !c.h2.sides[d].lost }

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

// Frame returns the header of the last frame of a direction, or what of the next one's
// has come and the rest of that, and after how many bytes, which are not needed, the
// next one starts; before how many, if it is negative. It is valid until more comes.
func (c *Conn) Frame(d Dir) (header []byte, next int, ok bool) {
	if c.h2 == nil {
		return nil, 0, false
	}
	switch side := &c.h2.sides[d]; {
	case side.lost || side.preface > 0:
		return nil, 0, false
	case side.have < len(side.header):
		return side.header[:], -side.have, true
	default:
		return side.header[:], side.left, side.passes()
	}
}

// Repeat takes the next n bytes of a direction, which are of frames like the last one,
// of which nothing but their number is needed. Of the first some of the header may have
// come, the last may have no end.
func (c *Conn) Repeat(d Dir, at int64, n uint32) {
	c.sides[d].next += n
	side := &c.h2.sides[d]
	f := side.frame
	n += uint32(side.have)
	size := uint32(len(side.header) + f.length)
	if frames := n / size; f.typ == frameData && frames > 0 {
		c.h2.takeContent(d, f, at, int64(frames)*int64(f.length))
	}
	rest := int(n % size)
	if side.have = min(rest, len(side.header)); side.have < len(side.header) {
		return
	}
	c.h2.beginFrame(d, side, Segment{At: at})
	if rest -= len(side.header); rest > 0 {
		c.h2.passPayload(d, side, at, rest)
	}
}
