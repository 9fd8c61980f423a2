package sidecar_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/internal/otlpsink"
)

// canary stands for a secret: it may be in nothing that leaves the sidecar.
const canary = "c4n4ry"

// secretly makes a request that has secrets wherever HTTP has a place for them.
func secretly(t *testing.T, c *http.Client, url string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url+"?token="+canary+"&page=2&X-Amz-Signature="+canary+"&my_api_key="+canary, strings.NewReader(canary))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization", "X-Custom", "Referer", "Baggage"} {
		r.Header.Set(name, canary)
	}
	r.Header.Set("User-Agent", "test")
	r.SetBasicAuth(canary, canary)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// exported is all that a backend got, as JSON.
type exported struct {
	mu      sync.Mutex
	traces  []string
	metrics []string
	latest  pmetric.Metrics
}

func newExported(t *testing.T, l net.Listener) *exported {
	t.Helper()
	e := &exported{latest: pmetric.NewMetrics()}
	sink := otlpsink.New(func(td ptrace.Traces) {
		b, _ := (&ptrace.JSONMarshaler{}).MarshalTraces(td)
		e.mu.Lock()
		e.traces = append(e.traces, string(b))
		e.mu.Unlock()
	})
	sink.OnMetrics(func(md pmetric.Metrics) {
		b, _ := (&pmetric.JSONMarshaler{}).MarshalMetrics(md)
		e.mu.Lock()
		e.metrics, e.latest = append(e.metrics, string(b)), md
		e.mu.Unlock()
	})
	go func() { _ = sink.Serve(l) }()
	t.Cleanup(func() { sink.Close() })
	return e
}

// durations returns the counts of a histogram by status code.
func (e *exported) durations(name string) map[int64]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := make(map[int64]uint64)
	for _, rm := range e.latest.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != name {
				continue
			}
			for _, p := range m.Histogram().DataPoints().All() {
				status, _ := p.Attributes().Get("http.response.status_code")
				counts[status.Int()] += p.Count()
			}
		}
	}
	return counts
}

// TestMetrics: durations are exact although no span is sampled, what the sidecar
// counts of itself balances, and no secret leaves it.
func TestMetrics(t *testing.T) {
	for _, sampler := range []string{"always_off", "always_on"} {
		t.Run(sampler, func(t *testing.T) {
			p := newPods(t)
			l := listen(t, p.client, "[::]:0")
			e := newExported(t, l)
			serve(t, p.server)
			s := start(t, p.server, ebpfCapabilities, "OTEL_TRACES_SAMPLER="+sampler, "OTEL_METRIC_EXPORT_INTERVAL=300", "OTEL_LOG_LEVEL=debug",
				fmt.Sprintf("OTEL_EXPORTER_OTLP_ENDPOINT=http://%s:%d", clientIP, l.Addr().(*net.TCPAddr).Port))
			s.line(t, "capturing")
			c := newClient(t, p.client)
			for range 20 {
				secretly(t, c, "http://"+serverIP+":8080/ok")
				secretly(t, c, "http://"+serverIP+":8080/status/404")
				secretly(t, c, "http://"+serverIP+":8080/status/500")
			}
			want := map[int64]uint64{200: 20, 404: 20, 500: 20}
			deadline := time.Now().Add(20 * time.Second)
			for time.Now().Before(deadline) && fmt.Sprint(e.durations("http.server.request.duration")) != fmt.Sprint(want) {
				time.Sleep(20 * time.Millisecond)
			}
			if got := e.durations("http.server.request.duration"); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("counts %v, want %v; log:\n%s", got, want, s.log())
			}
			s.stop(t)
			e.mu.Lock()
			defer e.mu.Unlock()
			all := strings.Join(e.traces, "") + strings.Join(e.metrics, "") + s.log()
			if strings.Contains(all, canary) {
				t.Error("a secret was exported or logged")
			}
			if spans := strings.Contains(all, "url.query"); spans != (sampler == "always_on") {
				t.Errorf("spans exported: %v", spans)
			}
			last := e.metrics[len(e.metrics)-1]
			for _, name := range []string{"spile.packets", "spile.connections", "spile.exchanges", "spile.spans.exported", "spile.queue.size"} {
				if !strings.Contains(last, `"name":"`+name+`"`) {
					t.Errorf("no metric %s", name)
				}
			}
		})
	}
}

// TestPrometheus: with OTEL_METRICS_EXPORTER=prometheus, and then only, metrics
// can be scraped from the pod; the scrapes are no traffic.
func TestPrometheus(t *testing.T) {
	p := newPods(t)
	serve(t, p.server)
	s := start(t, p.server, ebpfCapabilities, "OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=prometheus",
		"OTEL_EXPORTER_PROMETHEUS_HOST=0.0.0.0", "OTEL_EXPORTER_PROMETHEUS_PORT=9464")
	s.line(t, "metrics can be scraped")
	s.line(t, "capturing")
	c := newClient(t, p.client)
	for range 5 {
		secretly(t, c, "http://"+serverIP+":8080/ok")
	}
	var page string
	for range 100 {
		resp, err := c.Get("http://" + serverIP + ":9464/metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if page = string(b); strings.Contains(page, `http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",url_scheme="http",network_protocol_version="1.1"} 5`) &&
			strings.Contains(page, "spile_spans_seen_total 5\n") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if strings.Contains(page, canary) || !strings.Contains(page, "_seconds_count{") || !strings.Contains(page, "spile_spans_seen_total 5\n") {
		t.Errorf("metrics:\n%s", page)
	}
	if spans := s.stop(t)["spans"].(map[string]any); spans["seen"] != 5.0 {
		t.Errorf("spans %v, want 5 seen: scrapes are not traffic", spans)
	}
}
