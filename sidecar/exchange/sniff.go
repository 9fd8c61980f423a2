package exchange

import "bytes"

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" // RFC 9113, section 3.4

// guess is what the first bytes of a direction say.
type guess uint8

const (
	guessMore     guess = iota // too few to tell
	guessRequest               // an HTTP/1 request line
	guessResponse              // an HTTP/1 status line
	guessOther                 // not HTTP/1: see the Kind
)

// sniff looks at the first bytes of a direction. The Kind is set for guessOther.
func sniff(b []byte) (guess, Kind) {
	if len(b) == 0 {
		return guessMore, KindUndecided
	}
	if n := min(len(b), len(http2Preface)); string(b[:n]) == http2Preface[:n] {
		if n == len(http2Preface) {
			return guessOther, KindHTTP2
		}
		return guessMore, KindUndecided
	}
	if len(b) >= 9 && parseFrame(b).typ == frameSettings && parseFrame(b).plausible() {
		return guessMore, KindUndecided // a server of HTTP/2 need not wait for the preface
	}
	switch statusLine(b) {
	case yes:
		return guessResponse, KindUndecided
	case maybe:
		return guessMore, KindUndecided
	}
	switch requestLine(b) {
	case yes:
		return guessRequest, KindUndecided
	case maybe:
		return guessMore, KindUndecided
	}
	return sniffOther(b)
}

type answer uint8

const (
	no answer = iota
	maybe
	yes
)

// statusLine tells whether b starts like an HTTP/1 status line (RFC 9112, section 4).
func statusLine(b []byte) answer {
	const version = "HTTP/1."
	n := min(len(b), len(version))
	switch {
	case string(b[:n]) != version[:n]:
		return no
	case n < len(version):
		return maybe
	}
	return yes
}

const maxMethod = 64 // bytes

// requestLine tells whether b starts with an HTTP/1 request line (RFC 9112,
// section 3): method SP request-target SP "HTTP/1." DIGIT.
func requestLine(b []byte) answer {
	i := 0
	for i < len(b) && i <= maxMethod && isToken(b[i]) {
		i++
	}
	if i == len(b) && i <= maxMethod {
		return maybe
	}
	if i == 0 || i > maxMethod || b[i] != ' ' {
		return no
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return maybe
	}
	line := bytes.TrimSuffix(b[:end], []byte{'\r'})
	at := len(line) - len(" HTTP/1.1")
	if at <= i || !bytes.HasPrefix(line[at:], []byte(" HTTP/1.")) || !isDigit(line[len(line)-1]) {
		return no
	}
	return yes
}

// knownMethod reports whether the method that b starts with, and a space, is one
// of RFC 9110, section 9, RFC 5789 or RFC 4918.
func knownMethod(b []byte) bool {
	n := bytes.IndexByte(b[:min(len(b), maxMethod)], ' ')
	if n < 0 {
		return false
	}
	switch string(b[:n]) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
		"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE":
		return true
	}
	return false
}

// sniffOther names protocols other than HTTP/1 by their first bytes. It needs
// 16 of them at most. Which ask for fewer come first, so that the answer does not
// depend on how many there are.
func sniffOther(b []byte) (guess, Kind) {
	type signature struct {
		kind Kind
		at   int
		text string
	}
	switch {
	case len(b) >= 2 && b[0] == '*' && isDigit(b[1]):
		return guessOther, KindRedis
	case isTLS(b):
		return guessOther, KindTLS
	}
	for _, s := range [...]signature{
		{KindSSH, 0, "SSH-"},
		{KindAMQP, 0, "AMQP"},
		{KindMySQL, 3, "\x00\x0a"},            // the server's greeting, protocol 10
		{KindPostgres, 4, "\x00\x03\x00\x00"}, // startup message, protocol 3.0
		{KindPostgres, 4, "\x04\xd2\x16\x2f"}, // SSLRequest
		{KindMongoDB, 12, "\xdd\x07\x00\x00"}, // OP_MSG
	} {
		if len(b) >= s.at+len(s.text) && string(b[s.at:s.at+len(s.text)]) == s.text {
			return guessOther, s.kind
		}
	}
	if len(b) < 16 {
		return guessMore, KindUndecided
	}
	return guessOther, KindOther
}

// isTLS recognises a handshake record with a ClientHello or ServerHello
// (RFC 8446, sections 4 and 5.1), of which the shortest has 42 bytes.
func isTLS(b []byte) bool {
	return len(b) >= 6 && b[0] == 22 && b[1] == 3 && b[2] <= 4 && (b[3] > 0 || b[4] >= 42) && (b[5] == 1 || b[5] == 2)
}

// tokens is the set of tchar (RFC 9110, section 5.6.2).
var tokens = func() (set [256]bool) {
	for c := range 128 {
		set[c] = isDigit(byte(c)) || 'a' <= c|0x20 && c|0x20 <= 'z' ||
			bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0
	}
	return set
}()

func isToken(c byte) bool { return tokens[c] }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
