package span

import (
	"errors"
	"fmt"
	"strings"
)

// Pattern matches paths segment by segment: "/users/{id}" has a parameter,
// which matches one segment that is not empty, "/static/*" a tail, which
// matches whatever follows. All else matches itself, percent-encoding included.
type Pattern struct {
	text     string
	segments []string
	tail     bool
}

// ParsePattern parses a pattern.
func ParsePattern(s string) (Pattern, error) {
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return Pattern{}, errors.New(`a pattern begins with "/"`)
	}
	if strings.ContainsAny(s, "?# \t") {
		return Pattern{}, errors.New("a pattern is a path, without query, fragment or space")
	}
	p := Pattern{text: s}
	p.segments = strings.Split(rest, "/")
	if last := len(p.segments) - 1; p.segments[last] == "*" {
		p.segments, p.tail = p.segments[:last], true
	}
	for _, seg := range p.segments {
		if isParameter(seg) {
			continue
		}
		if strings.ContainsAny(seg, "{}*") {
			return Pattern{}, fmt.Errorf(`segment %q: {name} is a whole segment, "*" the last one`, seg)
		}
	}
	return p, nil
}

func isParameter(seg string) bool {
	n := len(seg)
	return n > 2 && seg[0] == '{' && seg[n-1] == '}' && !strings.ContainsAny(seg[1:n-1], "{}*")
}

// Match reports whether the pattern matches the whole path.
func (p *Pattern) Match(path string) bool {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return false
	}
	more := true
	for _, seg := range p.segments {
		if !more {
			return false
		}
		var got string
		got, rest, more = strings.Cut(rest, "/")
		if seg != got && (got == "" || !isParameter(seg)) {
			return false
		}
	}
	return more == p.tail
}

func (p Pattern) String() string { return p.text }

// MarshalText returns the pattern as it was written.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.text), nil }
