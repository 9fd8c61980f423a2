package export

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/internal/otlpsink"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// backend is a sink and what it took.
type backend struct {
	*otlpsink.Sink
	delay  time.Duration // of each answer
	keep   bool          // traces
	mu     sync.Mutex
	traces []ptrace.Traces
	spans  map[pcommon.SpanID]int // how often each came
}

func newBackend() *backend {
	b := &backend{keep: true, spans: make(map[pcommon.SpanID]int)}
	b.Sink = otlpsink.New(b.receive)
	return b
}

func (b *backend) receive(td ptrace.Traces) {
	time.Sleep(b.delay)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keep {
		b.traces = append(b.traces, td)
	}
	for _, rs := range td.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				b.spans[s.SpanID()]++
			}
		}
	}
}

// count returns how many spans came, and how many of them again.
func (b *backend) count() (distinct, again int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.spans {
		again += n - 1
	}
	return len(b.spans), again
}

// startBackend listens on loopback.
func startBackend(t testing.TB) (*backend, string) {
	t.Helper()
	b := newBackend()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = b.Serve(l) }()
	t.Cleanup(func() { b.Close() })
	return b, "http://" + l.Addr().String()
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

func (l *logBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSuffix(l.String(), "\n"), "\n")
}

// pipeline is an Exporter and the Builder that feeds it.
type pipeline struct {
	*Exporter
	builder *span.Builder
	log     *logBuffer
}

func environ(vars ...string) func(string) string {
	m := make(map[string]string)
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		m[name] = value
	}
	return func(name string) string { return m[name] }
}

func newPipeline(t testing.TB, opts Options, vars ...string) *pipeline {
	t.Helper()
	if _, err := ConfigFromEnv(environ(vars...)); err != nil {
		t.Fatal(err)
	}
	return newFaultyPipeline(t, opts, vars...)
}

// newFaultyPipeline is newPipeline of variables with faults.
func newFaultyPipeline(t testing.TB, opts Options, vars ...string) *pipeline {
	t.Helper()
	getenv := environ(vars...)
	cfg, _ := ConfigFromEnv(getenv)
	spanCfg, err := span.ConfigFromEnv(getenv)
	if err != nil {
		t.Fatal(err)
	}
	res, err := span.Resource(getenv, "test")
	if err != nil {
		t.Fatal(err)
	}
	p := &pipeline{builder: span.NewBuilder(spanCfg), log: new(logBuffer)}
	opts.Version = "test"
	opts.Log = textLog(p.log)
	c := newClient(cfg.Exporter, cfg.OTLP, opts)
	if path := getenv("SPILE_TEST_POISON"); path != "" {
		c = poisoned{c, path}
	}
	p.Exporter = start(cfg, res, p.builder, opts, c)
	return p
}

// textLog writes lines without their time.
func textLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func (p *pipeline) emit(n int) {
	for i := range n {
		x := get(fmt.Sprintf("/items/%d", i))
		p.Add(x, p.builder.Identify(x))
	}
}

func get(path string) *exchange.Exchange {
	now := time.Now().UnixNano()
	return &exchange.Exchange{
		Peers:    exchange.Peers{Client: netip.MustParseAddrPort("10.0.0.1:40000"), Server: netip.MustParseAddrPort("10.0.0.2:8080")},
		Protocol: exchange.HTTP11,
		Request:  exchange.Request{Method: "GET", Target: path, Host: "shop:8080"},
		Response: exchange.Response{Status: 200},
		Start:    now - 1e6, FirstByte: now - 1e5, End: now,
	}
}

// checkStats compares the counts, and that they balance.
func checkStats(t *testing.T, got, want Stats) {
	t.Helper()
	got.QueuedBytes = 0
	if want.Dropped == nil {
		want.Dropped = map[Reason]uint64{}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}
	if r := got.Residual(); r != 0 {
		t.Errorf("residual %d, want 0", r)
	}
}

var protocols = []string{ProtocolHTTPProtobuf, ProtocolHTTPJSON, ProtocolGRPC}

func TestDelivery(t *testing.T) {
	for _, protocol := range protocols {
		for _, compression := range []string{CompressionNone, CompressionGzip} {
			t.Run(protocol+"/"+compression, func(t *testing.T) {
				b, endpoint := startBackend(t)
				p := newPipeline(t, Options{},
					"OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint,
					"OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
					"OTEL_EXPORTER_OTLP_COMPRESSION="+compression,
					"OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20abc,x-tenant=shop",
					"OTEL_SERVICE_NAME=cart",
					"SPILE_CONTAINER_PORTS=app=8080")
				p.emit(1000)
				if err := p.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				checkStats(t, p.Stats(), Stats{Seen: 1000, Exported: 1000})
				if n, again := b.count(); n != 1000 || again != 0 {
					t.Errorf("backend has %d spans and %d again, want 1000 and 0", n, again)
				}
				for _, r := range b.Requests() {
					if r.Protocol != protocol {
						t.Errorf("received by %s, want %s", r.Protocol, protocol)
					}
					if r.Header.Get("Authorization") != "Basic abc" || r.Header.Get("X-Tenant") != "shop" {
						t.Errorf("headers %v lack those configured", r.Header)
					}
					if r.Header.Get("User-Agent") != "spile/test" {
						t.Errorf("user agent %q", r.Header.Get("User-Agent"))
					}
				}
				attrs := b.traces[0].ResourceSpans().At(0).Resource().Attributes().AsRaw()
				if attrs["service.name"] != "cart" || attrs["k8s.container.name"] != "app" {
					t.Errorf("resource %v", attrs)
				}
				if n := b.traces[0].SpanCount(); n > 512 {
					t.Errorf("batch of %d spans, want 512 at most", n)
				}
			})
		}
	}
}

func TestRetry(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			b, endpoint := startBackend(t)
			b.Script(otlpsink.Unavailable(), otlpsink.Reply{Reset: true}, otlpsink.Unavailable())
			p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol)
			p.emit(10)
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, p.Stats(), Stats{Seen: 10, Exported: 10})
			if n, again := b.count(); n != 10 || again != 0 {
				t.Errorf("backend has %d spans and %d again, want 10 and 0", n, again)
			}
			lines := p.log.lines()
			if len(lines) != 2 || !strings.Contains(lines[0], "backend unreachable") || !strings.Contains(lines[1], "reachable again") {
				t.Errorf("log:\n%s\nwant one line of the outage and one of its end", strings.Join(lines, "\n"))
			}
		})
	}
}

func TestDrops(t *testing.T) {
	tests := []struct {
		name  string
		reply otlpsink.Reply
		vars  []string
		want  Stats
	}{
		{
			"partial success",
			otlpsink.Reply{Rejected: 3, Message: "too old"},
			nil,
			Stats{Exported: 7, Dropped: map[Reason]uint64{Rejected: 3}},
		},
		{
			"partial success of more than was sent",
			otlpsink.Reply{Rejected: 300},
			nil,
			Stats{Exported: 0, Dropped: map[Reason]uint64{Rejected: 10}},
		},
		{"negative partial success", otlpsink.Reply{Rejected: -3}, nil, Stats{Exported: 10}},
		{"warning", otlpsink.Reply{Message: "slow down"}, nil, Stats{Exported: 10}},
		{
			"bad request",
			otlpsink.Reply{Status: 400, Code: 3, Message: "no"},
			nil,
			Stats{Dropped: map[Reason]uint64{Refused: 10}},
		},
		{
			"unauthenticated",
			otlpsink.Reply{Status: 401, Code: 16},
			nil,
			Stats{Dropped: map[Reason]uint64{Refused: 10}},
		},
		{
			"unsampled",
			otlpsink.Reply{},
			[]string{"OTEL_TRACES_SAMPLER=always_off"},
			Stats{Dropped: map[Reason]uint64{Unsampled: 10}},
		},
		{
			"excluded",
			otlpsink.Reply{},
			[]string{"SPILE_EXCLUDE_PATHS=/items/{n}"},
			Stats{Dropped: map[Reason]uint64{ExcludedPath: 10}},
		},
		{
			"none",
			otlpsink.Reply{},
			[]string{"OTEL_TRACES_EXPORTER=none"},
			Stats{Dropped: map[Reason]uint64{Disabled: 10}},
		},
		{
			"SDK disabled",
			otlpsink.Reply{},
			[]string{"OTEL_SDK_DISABLED=true"},
			Stats{Dropped: map[Reason]uint64{Disabled: 10}},
		},
	}
	for _, tt := range tests {
		for _, protocol := range protocols {
			t.Run(tt.name+"/"+protocol, func(t *testing.T) {
				b, endpoint := startBackend(t)
				b.Repeat(tt.reply)
				p := newPipeline(t, Options{}, append(tt.vars,
					"OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol)...)
				p.emit(10)
				if err := p.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				tt.want.Seen = 10
				checkStats(t, p.Stats(), tt.want)
				if n := len(b.Requests()); n > 1 {
					t.Errorf("%d requests, want one at most", n)
				}
			})
		}
	}
}

func TestAddAfterShutdown(t *testing.T) {
	_, endpoint := startBackend(t)
	p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint)
	p.emit(1)
	if err := p.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	p.emit(2)
	checkStats(t, p.Stats(), Stats{Seen: 3, Exported: 1, Dropped: map[Reason]uint64{Shutdown: 2}})
}

func TestConsole(t *testing.T) {
	var out bytes.Buffer
	p := newPipeline(t, Options{Console: &out}, "OTEL_TRACES_EXPORTER=console")
	p.emit(2)
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	td, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(out.Bytes())
	if err != nil || td.SpanCount() != 2 {
		t.Errorf("%d spans, error %v, of\n%s", td.SpanCount(), err, out.String())
	}
}

// BenchmarkAdd is what an exchange costs the capture loop on its way into the
// queue, encoding included.
func BenchmarkAdd(b *testing.B) {
	cfg, err := ConfigFromEnv(environ())
	if err != nil {
		b.Fatal(err)
	}
	builder := span.NewBuilder(span.Default())
	e := start(cfg, pcommon.NewResource(), builder, Options{}, discard{})
	x := get("/items/1")
	b.ReportAllocs()
	for b.Loop() {
		e.Add(x, builder.Identify(x))
	}
	b.StopTimer()
	if err := e.Shutdown(context.Background()); err != nil || e.Stats().Residual() != 0 {
		b.Errorf("error %v, stats %+v", err, e.Stats())
	}
}
