package exchange

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Unseen is a kind of connection that is not followed, and whose it is. The zero
// Server stands for those that exceed the bound of a Census.
type Unseen struct {
	Kind   Kind
	Server netip.AddrPort
	Name   string // the server's, as the client gave it by TLS (RFC 6066, section 3); may be ""
}

// String returns the kind and the server: "tls example.com 192.0.2.1:443".
func (u Unseen) String() string {
	switch {
	case !u.Server.IsValid():
		return u.Kind.String() + " elsewhere"
	case u.Name != "":
		return u.Kind.String() + " " + u.Name + " " + u.Server.String()
	}
	return u.Kind.String() + " " + u.Server.String()
}

// Census counts connections that are not followed, of up to 256 servers.
type Census struct{ counts map[Unseen]uint64 }

func (c *Census) add(u Unseen) {
	const maxServers = 256
	if c.counts == nil {
		c.counts = make(map[Unseen]uint64)
	}
	if _, ok := c.counts[u]; !ok && len(c.counts) >= maxServers {
		u.Server, u.Name = netip.AddrPort{}, ""
	}
	c.counts[u]++
}

// UnseenCount is how many connections of a kind a server has.
type UnseenCount struct {
	Unseen
	N uint64
}

// Counts returns what was counted, the most first.
func (c *Census) Counts() []UnseenCount {
	all := make([]UnseenCount, 0, len(c.counts))
	for u, n := range c.counts {
		all = append(all, UnseenCount{u, n})
	}
	slices.SortFunc(all, func(a, b UnseenCount) int {
		return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Kind, b.Kind), a.Server.Compare(b.Server), strings.Compare(a.Name, b.Name))
	})
	return all
}

// OpenedBy tells that the sender of a direction opened the connection.
func (c *Conn) OpenedBy(d Dir) { c.opener, c.opened = d, true }

// server returns the end that is, or most likely is, the server: of a connection
// whose opening was not seen, that with the lower port.
func (c *Conn) server() netip.AddrPort {
	switch {
	case c.kind == KindHTTP1 || c.kind == KindHTTP2:
		return c.ends[c.client.Opposite()]
	case c.opened:
		return c.ends[c.opener.Opposite()]
	case c.ends[0].Port() < c.ends[1].Port():
		return c.ends[0]
	}
	return c.ends[1]
}
