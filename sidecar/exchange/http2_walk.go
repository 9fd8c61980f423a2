package exchange

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

// Frame returns the header of the last frame of a direction, of which the next one's may
// have replaced some, and where the next one starts: after how many bytes that are not
// needed, or before how many that have come, if it is negative. The header is valid
// until more comes.
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

// Repeat takes frames like the last one of a direction, of which nothing but their number
// is needed, and no more than some bytes of them: the last may have no end. Of the first
// some of the header may have come. It returns how many bytes that is.
func (c *Conn) Repeat(d Dir, at int64, frames int, most uint32) uint32 {
	side := &c.h2.sides[d]
	f := side.frame
	size := int64(len(side.header) + f.length)
	n := min(int64(frames)*size-int64(side.have), int64(most))
	if n <= 0 {
		return 0
	}
	c.sides[d].next += uint32(n)
	whole, rest := (n+int64(side.have))/size, int((n+int64(side.have))%size)
	if f.typ == frameData && whole > 0 {
		c.h2.takeContent(d, f, at, whole*int64(f.length))
	}
	if side.have = min(rest, len(side.header)); side.have == len(side.header) {
		c.h2.beginFrame(d, side, Segment{At: at})
		if rest > len(side.header) {
			c.h2.passPayload(d, side, at, rest-len(side.header))
		}
	}
	return uint32(n)
}
