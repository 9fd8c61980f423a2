package span

import (
	"strconv"
	"strings"
)

// target is a request-target (RFC 9112, section 3.2) in its parts.
type target struct {
	scheme    string // "http" where the target names none: what is captured is cleartext
	userinfo  string // what url.full shows of userinfo, with "@"; never the userinfo itself
	authority string // host[:port] of absolute-form and authority-form
	path      string
	query     string // without "?"
	hasQuery  bool
	form      form
}

type form uint8

const (
	originForm form = iota
	absoluteForm
	authorityForm
	asteriskForm
	unknownForm // the target was not decoded
)

// parseTarget never fails: a target of no form is taken as a path.
func parseTarget(method, raw string) target {
	t := target{scheme: "http"}
	switch {
	case raw == "":
		t.form = unknownForm
		return t
	case raw == "*":
		t.form, t.path = asteriskForm, raw
		return t
	case strings.HasPrefix(raw, "/"):
		t.setPath(raw)
		return t
	case method == "CONNECT":
		t.form = authorityForm
		t.setAuthority(raw)
		return t
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if ok && isScheme(scheme) {
		t.form, t.scheme = absoluteForm, strings.ToLower(scheme)
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		t.setAuthority(rest[:end])
		t.setPath(rest[end:])
		if t.path == "" { // RFC 9110, section 4.2.3: an empty path is "/"
			t.path = "/"
		}
		return t
	}
	t.setPath(withoutUserinfo(raw))
	return t
}

func (t *target) setPath(s string) {
	s, _, _ = strings.Cut(s, "#")
	t.path, t.query, t.hasQuery = strings.Cut(s, "?")
}

func (t *target) setAuthority(s string) {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		t.userinfo = "REDACTED@"
		if strings.IndexByte(s[:at], ':') >= 0 {
			t.userinfo = "REDACTED:REDACTED@"
		}
		s = s[at+1:]
	}
	t.authority = s
}

// withoutUserinfo removes what may be credentials from a target that is no
// valid URI.
func withoutUserinfo(s string) string {
	end := len(s)
	if i := strings.IndexByte(s, '?'); i >= 0 {
		end = i
	}
	if at := strings.LastIndexByte(s[:end], '@'); at >= 0 {
		return "REDACTED@" + s[at+1:]
	}
	return s
}

// url returns url.full, with auth as its authority: the target URI of RFC 9112,
// section 3.3, without credentials and sensitive values. That of CONNECT is an
// authority and no more, which is written without a scheme.
func (t *target) url(auth string) string {
	switch t.form {
	case authorityForm:
		return "//" + t.userinfo + auth
	case asteriskForm:
		return t.scheme + "://" + auth
	}
	path := t.path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if !t.hasQuery {
		return t.scheme + "://" + t.userinfo + auth + path
	}
	return t.scheme + "://" + t.userinfo + auth + path + "?" + redactQuery(t.query)
}

func isScheme(s string) bool {
	if s == "" || len(s) > 32 || !isAlpha(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlpha(c) && !isDigit(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// parseAuthority splits host[:port] (RFC 3986, section 3.2, without userinfo).
// The host comes without the brackets of an IP literal, the port is 0 if there
// is none.
func parseAuthority(s string) (host string, port uint16, ok bool) {
	host, rest, ok := splitHost(s)
	if !ok {
		return "", 0, false
	}
	if len(rest) <= 1 { // none, or a colon alone
		return host, 0, true
	}
	p, err := strconv.ParseUint(rest[1:], 10, 16)
	if err != nil || p == 0 || !isDigit(rest[1]) {
		return "", 0, false
	}
	return host, uint16(p), true
}

// splitHost splits a host from what follows: a colon and more, or nothing.
func splitHost(s string) (host, rest string, ok bool) {
	if literal, inBrackets := strings.CutPrefix(s, "["); inBrackets {
		host, rest, ok = strings.Cut(literal, "]")
		return host, rest, ok && isIPLiteral(host) && (rest == "" || rest[0] == ':')
	}
	host = s
	if i := strings.IndexByte(s, ':'); i >= 0 {
		host, rest = s[:i], s[i:]
	}
	return host, rest, isRegName(host)
}

// isRegName reports whether s is a host name or an IPv4 address.
func isRegName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isAlpha(c) && !isDigit(c) && strings.IndexByte("-._~%!$&'()*+,;=", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isIPLiteral reports whether s may stand between brackets: an IPv6 address,
// perhaps with a zone, or a future one.
func isIPLiteral(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isAlpha(c) && !isDigit(c) && strings.IndexByte(":.%-_~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// defaultPort returns the port of a scheme: 443 for https, else that of http.
func defaultPort(scheme string) uint16 {
	if scheme == "https" || scheme == "wss" {
		return 443
	}
	return 80
}

// knownScheme returns the scheme as metrics have it: clients can put anything
// into a target.
func knownScheme(s string) string {
	for _, known := range [...]string{"http", "https", "ws", "wss"} {
		if s == known {
			return known // not s, which lasts only as long as the exchange
		}
	}
	return "_OTHER"
}
