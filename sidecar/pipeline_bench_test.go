package sidecar_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/export"
	"github.com/spile-dev/spile/sidecar/flow"
	"github.com/spile-dev/spile/sidecar/metric"
	"github.com/spile-dev/spile/sidecar/span"
)

// BenchmarkPipeline measures an exchange, a small GET on one of 16 keep-alive
// connections, on its way from two captured packets: to an exchange.Exchange
// ("exchange"), to the bytes of its span ("span"), and to a backend that takes
// it ("export", with the metrics and what the backend's half of the connection costs). What the
// kernel does before is not in it.
func BenchmarkPipeline(b *testing.B) {
	env := map[string]string{"OTEL_SERVICE_NAME": "bench"}
	getenv := func(name string) string { return env[name] }
	config, err := span.ConfigFromEnv(getenv)
	if err != nil {
		b.Fatal(err)
	}
	builder := span.NewBuilder(config)
	b.Run("exchange", func(b *testing.B) {
		pipeline(b, func(*exchange.Exchange) {})
	})
	b.Run("span", func(b *testing.B) {
		var buf []byte
		pipeline(b, func(x *exchange.Exchange) { buf = builder.Append(buf[:0], x, builder.Identify(x)) })
		b.ReportMetric(float64(len(buf)), "B/span")
	})
	b.Run("export", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		go func() {
			_ = http.Serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
		}()
		env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://" + l.Addr().String()
		to, err := export.ConfigFromEnv(getenv)
		if err != nil {
			b.Fatal(err)
		}
		resource, err := span.Resource(getenv, "test")
		if err != nil {
			b.Fatal(err)
		}
		recorder := metric.NewRecorder()
		e := export.New(to, resource, builder, export.Options{Measure: func(m *span.Measurement, ns uint64, end int64, id span.Identity) {
			recorder.Record(m, ns, &metric.Exemplar{At: end, TraceID: id.TraceID, SpanID: id.SpanID})
		}})
		pipeline(b, func(x *exchange.Exchange) { e.Add(x, builder.Identify(x)) })
		if err := e.Shutdown(b.Context()); err != nil {
			b.Error(err)
		}
	})
}

// noSkips notes what the filter would be told.
type noSkips struct{}

func (noSkips) Skip(*bpf.Direction, uint32, uint32, bool) bool { return true }
func (noSkips) Forget(*bpf.Direction)                          {}

// pipeline makes an exchange per iteration.
func pipeline(b *testing.B, emit func(*exchange.Exchange)) {
	const (
		connections = 16
		headers     = 40 // of IPv4 and TCP
		seqAt       = 24
		ackAt       = 28
	)
	request := "GET /cart/42/items?page=2&sort=price HTTP/1.1\r\nHost: cart.shop.svc:8080\r\nUser-Agent: Go-http-client/1.1\r\n" +
		"Accept: application/json\r\nAccept-Encoding: gzip\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
	content := strings.Repeat("x", 512)
	response := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 23 Nov 2026 07:00:00 GMT\r\n" +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(content), content)
	n := 0
	table := flow.NewTable(flow.Config{Skipper: noSkips{}, Emit: func(x *exchange.Exchange) { n++; emit(x) }})
	var pairs [connections][2]capture.Packet
	for i := range pairs {
		c := packets.Open(fmt.Sprintf("10.244.1.7:%d", 40000+i), "10.244.2.9:8080", 0, 0)
		c.Request(request, 0).Response(response, 0)
		for _, p := range c.Packets[:2] {
			table.Packet(p)
		}
		pairs[i] = [2]capture.Packet(c.Packets[2:])
	}
	at := pairs[0][0].At
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		pair := &pairs[i%connections]
		for d := range pair {
			p := &pair[d]
			at += 100_000
			p.At = at
			table.Packet(*p)
			other := &pair[1-d].Data
			length := uint32(len(p.Data) - headers)
			seq := binary.BigEndian.Uint32(p.Data[seqAt:]) + length
			binary.BigEndian.PutUint32(p.Data[seqAt:], seq)
			binary.BigEndian.PutUint32((*other)[ackAt:], seq)
		}
	}
	b.StopTimer()
	if n != b.N {
		b.Errorf("%d exchanges of %d", n, b.N)
	}
}
