package exchange

import "math"

// body follows the content of a message by its framing (RFC 9112, section 6).
// It keeps none of it.
type body struct {
	framing framing
	chunk   chunkState
	left    int64 // bytes of the content, or of the chunk, still to come
	size    int64 // bytes of content seen
	digits  uint8 // of the chunk size
	tail    tail  // while adrift
	line    int   // bytes of the chunk size line, or of the trailer section
}

type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	untilClose
	adrift // chunks of which bytes are missing; see drift
)

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkSpace
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerName
	trailerValue
	trailerLF
	trailersEndLF
)

type bodyState uint8

const (
	bodyMore bodyState = iota
	bodyDone
	bodyBad // the framing is broken, or two readers could disagree
)

// empty reports that there is nothing to come from the start.
func (b *body) empty() bool {
	return b.framing == noBody || b.framing == byLength && b.left == 0
}

// skippable is how many of the bytes to come are not needed. The last byte of
// a body of known length is: it ends the message.
func (b *body) skippable() int64 {
	switch b.framing {
	case byLength:
		return max(b.left-1, 0)
	case byChunks:
		if b.chunk == chunkData {
			return b.left
		}
	case untilClose:
		return math.MaxInt64
	}
	return 0
}

// skip passes over n bytes, at most skippable.
func (b *body) skip(n int64) {
	b.size += n
	if b.framing == untilClose {
		return
	}
	b.left -= n
	if b.framing == byChunks && b.left == 0 {
		b.chunk = chunkDataCR
	}
}

// pass is skip for bytes of which the length is known to have been sent: the last
// byte of a body of known length may be among them. It reports whether they are
// all content.
func (b *body) pass(n int64) bool {
	if b.framing == adrift {
		b.tail = tail{}
		return true
	}
	if n > b.skippable() && (b.framing != byLength || n > b.left) {
		return false
	}
	b.skip(n)
	return true
}

// consume reads from p and returns how many bytes belong to the body.
func (b *body) consume(p []byte) (int, bodyState) {
	switch b.framing {
	case byLength:
		n := int(min(b.left, int64(len(p))))
		b.left -= int64(n)
		b.size += int64(n)
		if b.left == 0 {
			return n, bodyDone
		}
		return n, bodyMore
	case byChunks:
		return b.consumeChunks(p)
	case untilClose:
		b.size += int64(len(p))
		return len(p), bodyMore
	case adrift:
		b.tail.add(p)
		return len(p), bodyMore
	}
	return 0, bodyDone
}

// consumeChunks reads the chunked transfer coding (RFC 9112, section 7.1).
func (b *body) consumeChunks(p []byte) (int, bodyState) {
	for i := 0; i < len(p); {
		if b.chunk == chunkData {
			n := int(min(b.left, int64(len(p)-i)))
			b.left -= int64(n)
			b.size += int64(n)
			i += n
			if b.left == 0 {
				b.chunk = chunkDataCR
			}
			continue
		}
		state := b.chunkByte(p[i])
		i++
		if state != bodyMore {
			return i, state
		}
	}
	return len(p), bodyMore
}

// chunkByte takes a byte of the framing between chunks.
func (b *body) chunkByte(c byte) bodyState {
	const maxLine = 64 << 10
	if b.line++; b.line > maxLine {
		return bodyBad
	}
	switch b.chunk {
	case chunkSize, chunkSpace, chunkExtension:
		return b.sizeByte(c)
	case chunkSizeLF:
		return b.sizeEnd(c)
	case chunkDataCR:
		return b.expect(c, '\r', chunkDataLF)
	case chunkDataLF:
		b.digits, b.left, b.line = 0, 0, 0
		return b.expect(c, '\n', chunkSize)
	case trailerStart:
		if c == '\r' {
			b.chunk = trailersEndLF
			return bodyMore
		}
		b.chunk = trailerName
		return nameByte(c)
	case trailerName:
		if c != ':' {
			return nameByte(c)
		}
		b.chunk = trailerValue
		return bodyMore
	case trailerValue:
		if c == '\n' || c == 0 {
			return bodyBad
		}
		if c == '\r' {
			b.chunk = trailerLF
		}
		return bodyMore
	case trailerLF:
		return b.expect(c, '\n', trailerStart)
	case trailersEndLF:
		if c == '\n' {
			return bodyDone
		}
	}
	return bodyBad
}

func (b *body) expect(c, want byte, next chunkState) bodyState {
	if c != want {
		return bodyBad
	}
	b.chunk = next
	return bodyMore
}

// nameByte takes a byte of the name of a trailer field (RFC 9110, section 5.1).
func nameByte(c byte) bodyState {
	if !isToken(c) {
		return bodyBad
	}
	return bodyMore
}

// sizeByte takes a byte of a chunk size line. Spaces after the size are what
// some servers pad it with; every reader knows them.
func (b *body) sizeByte(c byte) bodyState {
	if c == '\r' && b.digits > 0 {
		b.chunk = chunkSizeLF
		return bodyMore
	}
	switch b.chunk {
	case chunkSize:
		if v, ok := hexDigit(c); ok {
			const maxDigits = 15 // keeps the size below 2^60
			b.left = b.left<<4 | int64(v)
			if b.digits++; b.digits > maxDigits {
				return bodyBad
			}
			return bodyMore
		}
		fallthrough
	case chunkSpace:
		if b.digits == 0 {
			return bodyBad
		}
		switch c {
		case ' ', '\t':
			b.chunk = chunkSpace
			return bodyMore
		case ';':
			b.chunk = chunkExtension
			return bodyMore
		}
		return bodyBad
	}
	if c == '\n' || c == 0 {
		return bodyBad
	}
	return bodyMore
}

func (b *body) sizeEnd(c byte) bodyState {
	if c != '\n' {
		return bodyBad
	}
	b.line = 0
	if b.left == 0 {
		b.chunk = trailerStart
	} else {
		b.chunk = chunkData
	}
	return bodyMore
}

func hexDigit(c byte) (uint8, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
