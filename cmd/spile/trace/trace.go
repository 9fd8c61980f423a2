// Package trace puts HTTP spans together to traces, and draws a trace as a tree
// with a bar of time for each span.
package trace

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// ID of a trace (W3C Trace Context).
type ID = pcommon.TraceID

// Span is what is shown of a span.
type Span struct {
	Trace      ID
	ID, Parent pcommon.SpanID
	Service    string
	Client     bool // kind CLIENT, else SERVER
	Start, End time.Time
	Method     string // "gRPC" of a call
	Path       string // with the query, if it has one; of a call, service and method
	Status     int    // HTTP status code, 0 if there was no response
	Call       string // status code of a gRPC call, by name; "" of others
	Error      string // error.type, "" if there is none
	// Local and Peer are the ends of the connection, invalid if not known.
	Local, Peer netip.AddrPort
	PeerName    string // of a CLIENT span: the server's name
}

// Spans returns the SERVER and CLIENT spans of an OTLP request.
func Spans(td ptrace.Traces) []Span {
	var spans []Span
	for _, rs := range td.ResourceSpans().All() {
		service := str(rs.Resource().Attributes(), "service.name")
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				if s.Kind() == ptrace.SpanKindServer || s.Kind() == ptrace.SpanKindClient {
					spans = append(spans, newSpan(service, s))
				}
			}
		}
	}
	return spans
}

// newSpan reads the attributes of the semantic conventions for HTTP and RPC.
func newSpan(service string, s ptrace.Span) Span {
	a := s.Attributes()
	span := Span{
		Trace:    s.TraceID(),
		ID:       s.SpanID(),
		Parent:   s.ParentSpanID(),
		Service:  service,
		Client:   s.Kind() == ptrace.SpanKindClient,
		Start:    s.StartTimestamp().AsTime(),
		End:      s.EndTimestamp().AsTime(),
		Method:   method(a),
		Path:     path(a),
		Status:   int(num(a, "http.response.status_code")),
		Error:    str(a, "error.type"),
		Local:    addrPort(a, "network.local."),
		Peer:     addrPort(a, "network.peer."),
		PeerName: str(a, "server.address"),
	}
	if str(a, "rpc.system.name") != "" {
		span.Method, span.Path = "gRPC", str(a, "rpc.method")
		span.Call = str(a, "rpc.response.status_code")
	}
	return span
}

func method(a pcommon.Map) string {
	if original := str(a, "http.request.method_original"); original != "" {
		return original
	}
	return str(a, "http.request.method")
}

// path has the path of a SERVER span, or cuts it out of the URL of a CLIENT span.
func path(a pcommon.Map) string {
	p := str(a, "url.path")
	if full := str(a, "url.full"); p == "" && full != "" {
		_, p, _ = strings.Cut(full, "://")
		i := strings.IndexAny(p, "/?")
		if i < 0 {
			return "/"
		}
		return p[i:]
	}
	if q := str(a, "url.query"); q != "" {
		p += "?" + q
	}
	return p
}

func addrPort(a pcommon.Map, prefix string) netip.AddrPort {
	addr, err := netip.ParseAddr(str(a, prefix+"address"))
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(num(a, prefix+"port")))
}

func str(a pcommon.Map, key string) string {
	if v, ok := a.Get(key); ok {
		return v.AsString()
	}
	return ""
}

func num(a pcommon.Map, key string) int64 {
	if v, ok := a.Get(key); ok {
		return v.Int()
	}
	return 0
}

// Node is a span and those below it, in the order of their start.
type Node struct {
	Span
	Children []*Node
	parent   *Node
}

// Tree is a trace, nested.
type Tree struct {
	Roots []*Node // more than one if no evidence joins them
	Spans int
}

// Nest makes a tree of the spans of one trace. A span is put below its parent
// if that is in the trace. Services that only pass a trace context on give all
// their spans the same remote parent; there the nesting is inferred:
//
//   - a SERVER span belongs below the CLIENT span of the other end of the same
//     connection,
//   - a CLIENT span belongs below the SERVER span of the same service,
//
// during which it started.
func Nest(spans []Span) Tree {
	nodes := make([]*Node, len(spans))
	byID := make(map[pcommon.SpanID]*Node, len(spans))
	for i, s := range spans {
		nodes[i] = &Node{Span: s}
		byID[s.ID] = nodes[i]
	}
	slices.SortStableFunc(nodes, func(a, b *Node) int { return a.Start.Compare(b.Start) })
	t := Tree{Spans: len(spans)}
	for _, n := range nodes {
		parent := byID[n.Parent]
		if parent == nil {
			parent = infer(n, nodes)
		}
		if parent == nil || parent.within(n) {
			t.Roots = append(t.Roots, n)
			continue
		}
		n.parent = parent
		parent.Children = append(parent.Children, n)
	}
	return t
}

// infer returns the latest started of the spans that can have caused n.
func infer(n *Node, nodes []*Node) *Node {
	var best *Node
	for _, p := range nodes {
		if p == n || p.Client == n.Client || n.Start.Before(p.Start) || n.Start.After(p.End) {
			continue
		}
		if n.Client && p.Service != n.Service || !n.Client && !sameConnection(n, p) {
			continue
		}
		if best == nil || p.Start.After(best.Start) {
			best = p
		}
	}
	return best
}

// sameConnection tells whether a SERVER and a CLIENT span are of the two ends
// of one connection, as far as their ends are known.
func sameConnection(server, client *Node) bool {
	if server.Local.IsValid() && client.Local.IsValid() {
		return server.Local == client.Peer && server.Peer == client.Local
	}
	return client.Peer.IsValid() && client.PeerName == server.Service
}

// within tells whether the node is the other one, or below it.
func (n *Node) within(above *Node) bool {
	for ; n != nil; n = n.parent {
		if n == above {
			return true
		}
	}
	return false
}

// Whole tells whether nothing is known to be missing: there is one root, a
// SERVER span, and every request that was sent was received.
func (t Tree) Whole() bool {
	return len(t.Roots) == 1 && !t.Roots[0].Client && whole(t.Roots[0])
}

func whole(n *Node) bool {
	return (!n.Client || len(n.Children) > 0) && !slices.ContainsFunc(n.Children, func(c *Node) bool { return !whole(c) })
}
