package span

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// clean makes a string from the wire fit for an attribute: valid UTF-8 (OTLP
// strings are proto3 strings) of bounded length.
func (b *Builder) clean(s string) string {
	if limit := b.cfg.ValueLengthLimit; len(s) > limit {
		s = firstChars(s, limit)
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return s
}

// firstChars returns the first n characters of s; an invalid byte counts as one.
func firstChars(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// equalFold reports whether two field names are the same (RFC 9110, section
// 5.1): ASCII without regard to case.
func equalFold(a, b string) bool {
	return len(a) == len(b) && strings.EqualFold(a, b)
}

// maxAddrs bounds the cache of addresses as text.
const maxAddrs = 1024

// addr returns an address as text. Few addresses make up most of a pod's
// traffic, so the texts are kept.
func (b *Builder) addr(a netip.Addr) string {
	a = a.Unmap()
	if s, ok := b.addrs[a]; ok {
		return s
	}
	if len(b.addrs) >= maxAddrs {
		clear(b.addrs)
	}
	s := a.String()
	b.addrs[a] = s
	return s
}
