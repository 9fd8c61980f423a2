package span

import (
	"net/netip"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// typical is a request as a browser or an SDK sends it through an ingress.
func typical(role exchange.Role) *exchange.Exchange {
	return &exchange.Exchange{
		Peers: exchange.Peers{
			Client: netip.MustParseAddrPort("10.244.1.7:51234"),
			Server: netip.MustParseAddrPort("10.244.2.9:8080"),
		},
		Role:     role,
		Protocol: exchange.HTTP11,
		Request: exchange.Request{
			Method: "GET", Target: "/cart/42/items?page=2&sort=price", Host: "cart.shop.svc:8080",
			Fields: exchange.Fields{
				{Name: "Host", Value: "cart.shop.svc:8080"},
				{Name: "User-Agent", Value: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
				{Name: "Accept", Value: "application/json"},
				{Name: "Accept-Encoding", Value: "gzip, deflate"},
				{Name: "X-Request-Id", Value: "0b5ba4a6a6cb5a4e"},
				{Name: "X-Forwarded-For", Value: "203.0.113.9"},
				{Name: "X-Forwarded-Proto", Value: "https"},
				{Name: "X-Forwarded-Host", Value: "shop.example.com"},
				{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			},
		},
		Response: exchange.Response{
			Status: 200,
			Fields: exchange.Fields{{Name: "Content-Type", Value: "application/json"}, {Name: "Content-Length", Value: "512"}},
		},
		Start: 1_800_000_000_000_000_000, FirstByte: 1_800_000_000_004_000_000, End: 1_800_000_000_005_000_000,
	}
}

// BenchmarkExchangeToOTLP measures an exchange on its way to encoded OTLP
// bytes: as it is exported, and as collector/pdata would have it.
func BenchmarkExchangeToOTLP(b *testing.B) {
	cfg := Default()
	cfg.Routes = []Pattern{mustPattern("/healthz"), mustPattern("/cart/{id}/items")}
	for _, role := range []exchange.Role{exchange.RoleServer, exchange.RoleClient} {
		x := typical(role)
		b.Run("append/"+role.String(), func(b *testing.B) {
			builder := NewBuilder(cfg)
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = builder.Append(buf[:0], x, builder.Identify(x))
			}
			b.ReportMetric(float64(len(buf)), "B/span")
		})
		b.Run("pdata/"+role.String(), func(b *testing.B) {
			const batch = 512
			builder := NewBuilder(cfg)
			var marshal ptrace.ProtoMarshaler
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				td := ptrace.NewTraces()
				spans := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
				spans.EnsureCapacity(batch)
				for range batch {
					builder.Put(x, builder.Identify(x), spans.AppendEmpty())
				}
				out, err := marshal.MarshalTraces(td)
				if err != nil {
					b.Fatal(err)
				}
				size = len(out) / batch
			}
			b.ReportMetric(float64(size), "B/span")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/span")
		})
	}
}

func mustPattern(s string) Pattern {
	p, err := ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}
