package export

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/spile-dev/spile/internal/otlpsink"
)

// oneMetric is an ExportMetricsServiceRequest.
func oneMetric(t testing.TB) []byte {
	t.Helper()
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("a")
	m.SetEmptySum().DataPoints().AppendEmpty().SetIntValue(1)
	b, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// metricsInBubble runs a test in a synctest bubble with metrics that are sent
// every 10 s to a backend behind pipes.
func metricsInBubble(t *testing.T, test func(t *testing.T, b *backend, network *pipes, m *Metrics, log func() []string)) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			request := oneMetric(t)
			synctest.Test(t, func(t *testing.T) {
				network := newPipes()
				b := newBackend()
				go func() { _ = b.Serve(network) }()
				defer b.Close()
				cfg, err := ConfigFromEnv(environ("OTEL_EXPORTER_OTLP_ENDPOINT=http://backend:4317",
					"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="+protocol, "OTEL_METRIC_EXPORT_INTERVAL=10000"))
				if err != nil {
					t.Fatal(err)
				}
				buffer := new(logBuffer)
				m := NewMetrics(cfg.Metrics, func() ([]byte, func()) { return request, func() {} },
					Options{Log: textLog(buffer), Version: "test", DialContext: network.dial})
				test(t, b, network, m, buffer.lines)
			})
		})
	}
}

func TestMetrics(t *testing.T) {
	metricsInBubble(t, func(t *testing.T, b *backend, _ *pipes, m *Metrics, log func() []string) {
		points := 0
		b.OnMetrics(func(md pmetric.Metrics) { points += md.DataPointCount() })
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if points != 3 {
			t.Errorf("%d points after 35 s, want 3", points)
		}
		m.Shutdown(t.Context())
		if points != 4 {
			t.Errorf("%d points after the end, want 4", points)
		}
		if n := len(b.Requests()); n != 0 {
			t.Errorf("%d requests with traces", n)
		}
		if lines := log(); len(lines) != 1 || lines[0] != "" {
			t.Errorf("log: %q", lines)
		}
	})
}

// TestMetricsUnsupported: a backend without a receiver of metrics is asked once
// an hour, and the log says so once.
func TestMetricsUnsupported(t *testing.T) {
	for name, reply := range map[string]otlpsink.Reply{
		"not found": {Status: 404, Code: 12}, "method not allowed": {Status: 405, Code: 12},
	} {
		t.Run(name, func(t *testing.T) {
			metricsInBubble(t, func(t *testing.T, b *backend, _ *pipes, m *Metrics, log func() []string) {
				b.ReplyMetrics(reply)
				time.Sleep(3*time.Hour + time.Minute)
				synctest.Wait()
				m.Shutdown(t.Context())
				if n := len(b.MetricsRequests()); n != 4 {
					t.Errorf("%d requests in 3 h, want 4", n)
				}
				if lines := log(); len(lines) != 1 || !strings.Contains(lines[0], "level=INFO") || !strings.Contains(lines[0], "no receiver of metrics") {
					t.Errorf("log: %q", lines)
				}
			})
		})
	}
}

func TestMetricsOutage(t *testing.T) {
	metricsInBubble(t, func(t *testing.T, b *backend, network *pipes, m *Metrics, log func() []string) {
		network.down.Store(true)
		time.Sleep(time.Hour)
		network.down.Store(false)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if n := len(b.MetricsRequests()); n == 0 || n > 2 {
			t.Errorf("%d requests after recovery, want 1 or 2", n)
		}
		b.ReplyMetrics(otlpsink.Reply{Hang: true})
		start := time.Now()
		m.Shutdown(context.Background())
		if took := time.Since(start); took > shutdownTimeout {
			t.Errorf("shutdown took %s", took)
		}
		if lines := log(); len(lines) < 2 || !strings.Contains(lines[0], "metrics cannot be sent") || !strings.Contains(lines[1], "takes metrics now") {
			t.Errorf("log: %q", lines)
		}
	})
}
