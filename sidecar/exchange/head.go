package exchange

import (
	"bytes"
	"strings"
)

// leadingLines returns how long the empty lines before a message are.
func leadingLines(b []byte) int {
	n := 0
	for n < len(b) && (b[n] == '\r' || b[n] == '\n') {
		n++
	}
	return n
}

// headEnd returns the length of the message head that b starts with, the empty
// line included, or -1 if it is not complete. It accepts lines that end with a
// bare LF (RFC 9112, section 2.2), which the parser then marks. The search
// starts at from.
func headEnd(b []byte, from int) int {
	for i := from; i < len(b); {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n + 1
		switch {
		case i < len(b) && b[i] == '\n':
			return i + 1
		case i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n':
			return i + 2
		}
	}
	return -1
}

// head is what a message head says about the framing of the message.
type head struct {
	ambiguous bool // two readers could disagree about it
	paired    bool // it has as many CRs as LFs and no NUL: none is bare if each LF follows a CR
	protocol  Protocol

	length    int64 // Content-Length, -1 without
	transfer  bool  // there is a Transfer-Encoding
	chunked   bool  // whose last coding, and no other, is chunked
	anyChunks bool  // one of its codings is chunked
}

// parseRequest parses a request head (RFC 9112, section 3) into r. It reports
// whether it is one.
func parseRequest(s string, r *Request, maxFields int) (head, bool) {
	h := newHead(s)
	line, rest := h.line(s)
	method, target, ok := strings.Cut(line, " ")
	at := strings.LastIndexByte(target, ' ')
	if !ok || at < 1 || !h.version(target[at+1:]) || method == "" || len(method) > maxMethod || !isName(method) {
		return h, false
	}
	// Readers that accept more than one space between the parts skip them
	// (RFC 9112, section 3).
	if target = strings.Trim(target[:at], " "); target == "" {
		return h, false
	}
	r.Method, r.Target = method, target
	h.fields(rest, &r.Fields, maxFields)
	switch authority, absolute := authorityOf(r.Target); {
	case absolute:
		r.Host = authority
	case method == "CONNECT":
		r.Host = r.Target
	default:
		r.Host, _ = r.Fields.Get("Host")
	}
	return h, true
}

// authorityOf returns the host and port of an absolute-form target, without
// userinfo.
func authorityOf(target string) (string, bool) {
	if target[0] == '/' {
		return "", false
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return "", false
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return rest[strings.LastIndexByte(rest, '@')+1:], true
}

// parseResponse parses a response head (RFC 9112, section 4) into r. It reports
// whether it is one.
func parseResponse(s string, r *Response, maxFields int) (head, bool) {
	h := newHead(s)
	line, rest := h.line(s)
	version, status, _ := strings.Cut(line, " ")
	if !h.version(version) || len(status) < 3 || len(status) > 3 && status[3] != ' ' {
		return h, false
	}
	r.Status = 0
	for _, c := range []byte(status[:3]) {
		if !isDigit(c) {
			return h, false
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 {
		return h, false
	}
	h.fields(rest, &r.Fields, maxFields)
	return h, true
}

// version takes HTTP-version (RFC 9112, section 2.3). A minor version above 1 is
// to be read as 1.1.
func (h *head) version(s string) bool {
	if len(s) != len("HTTP/1.1") || s[:7] != "HTTP/1." || !isDigit(s[7]) {
		return false
	}
	h.protocol = HTTP11
	if s[7] == '0' {
		h.protocol = HTTP10
	}
	return true
}

// line cuts a line off s. A bare LF or CR, or a NUL, makes the message ambiguous.
func (h *head) line(s string) (line, rest string) {
	n := strings.IndexByte(s, '\n')
	if n < 0 {
		return s, ""
	}
	line, rest = s[:n], s[n+1:]
	if n == 0 || s[n-1] != '\r' {
		h.ambiguous = true
	} else {
		line = line[:n-1]
	}
	if !h.paired && (strings.IndexByte(line, '\r') >= 0 || strings.IndexByte(line, 0) >= 0) {
		h.ambiguous = true
	}
	return line, rest
}

// newHead looks at a whole head at once for what line would else look for in each
// line.
func newHead(s string) head {
	return head{length: -1, paired: strings.Count(s, "\r") == strings.Count(s, "\n") && strings.IndexByte(s, 0) < 0}
}

// fields reads the header section (RFC 9112, section 5).
func (h *head) fields(s string, fields *Fields, limit int) {
	for {
		line, rest := h.line(s)
		if line == "" {
			return
		}
		s = rest
		colon := strings.IndexByte(line, ':')
		if colon <= 0 || !isName(line[:colon]) {
			// A folded line, whitespace before the colon, or no field at all:
			// readers differ in what they make of it.
			h.ambiguous = true
			continue
		}
		name, value := line[:colon], trim(line[colon+1:])
		if len(*fields) < limit {
			*fields = append(*fields, Field{name, value})
		}
		switch {
		case len(name) == len("Content-Length") && equalFold(name, "Content-Length"):
			h.contentLength(value)
		case len(name) == len("Transfer-Encoding") && equalFold(name, "Transfer-Encoding"):
			h.transferEncoding(value)
		}
	}
}

func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !tokens[s[i]] {
			return false
		}
	}
	return true
}

// trim removes optional whitespace (RFC 9110, section 5.6.3).
func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// contentLength reads a Content-Length (RFC 9110, section 8.6). A list of equal
// numbers has one meaning only; different numbers have none.
func (h *head) contentLength(value string) {
	for more := true; more; {
		var one string
		one, value, more = strings.Cut(value, ",")
		n, ok := decimal(trim(one))
		if !ok || h.length >= 0 && h.length != n {
			h.ambiguous = true
			return
		}
		h.length = n
	}
}

func decimal(s string) (int64, bool) {
	const maxDigits = 18
	if s == "" || len(s) > maxDigits {
		return 0, false
	}
	var n int64
	for _, c := range []byte(s) {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// transferEncoding reads a Transfer-Encoding (RFC 9112, section 6.1), of which
// there may be several.
func (h *head) transferEncoding(value string) {
	h.transfer = true
	for more := true; more; {
		var coding string
		coding, value, more = strings.Cut(value, ",")
		if coding = trim(coding); coding == "" {
			continue
		}
		is := len(coding) == len("chunked") && equalFold(coding, "chunked")
		if is && h.anyChunks || !is && !isCoding(coding) {
			h.ambiguous = true // "xchunked", "chunked;x", a control character: some read chunked
		}
		h.chunked = is
		h.anyChunks = h.anyChunks || is
	}
}

// isCoding reports whether s is a transfer coding other than chunked that is, or
// once was, registered (RFC 9112, section 7).
func isCoding(s string) bool {
	for _, known := range [...]string{"gzip", "deflate", "compress", "identity", "x-gzip", "x-compress"} {
		if len(s) == len(known) && equalFold(s, known) {
			return true
		}
	}
	return false
}

// requestBody returns the framing of a request's content (RFC 9112, section 6.3).
func (h *head) requestBody() body {
	switch {
	case h.transfer:
		if !h.chunked || h.length >= 0 || h.protocol == HTTP10 {
			h.ambiguous = true
		}
		return body{framing: byChunks}
	case h.length >= 0:
		return body{framing: byLength, left: h.length}
	}
	return body{}
}

// responseBody returns the framing of a response's content (RFC 9112, section
// 6.3), which depends on the request.
func (h *head) responseBody(method string, status int) body {
	switch {
	case method == "HEAD" || status == 204 || status == 304:
		return body{}
	case h.transfer:
		if h.length >= 0 || h.protocol == HTTP10 || h.anyChunks && !h.chunked {
			h.ambiguous = true
		}
		if h.chunked {
			return body{framing: byChunks}
		}
	case h.length >= 0:
		return body{framing: byLength, left: h.length}
	}
	return body{framing: untilClose}
}
