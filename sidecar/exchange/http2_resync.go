package exchange

// resyncH2 reports whether frames of HTTP/2 certainly start with b, on a connection
// of which nothing is known.
func (c *Conn) resyncH2(d Dir, s Segment, b []byte) bool {
	if !startsFrames(b) {
		return false
	}
	client, found := isClient(b)
	if !found {
		return false
	}
	if !client {
		d, s.Out = d.Opposite(), !s.Out
	}
	c.becomeHTTP(d, s)
	c.setKind(KindHTTP2)
	c.lost = false
	c.h2 = newH2(c)
	for d := range c.h2.sides {
		c.h2.sides[d].fields.forget()
	}
	c.h2.sides[d.Opposite()].lost = client
	c.h2.sides[d].lost = !client
	return true
}

// resync reports whether a frame certainly starts with b.
func (h *h2) resync(side *h2side, s Segment, b []byte) bool {
	const maxTries = 4096
	if side.tries++; side.tries > maxTries {
		h.giveUp(DropGap)
		return false
	}
	if !s.Aligned || !startsFrames(b) {
		return false
	}
	h.c.e.Stats.Resyncs++
	side.lost = false
	return true
}

// startsFrames reports whether b, the data of a segment, is a sequence of frames
// that ends with the segment, or of which at least two are whole.
func startsFrames(b []byte) bool {
	const header = 9
	for n := 0; ; n++ {
		if len(b) == 0 {
			return n > 0
		}
		if len(b) < header {
			return n >= 2
		}
		f := parseFrame(b)
		if b[5]&0x80 != 0 || !f.plausible() {
			return false
		}
		if len(b) < header+f.length {
			return n >= 2
		}
		b = b[header+f.length:]
	}
}

// plausible tells whether a frame has a form that RFC 9113, section 6, allows.
func (f frame) plausible() bool {
	const largest = 1 << 14 // the initial value, which hardly anybody changes
	if f.length > largest {
		return false
	}
	only := func(flags uint8) bool { return f.flags&^flags == 0 }
	switch f.typ {
	case frameData:
		return f.stream != 0 && only(flagEndStream|flagPadded)
	case frameHeaders:
		return f.stream != 0 && f.length > 0 && only(flagEndStream|flagEndHeaders|flagPadded|flagPriority)
	case framePriority:
		return f.stream != 0 && f.length == 5 && only(0)
	case frameRSTStream:
		return f.stream != 0 && f.length == 4 && only(0)
	case frameSettings:
		return f.stream == 0 && f.length%6 == 0 && only(flagAck) && (f.length == 0 || !f.has(flagAck))
	case framePushPromise:
		return f.stream != 0 && f.length > 4 && only(flagEndHeaders|flagPadded)
	case framePing:
		return f.stream == 0 && f.length == 8 && only(flagAck)
	case frameGoAway:
		return f.stream == 0 && f.length >= 8 && only(0)
	case frameWindowUpdate:
		return f.length == 4 && only(0)
	}
	return false
}

// isClient looks for a header block in b, which starts with frames, and tells
// whether it is of a request, or that there is none that says.
func isClient(b []byte) (client, found bool) {
	const header = 9
	for len(b) >= header {
		f := parseFrame(b)
		if len(b) < header+f.length {
			return false, false
		}
		payload := b[header : header+f.length]
		b = b[header+f.length:]
		if f.typ != frameHeaders || !f.has(flagEndHeaders) {
			continue
		}
		block, ok := f.fragment(payload)
		if !ok {
			continue
		}
		var d fieldDecoder
		d.forget()
		decoded := d.decode(block, len(block)*entrySize, func(name, _ string) {
			client = client || name == ":method"
			found = found || name == ":method" || name == ":status"
		})
		if decoded.ok && found {
			return client, true
		}
	}
	return false, false
}
