package exchange

import "strings"

// serverName returns the name of the server that a TLS client asks for (RFC 6066,
// section 3), "" if it names none, and false if b, from the first record on, holds
// too little of its ClientHello to tell.
func serverName(b []byte) (name string, ok bool) {
	const (
		header = 4  // of a handshake message
		fixed  = 34 // version and random
	)
	hello, whole := handshake(b)
	if len(hello) < header {
		return "", whole
	}
	if hello[0] != 1 {
		return "", true
	}
	r := cursor{b: hello[header:]}
	r.skip(fixed)
	r.vector(1) // legacy_session_id
	r.vector(2) // cipher_suites
	r.vector(1) // legacy_compression_methods
	r.number(2) // the length of all extensions
	for !r.short {
		kind, value := r.number(2), r.vector(2)
		if !r.short && kind == 0 {
			return hostName(value), true
		}
		if len(r.b) == 0 && whole {
			return "", true
		}
	}
	return "", whole
}

// handshake returns the first handshake message of TLS records (RFC 8446,
// sections 4 and 5.1), over which it may be spread, as far as it is there, and
// whether more of it will not help.
func handshake(b []byte) (message []byte, whole bool) {
	const (
		header      = 5
		maxFragment = 1 << 14
	)
	for len(b) >= header {
		n := int(b[3])<<8 | int(b[4])
		if b[0] != 22 || n == 0 || n > maxFragment {
			return message, true
		}
		fragment := b[header:min(header+n, len(b))]
		if message == nil {
			message = fragment[:len(fragment):len(fragment)]
		} else {
			message = append(message, fragment...)
		}
		if len(message) >= 4 {
			if n := 4 + int(message[1])<<16 + int(message[2])<<8 + int(message[3]); len(message) >= n {
				return message[:n], true
			}
		}
		b = b[min(header+n, len(b)):]
	}
	return message, false
}

// hostName reads a ServerNameList. What is not a host name is hostile, or of no use.
func hostName(list []byte) string {
	const maxName = 253 // RFC 1035, section 2.3.4
	r := cursor{b: list}
	r.number(2)
	kind, name := r.number(1), r.vector(2)
	if r.short || kind != 0 || len(name) == 0 || len(name) > maxName {
		return ""
	}
	for _, c := range name {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '.' && c != '_' {
			return ""
		}
	}
	return strings.ToLower(string(name))
}

// cursor reads the presentation language of TLS (RFC 8446, section 3). Once there
// is too little it is short, and what it reads is empty.
type cursor struct {
	b     []byte
	short bool
}

func (r *cursor) skip(n int) []byte {
	if r.short = r.short || n > len(r.b); r.short {
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *cursor) number(bytes int) (n int) {
	for _, c := range r.skip(bytes) {
		n = n<<8 | int(c)
	}
	return n
}

// vector reads one of variable length, which takes so many bytes.
func (r *cursor) vector(bytes int) []byte { return r.skip(r.number(bytes)) }
