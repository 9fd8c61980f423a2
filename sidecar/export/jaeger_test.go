package export

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"
)

// TestJaeger delivers to a real Jaeger by each protocol and asks its query API for
// the spans. JAEGER names its binary; it takes its own ports (make jaeger-test).
func TestJaeger(t *testing.T) {
	if os.Getenv("JAEGER") == "" {
		t.Skip("JAEGER names no binary of Jaeger")
	}
	var log bytes.Buffer
	cmd := exec.Command(os.Getenv("JAEGER"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for protocol, endpoint := range map[string]string{
		ProtocolHTTPProtobuf: "http://127.0.0.1:4318", ProtocolHTTPJSON: "http://127.0.0.1:4318", ProtocolGRPC: "http://127.0.0.1:4317",
	} {
		t.Run(protocol, func(t *testing.T) {
			service := "by-" + strings.ReplaceAll(protocol, "/", "-")
			p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
				"OTEL_SERVICE_NAME="+service, "OTEL_BSP_SCHEDULE_DELAY=10")
			p.emit(100)
			got := 0
			for range 600 {
				if got = spansInJaeger(service); got == 100 {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, p.Stats(), Stats{Seen: 100, Exported: 100})
			if got != 100 {
				t.Errorf("Jaeger has %d spans, want 100; log:\n%s", got, log.String())
			}
		})
	}
}

func spansInJaeger(service string) int {
	resp, err := http.Get("http://127.0.0.1:16686/api/v3/traces?" + url.Values{
		"query.service_name":   {service},
		"query.start_time_min": {time.Now().Add(-time.Hour).UTC().Format(time.RFC3339Nano)},
		"query.start_time_max": {time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)},
		"query.num_traces":     {"1000"}, "query.search_depth": {"1000"}, "query.raw_traces": {"true"},
	}.Encode())
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var body struct{ Result json.RawMessage }
	if json.NewDecoder(resp.Body).Decode(&body) != nil {
		return 0
	}
	td, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(body.Result)
	if err != nil {
		return 0
	}
	return td.SpanCount()
}
