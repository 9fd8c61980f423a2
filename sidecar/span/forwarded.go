package span

import (
	"net/netip"
	"strings"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// forwarded is what proxies said of the request as its first client sent it.
type forwarded struct {
	client netip.AddrPort // port 0 if it was not said; not valid if no address was
	host   string         // host[:port]
	proto  string         // "http" or "https"
}

// forwardedBy reads Forwarded (RFC 7239) and, for what it does not say, the
// X-Forwarded-* fields. Each names the first client first.
func forwardedBy(fields exchange.Fields) (f forwarded) {
	var xFor, xHost, xProto string
	for i := range fields {
		name, value := fields[i].Name, fields[i].Value
		switch {
		case len(name) < len("Forwarded") || len(name) > len("X-Forwarded-Proto"):
		case equalFold(name, "Forwarded"):
			f.readElement(value)
		case xFor == "" && equalFold(name, "X-Forwarded-For"):
			xFor = firstOf(value)
		case xHost == "" && equalFold(name, "X-Forwarded-Host"):
			xHost = firstOf(value)
		case xProto == "" && equalFold(name, "X-Forwarded-Proto"):
			xProto = firstOf(value)
		}
	}
	if !f.client.Addr().IsValid() {
		f.client = parseNode(xFor)
	}
	if f.host == "" {
		f.host = xHost
	}
	if f.proto == "" {
		f.proto = knownProto(xProto)
	}
	return f
}

// readElement reads the first forwarded-element of a Forwarded field, unless an
// earlier field line had one.
func (f *forwarded) readElement(s string) {
	if f.client.IsValid() || f.host != "" || f.proto != "" {
		return
	}
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return
		}
		value, after, end := pairValue(rest)
		switch name = strings.TrimSpace(name); {
		case equalFold(name, "for"):
			f.client = parseNode(value)
		case equalFold(name, "host"):
			f.host = value
		case equalFold(name, "proto"):
			f.proto = knownProto(value)
		}
		if end {
			return
		}
		s = after
	}
}

// pairValue reads a token or quoted-string up to ";" and tells whether the
// element ends there. The quoted values of these parameters hold no escapes.
func pairValue(s string) (value, after string, end bool) {
	if strings.HasPrefix(s, `"`) {
		quote := strings.IndexByte(s[1:], '"')
		if quote < 0 {
			return "", "", true
		}
		value, s = s[1:1+quote], s[quote+2:]
	}
	i := strings.IndexAny(s, ";,")
	if i < 0 {
		i = len(s)
	}
	if value == "" {
		value = strings.TrimSpace(s[:i])
	}
	if i == len(s) || s[i] == ',' {
		return value, "", true
	}
	return value, s[i+1:], false
}

// parseNode reads the address of a client: an IP address, perhaps with a port;
// "unknown" and obfuscated identifiers (RFC 7239, section 6) give none.
func parseNode(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a.WithZone(""), 0)
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(ap.Addr().WithZone(""), ap.Port())
	}
	return netip.AddrPort{}
}

func firstOf(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(first)
}

func knownProto(s string) string {
	switch {
	case equalFold(s, "https"):
		return "https"
	case equalFold(s, "http"):
		return "http"
	}
	return ""
}
