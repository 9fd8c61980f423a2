package trace

import (
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/cmd/spile/tty"
	"github.com/spile-dev/spile/internal/golden"
)

var base = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

// addrs of the services of the tests.
var addrs = map[string]netip.Addr{
	"shopper": netip.MustParseAddr("10.244.0.9"),
	"ingress": netip.MustParseAddr("10.244.0.10"),
	"cart":    netip.MustParseAddr("10.244.0.11"),
	"pricing": netip.MustParseAddr("10.244.0.12"),
}

// hop makes the SERVER span of a request and, unless the sender is the shopper,
// its CLIENT span; times are in µs. Both have the remote parent ff….
func hop(from, to string, port uint16, start, end int, request string, status int) []Span {
	method, path, _ := strings.Cut(request, " ")
	client, server := netip.AddrPortFrom(addrs[from], port), netip.AddrPortFrom(addrs[to], 8080)
	at := func(us int) time.Time { return base.Add(time.Duration(us) * time.Microsecond) }
	s := Span{
		Trace: ID{15: 1}, ID: newID(to, port, start), Parent: pcommon.SpanID{0xff},
		Service: to, Start: at(start + 20), End: at(end - 20),
		Method: method, Path: path, Status: status, Local: server, Peer: client,
	}
	if from == "shopper" {
		return []Span{s}
	}
	c := s
	c.ID, c.Client, c.Service, c.PeerName = newID(from, port, start), true, from, to
	c.Start, c.End, c.Local, c.Peer = at(start), at(end), client, server
	return []Span{c, s}
}

func newID(service string, port uint16, start int) pcommon.SpanID {
	return pcommon.SpanID{service[0], service[1], byte(port >> 8), byte(port), byte(start >> 16), byte(start >> 8), byte(start), 1}
}

func join(hops ...[]Span) (spans []Span) {
	for _, h := range hops {
		spans = append(spans, h...)
	}
	return spans
}

// cartTrace is a request through all services; the last two requests to pricing
// are on another connection each, and overlap.
func cartTrace() []Span {
	return join(
		hop("shopper", "ingress", 4000, 0, 20_000, "GET /cart/items", 200),
		hop("ingress", "cart", 5000, 1_000, 19_000, "GET /items", 200),
		hop("cart", "pricing", 6000, 2_000, 6_000, "GET /prices/spile", 200),
		hop("cart", "pricing", 6000, 7_000, 16_000, "GET /prices/sap-bucket", 404),
		hop("cart", "pricing", 6001, 7_100, 18_000, "POST /quotes", 500),
	)
}

func TestDraw(t *testing.T) {
	hostile := hop("shopper", "ingress", 4000, 0, 900, "G\x1b[2JT /\x1b]0;x\x07"+strings.Repeat("long/", 40), 0)
	byParent := cartTrace()[:3]
	byParent[1].Parent, byParent[2].Parent = byParent[0].ID, byParent[1].ID
	for i := range byParent {
		byParent[i].Local, byParent[i].Peer = netip.AddrPort{}, netip.AddrPort{}
	}
	noConnection := cartTrace()
	for i := range noConnection {
		noConnection[i].Local = netip.AddrPort{}
	}
	for _, c := range []struct {
		name  string
		spans []Span
		width int
		whole bool
	}{
		{"cart", cartTrace(), 100, true},
		{"by-parent-id", byParent, 100, true},
		{"without-local-address", noConnection[:5], 100, true},
		{"server-missing", cartTrace()[:2], 100, false},
		{"client-missing", join(cartTrace()[:1], cartTrace()[2:5]), 100, false},
		{"hostile", hostile, 100, true},
		{"narrow", cartTrace(), 60, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := Nest(c.spans)
			var out strings.Builder
			if err := Draw(&out, tree, c.width, tty.Palette{}); err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, filepath.Join("testdata", c.name+".golden"), out.String())
			for line := range strings.Lines(out.String()) {
				if n := columns(strings.TrimRight(line, "\n")); c.width == 100 && n > c.width {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if tree.Whole() != c.whole {
				t.Errorf("whole is %t, want %t", tree.Whole(), c.whole)
			}
		})
	}
}

// TestNestAnyOrder checks that the order in which spans arrive does not matter.
func TestNestAnyOrder(t *testing.T) {
	draw := func(spans []Span) string {
		var out strings.Builder
		if err := Draw(&out, Nest(spans), 100, tty.Palette{}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	want := draw(cartTrace())
	for range 50 {
		spans := cartTrace()
		rand.Shuffle(len(spans), func(i, j int) { spans[i], spans[j] = spans[j], spans[i] })
		if diff := cmp.Diff(want, draw(spans)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// TestNestCycle checks that spans that name each other as parents end nowhere.
func TestNestCycle(t *testing.T) {
	spans := cartTrace()[:3]
	spans[0].Parent, spans[1].Parent, spans[2].Parent = spans[2].ID, spans[0].ID, spans[2].ID
	tree, count := Nest(spans), 0
	var walk func(n *Node)
	walk = func(n *Node) {
		count++
		for _, c := range n.Children {
			walk(c)
		}
	}
	for _, n := range tree.Roots {
		walk(n)
	}
	if count != len(spans) {
		t.Errorf("%d of %d spans are in the tree", count, len(spans))
	}
}

func TestSpans(t *testing.T) {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr("service.name", "ingress")
	spans := rs.ScopeSpans().AppendEmpty().Spans()
	add := func(kind ptrace.SpanKind, attrs map[string]any) {
		s := spans.AppendEmpty()
		s.SetKind(kind)
		s.SetTraceID(ID{1})
		s.SetSpanID(pcommon.SpanID{2})
		s.SetParentSpanID(pcommon.SpanID{3})
		s.SetStartTimestamp(pcommon.NewTimestampFromTime(base))
		s.SetEndTimestamp(pcommon.NewTimestampFromTime(base.Add(time.Second)))
		if err := s.Attributes().FromRaw(attrs); err != nil {
			t.Fatal(err)
		}
	}
	add(ptrace.SpanKindServer, map[string]any{
		"http.request.method": "_OTHER", "http.request.method_original": "BREW",
		"url.path": "/pot", "url.query": "sugar=2", "http.response.status_code": 418, "error.type": "418",
		"network.peer.address": "::ffff:10.0.0.1", "network.peer.port": 4000,
		"network.local.address": "10.0.0.2", "network.local.port": 80,
	})
	add(ptrace.SpanKindClient, map[string]any{"http.request.method": "GET", "url.full": "http://cart:8080/items?a=b", "server.address": "cart"})
	add(ptrace.SpanKindClient, map[string]any{"http.request.method": "GET", "url.full": "http://cart:8080"})
	add(ptrace.SpanKindInternal, nil)
	common := Span{
		Trace: ID{1}, ID: pcommon.SpanID{2}, Parent: pcommon.SpanID{3}, Service: "ingress",
		Start: base, End: base.Add(time.Second),
	}
	server, client, bare := common, common, common
	server.Method, server.Path, server.Status, server.Error = "BREW", "/pot?sugar=2", 418, "418"
	server.Peer, server.Local = netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:80")
	client.Client, client.Method, client.Path, client.PeerName = true, "GET", "/items?a=b", "cart"
	bare.Client, bare.Method, bare.Path = true, "GET", "/"
	comparePorts := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff([]Span{server, client, bare}, Spans(td), comparePorts); diff != "" {
		t.Error(diff)
	}
}
