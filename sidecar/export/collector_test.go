package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// collector is an OpenTelemetry Collector in a process of its own, which writes
// what it takes to files. COLLECTOR names its binary (make collector-test).
type collector struct {
	cmd             *exec.Cmd
	config          string // file
	grpc, http      string // addresses
	traces, metrics string // files
	log             bytes.Buffer
}

// newCollector describes a Collector whose receivers have the given TLS settings,
// in YAML, none if they are empty.
func newCollector(t *testing.T, tls string) *collector {
	t.Helper()
	if os.Getenv("COLLECTOR") == "" {
		t.Skip("COLLECTOR names no binary of an OpenTelemetry Collector; make collector-test builds one")
	}
	dir := t.TempDir()
	c := &collector{
		config: filepath.Join(dir, "config.yaml"), grpc: freePort(t), http: freePort(t),
		traces: filepath.Join(dir, "traces.json"), metrics: filepath.Join(dir, "metrics.json"),
	}
	if tls != "" {
		tls = ", tls: " + tls
	}
	config := fmt.Sprintf(`
receivers: {otlp: {protocols: {grpc: {endpoint: %q%s}, http: {endpoint: %q%s}}}}
exporters: {file/traces: {path: %q, append: true, flush_interval: 10ms}, file/metrics: {path: %q, append: true, flush_interval: 10ms}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [file/traces]}, metrics: {receivers: [otlp], exporters: [file/metrics]}}
`, c.grpc, tls, c.http, tls, c.traces, c.metrics)
	if err := os.WriteFile(c.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (c *collector) start(t *testing.T) {
	t.Helper()
	c.cmd = exec.Command(os.Getenv("COLLECTOR"), "--config", c.config)
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill() })
	for range 600 {
		if conn, err := net.Dial("tcp", c.http); err == nil {
			conn.Close()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.kill()
	t.Fatalf("the Collector does not listen:\n%s", c.log.String())
}

// kill ends the Collector as kill -9 does.
func (c *collector) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func (c *collector) endpoint(protocol, scheme string) string {
	if protocol == ProtocolGRPC {
		return scheme + "://" + c.grpc
	}
	return scheme + "://" + c.http
}

// spans returns how many different spans the Collector wrote, and how many twice.
func (c *collector) spans(t *testing.T) (distinct, again int) {
	t.Helper()
	seen := make(map[[8]byte]bool)
	for _, line := range objects(c.traces) {
		td, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(line)
		if err != nil {
			t.Fatal(err)
		}
		for _, rs := range td.ResourceSpans().All() {
			for _, s := range rs.ScopeSpans().At(0).Spans().All() {
				if seen[s.SpanID()] {
					again++
				}
				seen[s.SpanID()] = true
			}
		}
	}
	return len(seen), again
}

// objects returns the JSON objects of a file that may be missing or end in the
// middle of one. Of a Collector that was killed a line may have no end.
func objects(file string) (all []json.RawMessage) {
	b, _ := os.ReadFile(file)
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var o json.RawMessage
		if d.Decode(&o) != nil {
			return all
		}
		all = append(all, o)
	}
}

func (c *collector) want(t *testing.T, p *pipeline, n int) {
	t.Helper()
	var got, again int
	for range 300 {
		if got, again = c.spans(t); got >= n {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if got != n || again != 0 {
		t.Errorf("the Collector has %d spans, %d twice, want %d once; log:\n%s", got, again, n, strings.Join(p.log.lines(), "\n"))
	}
}

// TestCollector delivers to an OpenTelemetry Collector by each protocol,
// compressed or not, without TLS, with it, and with a client's certificate.
func TestCollector(t *testing.T) {
	for _, security := range []string{"plaintext", "TLS", "mTLS"} {
		t.Run(security, func(t *testing.T) {
			ca := newCA(t)
			cert, key := ca.issue(t)
			scheme, server, vars := "https", fmt.Sprintf("{cert_file: %q, key_file: %q}", cert, key), []string{"OTEL_EXPORTER_OTLP_CERTIFICATE=" + ca.file}
			switch security {
			case "plaintext":
				scheme, server, vars = "http", "", nil
			case "mTLS":
				server = fmt.Sprintf("{cert_file: %q, key_file: %q, client_ca_file: %q}", cert, key, ca.file)
				vars = append(vars, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="+cert, "OTEL_EXPORTER_OTLP_CLIENT_KEY="+key)
			}
			c := newCollector(t, server)
			c.start(t)
			total := 0
			for _, protocol := range []string{ProtocolHTTPProtobuf, ProtocolHTTPJSON, ProtocolGRPC} {
				for _, compression := range []string{CompressionNone, CompressionGzip} {
					p := newPipeline(t, Options{}, append(vars, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.endpoint(protocol, scheme),
						"OTEL_EXPORTER_OTLP_PROTOCOL="+protocol, "OTEL_EXPORTER_OTLP_COMPRESSION="+compression)...)
					p.emit(100)
					if err := p.Shutdown(t.Context()); err != nil {
						t.Errorf("%s, %s: %v", protocol, compression, err)
					}
					checkStats(t, p.Stats(), Stats{Seen: 100, Exported: 100})
					total += 100
					c.want(t, p, total)
				}
			}
		})
	}
}

// TestCollectorMetrics: it takes metrics by each protocol.
func TestCollectorMetrics(t *testing.T) {
	c := newCollector(t, "")
	c.start(t)
	for i, protocol := range []string{ProtocolHTTPProtobuf, ProtocolHTTPJSON, ProtocolGRPC} {
		cfg, err := ConfigFromEnv(environ("OTEL_EXPORTER_OTLP_ENDPOINT="+c.endpoint(protocol, "http"), "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol))
		if err != nil {
			t.Fatal(err)
		}
		taken := false
		m := NewMetrics(cfg.Metrics, func() ([]byte, func()) { return oneMetric(t), func() { taken = true } }, Options{})
		m.Shutdown(t.Context())
		points := 0
		for range 100 {
			points = 0
			for _, line := range objects(c.metrics) {
				md, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics(line)
				if err != nil {
					t.Fatal(err)
				}
				points += md.DataPointCount()
			}
			if points > i {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if points != i+1 || !taken {
			t.Errorf("%s: %d data points, want %d; delivered %v", protocol, points, i+1, taken)
		}
	}
}

// TestCollectorKilled: what a Collector that was killed did not take, the next one
// has.
func TestCollectorKilled(t *testing.T) {
	for _, protocol := range []string{ProtocolHTTPProtobuf, ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			c := newCollector(t, "")
			c.start(t)
			p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.endpoint(protocol, "http"),
				"OTEL_EXPORTER_OTLP_PROTOCOL="+protocol, "OTEL_BSP_SCHEDULE_DELAY=10")
			p.emit(100)
			c.want(t, p, 100)
			for p.Stats().Exported < 100 { // an answer that is lost makes a span come twice
				time.Sleep(10 * time.Millisecond)
			}
			c.kill()
			p.emit(100)
			time.Sleep(300 * time.Millisecond)
			c.start(t)
			c.want(t, p, 200)
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, p.Stats(), Stats{Seen: 200, Exported: 200})
		})
	}
}

// TestCollectorClientCertificate: a client's certificate that the Collector does
// not trust is read again when it is renewed.
func TestCollectorClientCertificate(t *testing.T) {
	for _, protocol := range []string{ProtocolHTTPProtobuf, ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			ca, other := newCA(t), newCA(t)
			cert, key := ca.issue(t)
			c := newCollector(t, fmt.Sprintf("{cert_file: %q, key_file: %q, client_ca_file: %q}", cert, key, ca.file))
			c.start(t)
			mineCert, mineKey := other.issue(t)
			p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.endpoint(protocol, "https"), "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
				"OTEL_EXPORTER_OTLP_CERTIFICATE="+ca.file, "OTEL_BSP_SCHEDULE_DELAY=10",
				"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="+mineCert, "OTEL_EXPORTER_OTLP_CLIENT_KEY="+mineKey)
			p.emit(10)
			for range 300 {
				if strings.Contains(strings.Join(p.log.lines(), ""), "backend unreachable") {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			for from, to := range map[string]string{cert: mineCert, key: mineKey} {
				b, err := os.ReadFile(from)
				if err == nil {
					err = os.WriteFile(to, b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			c.want(t, p, 10)
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, p.Stats(), Stats{Seen: 10, Exported: 10})
		})
	}
}
