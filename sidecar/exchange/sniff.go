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
