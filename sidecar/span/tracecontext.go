package span

import (
	"strings"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// The trace flags of W3C Trace Context, level 2.
const (
	flagSampled = 1 << 0
	flagRandom  = 1 << 1
)

// traceContext is the parent that a request names.
type traceContext struct {
	traceID [16]byte
	spanID  [8]byte
	flags   byte
	state   string

	decision decision
}

// extractW3C reads traceparent and tracestate (https://www.w3.org/TR/trace-context-2/).
// It is parsed here and not by otel/propagation, which allocates; a fuzz test
// holds the two against each other.
func extractW3C(fields exchange.Fields) (tc traceContext, ok bool) {
	var parent, state string
	parents := 0
	for i := range fields {
		switch name := fields[i].Name; {
		case equalFold(name, "traceparent"):
			parent = fields[i].Value
			parents++
		case equalFold(name, "tracestate"):
			if state != "" {
				state += ","
			}
			state += fields[i].Value
		}
	}
	if parents != 1 || !tc.parseParent(parent) {
		return traceContext{}, false
	}
	if validState(state) {
		tc.state = state
	}
	return tc, true
}

// parseParent parses version "-" trace-id "-" parent-id "-" trace-flags. A
// higher version may say more after that; reserved flags are ignored.
func (tc *traceContext) parseParent(s string) bool {
	const length = 55
	var version, flags [1]byte
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' ||
		!decodeHex(version[:], s[:2]) || version[0] == 0xff ||
		!decodeHex(tc.traceID[:], s[3:35]) || !decodeHex(tc.spanID[:], s[36:52]) ||
		!decodeHex(flags[:], s[53:55]) {
		return false
	}
	if len(s) > length && (version[0] == 0 || s[length] != '-') {
		return false
	}
	tc.flags, tc.decision = flags[0]&(flagSampled|flagRandom), notSampled
	if tc.flags&flagSampled != 0 {
		tc.decision = sampled
	}
	return tc.traceID != [16]byte{} && tc.spanID != [8]byte{}
}

// decodeHex decodes lower-case hexadecimal; len(s) is 2*len(dst).
func decodeHex(dst []byte, s string) bool {
	for i := range dst {
		hi, lo := hexDigit(s[2*i]), hexDigit(s[2*i+1])
		if hi|lo > 0xf {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// maxStateMembers is the most that a tracestate may list.
const maxStateMembers = 32

// validState reports whether s is a tracestate list; one that is not is
// dropped whole, and the parent kept.
func validState(s string) bool {
	var keys [maxStateMembers]string
	n := 0
	for more := true; more; {
		var member string
		member, s, more = strings.Cut(s, ",")
		if member == "" { // empty members are allowed
			continue
		}
		key, value, ok := strings.Cut(strings.Trim(member, " \t"), "=")
		if !ok || n == maxStateMembers || !validStateKey(key) || !validStateValue(value) {
			return false
		}
		for _, k := range keys[:n] {
			if k == key {
				return false
			}
		}
		keys[n] = key
		n++
	}
	return true
}

func validStateKey(s string) bool {
	if s == "" || len(s) > 256 || !isLower(s[0]) && !isDigit(s[0]) {
		return false
	}
	tenant, system, multi := strings.Cut(s, "@")
	if multi && (len(tenant) > 241 || system == "" || len(system) > 14 || !isLower(system[0])) ||
		!multi && !isLower(s[0]) {
		return false
	}
	return isStateKey(tenant) && isStateKey(system)
}

func isStateKey(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isLower(c) && !isDigit(c) && strings.IndexByte("_-*/", c) < 0 {
			return false
		}
	}
	return true
}

func validStateValue(s string) bool {
	if s == "" || len(s) > 256 || s[len(s)-1] == ' ' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
