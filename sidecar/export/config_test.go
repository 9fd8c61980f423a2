package export

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestEndpoint(t *testing.T) {
	const base, traces = "OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="
	const grpc = "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
	tests := []struct {
		vars []string
		want string
	}{
		{nil, "http://localhost:4318/v1/traces"},
		{[]string{grpc}, "http://localhost:4317"},
		{[]string{base + "http://collector:4318"}, "http://collector:4318/v1/traces"},
		{[]string{base + "http://collector:4318/"}, "http://collector:4318/v1/traces"},
		{[]string{base + "https://example.com/otlp"}, "https://example.com/otlp/v1/traces"},
		{[]string{base + "https://example.com/otlp/"}, "https://example.com/otlp/v1/traces"},
		{[]string{base + "https://example.com/a%2Fb?key=1"}, "https://example.com/a%2Fb/v1/traces?key=1"},
		{[]string{base + "http://[2001:db8::1]:4318"}, "http://[2001:db8::1]:4318/v1/traces"},
		{[]string{traces + "http://collector:4318"}, "http://collector:4318/"},
		{[]string{traces + "http://collector:4318/v1/traces"}, "http://collector:4318/v1/traces"},
		{[]string{traces + "http://traces:4318/mine", base + "http://all:4318"}, "http://traces:4318/mine"},
		{[]string{base + " http://collector:4318 "}, "http://collector:4318/v1/traces"},
		{[]string{grpc, base + "http://collector:4317"}, "http://collector:4317"},
		{[]string{grpc, base + "https://collector:4317/"}, "https://collector:4317"},
		{[]string{grpc, base + "collector:4317"}, "https://collector:4317"},
		{[]string{grpc, base + "collector:4317", "OTEL_EXPORTER_OTLP_INSECURE=true"}, "http://collector:4317"},
		{[]string{grpc, base + "[2001:db8::1]:4317", "OTEL_EXPORTER_OTLP_TRACES_INSECURE=TRUE"}, "http://[2001:db8::1]:4317"},
		{[]string{grpc, base + "https://collector:4317", "OTEL_EXPORTER_OTLP_INSECURE=true"}, "https://collector:4317"},
		{[]string{grpc, traces + "http://traces:4317", base + "http://all:4317"}, "http://traces:4317"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.vars, " "), func(t *testing.T) {
			cfg, err := ConfigFromEnv(environ(tt.vars...))
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Endpoint.String(); got != tt.want {
				t.Errorf("endpoint %s, want %s", got, tt.want)
			}
		})
	}
}

func TestEndpointFaults(t *testing.T) {
	const forHTTP = `: accepted is a URL such as http://collector:4318 or https://collector.example.com/otlp`
	const forGRPC = `: accepted is a URL such as http://collector:4317, or host:port (with TLS unless OTEL_EXPORTER_OTLP_INSECURE=true)`
	tests := []struct{ protocol, value, want string }{
		{"", "collector:4318", `OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318"` + forHTTP},
		{"", "http://", `OTEL_EXPORTER_OTLP_ENDPOINT="http://"` + forHTTP},
		{"", "ftp://collector", `OTEL_EXPORTER_OTLP_ENDPOINT="ftp://collector"` + forHTTP},
		{"", "http://collector:port", `OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:port"` + forHTTP},
		{"", "http://user:secret@:bad", `OTEL_EXPORTER_OTLP_ENDPOINT="http://REDACTED@:bad"` + forHTTP},
		{"grpc", "collector", `OTEL_EXPORTER_OTLP_ENDPOINT="collector"` + forGRPC},
		{"grpc", "http://collector:4317/v1/traces", `OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4317/v1/traces"` + forGRPC},
		{"grpc", "http://collector:4317?key=secret", `OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4317?REDACTED"` + forGRPC},
		{"grpc", "unix:///run/otlp", `OTEL_EXPORTER_OTLP_ENDPOINT="unix:///run/otlp"` + forGRPC},
	}
	for _, tt := range tests {
		t.Run(tt.value, func(t *testing.T) {
			cfg, err := ConfigFromEnv(environ("OTEL_EXPORTER_OTLP_PROTOCOL="+tt.protocol, "OTEL_EXPORTER_OTLP_ENDPOINT="+tt.value))
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
			if cfg.Endpoint.Hostname() != "localhost" {
				t.Errorf("endpoint %s, want the default", cfg.Endpoint.String())
			}
		})
	}
}

func TestConfigDefaults(t *testing.T) {
	cfg, err := ConfigFromEnv(environ())
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Exporter":"otlp","Protocol":"http/protobuf","Endpoint":"http://localhost:4318/v1/traces","Headers":{},` +
		`"HeadersFile":"","Compression":"none","Timeout":10000000000,"Certificate":"","ClientCertificate":"","ClientKey":"",` +
		`"ScheduleDelay":1000000000,"MaxBatchSpans":512,"MaxQueueSpans":32768,"MaxQueueBytes":16777216,"Metrics":{` +
		`"Exporter":"otlp","Protocol":"http/protobuf","Endpoint":"http://localhost:4318/v1/metrics","Headers":{},` +
		`"HeadersFile":"","Compression":"none","Timeout":10000000000,"Certificate":"","ClientCertificate":"","ClientKey":"",` +
		`"Interval":60000000000,"Temporality":"cumulative","Exemplars":"trace_based","Prometheus":"localhost:9464"}}`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := ConfigFromEnv(environ(
		"OTEL_TRACES_EXPORTER=zipkin", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=thrift", "OTEL_EXPORTER_OTLP_COMPRESSION=zstd",
		"OTEL_EXPORTER_OTLP_TIMEOUT=10s", "OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere/ca.pem", "OTEL_EXPORTER_OTLP_CLIENT_KEY=config_test.go",
		"OTEL_BSP_SCHEDULE_DELAY=0", "OTEL_EXPORTER_OTLP_HEADERS=secret,Authorization: Basic secret==,c=%zz,d=e%0Asecret", "SPILE_QUEUE_BYTES=1",
		"OTEL_METRICS_EXPORTER=statsd", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=statsd", "OTEL_METRIC_EXPORT_INTERVAL=60s",
		"OTEL_METRIC_EXPORT_TIMEOUT=-1", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=both", "OTEL_METRICS_EXEMPLAR_FILTER=all",
		"OTEL_EXPORTER_PROMETHEUS_PORT=0", "OTEL_SDK_DISABLED=yes", "OTEL_CONFIG_FILE=spile.yaml"))
	const want = `OTEL_TRACES_EXPORTER="zipkin": accepted is one of otlp, console, none
OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="thrift": accepted is one of http/protobuf, grpc, http/json
OTEL_EXPORTER_OTLP_COMPRESSION="zstd": accepted is one of none, gzip
OTEL_EXPORTER_OTLP_TIMEOUT="10s": accepted is a number from 0 to 3600000
OTEL_EXPORTER_OTLP_CERTIFICATE="/nowhere/ca.pem": open /nowhere/ca.pem: no such file or directory; accepted is a readable PEM file
OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: accepted is both or neither
OTEL_EXPORTER_OTLP_HEADERS="REDACTED=…": accepted is key=value pairs, percent-encoded, separated by commas
OTEL_EXPORTER_OTLP_HEADERS="c=…": accepted is key=value pairs, percent-encoded, separated by commas
OTEL_EXPORTER_OTLP_HEADERS="d=…": accepted is key=value pairs, percent-encoded, separated by commas
OTEL_BSP_SCHEDULE_DELAY="0": accepted is a number from 1 to 60000
SPILE_QUEUE_BYTES="1": accepted is a number from 65536 to 1073741824
OTEL_METRICS_EXPORTER="statsd": accepted is one of otlp, prometheus, console, none
OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="statsd": accepted is one of http/protobuf, grpc, http/json
OTEL_METRIC_EXPORT_INTERVAL="60s": accepted is a number from 100 to 86400000
OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="both": accepted is one of cumulative, delta, lowmemory
OTEL_METRICS_EXEMPLAR_FILTER="all": accepted is one of trace_based, always_on, always_off
OTEL_EXPORTER_PROMETHEUS_PORT="0": accepted is a number from 1 to 65535
OTEL_METRIC_EXPORT_TIMEOUT="-1": accepted is a number from 0 to 3600000
OTEL_SDK_DISABLED="yes": accepted is true or false
OTEL_CONFIG_FILE: configuration files are not supported; the other variables count`
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("error (-want +got):\n%s", d)
	}
}

// TestConfigCase: the values of enumerations and booleans count in any case, and
// what is empty counts as unset.
func TestConfigCase(t *testing.T) {
	cfg, err := ConfigFromEnv(environ("OTEL_TRACES_EXPORTER=Console", "OTEL_EXPORTER_OTLP_PROTOCOL=GRPC", "OTEL_EXPORTER_OTLP_COMPRESSION=GZip",
		"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=DELTA", "OTEL_EXPORTER_OTLP_TIMEOUT=0", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=",
		"OTEL_BSP_SCHEDULE_DELAY= ", "OTEL_SDK_DISABLED=False"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Exporter != ExporterConsole || cfg.Protocol != ProtocolGRPC || cfg.Compression != CompressionGzip ||
		cfg.Metrics.Temporality != TemporalityDelta || cfg.Timeout != time.Hour || cfg.Metrics.Timeout != 30*time.Second ||
		cfg.ScheduleDelay != time.Second {
		t.Errorf("configuration %+v", cfg)
	}
}

// TestConfigFallback: a variable of a signal whose value is not accepted counts as
// unset, so that the one for all signals counts.
func TestConfigFallback(t *testing.T) {
	cfg, err := ConfigFromEnv(environ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=thrift", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=5s", "OTEL_EXPORTER_OTLP_TIMEOUT=5000",
		"OTEL_EXPORTER_OTLP_TRACES_INSECURE=yes", "OTEL_EXPORTER_OTLP_INSECURE=true", "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error %v, want three faults", err)
	}
	if cfg.Protocol != ProtocolGRPC || cfg.Timeout != 5*time.Second || cfg.Endpoint.Scheme != "http" {
		t.Errorf("%s within %s to %s", cfg.Protocol, cfg.Timeout, cfg.target())
	}
}

func TestHeaders(t *testing.T) {
	cfg, err := ConfigFromEnv(environ("OTEL_EXPORTER_OTLP_HEADERS=ignored=1",
		"OTEL_EXPORTER_OTLP_TRACES_HEADERS= Authorization = Bearer%20secret%3D , x-scope-orgid=shop,"))
	if err != nil {
		t.Fatal(err)
	}
	want := Headers{{"Authorization", "Bearer secret="}, {"x-scope-orgid", "shop"}}
	if d := cmp.Diff(want, cfg.Headers); d != "" {
		t.Errorf("headers (-want +got):\n%s", d)
	}
	printed, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(printed), fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg.Headers)} {
		if strings.Contains(text, "secret") {
			t.Errorf("the secret is in %s", text)
		}
	}
}

// TestEndpointRedacted: what of an endpoint may be a credential is not shown.
func TestEndpointRedacted(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://collector/otlp":                            "https://collector/otlp/v1/traces",
		"https://user:secret@collector":                     "https://user:xxxxx@collector/v1/traces",
		"https://secret@collector":                          "https://xxxxx@collector/v1/traces",
		"https://secret:@collector":                         "https://xxxxx@collector/v1/traces",
		"https://collector?api-key=secret&secret&org=%73&b": "https://collector/v1/traces?api-key=xxxxx&xxxxx&org=xxxxx&xxxxx",
	} {
		cfg, err := ConfigFromEnv(environ("OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint))
		if err != nil {
			t.Fatal(err)
		}
		text, err := cfg.Endpoint.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []string{cfg.target(), string(text)} {
			if got != want {
				t.Errorf("%s is shown as %s, want %s", endpoint, got, want)
			}
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: %s, want %s", value, got, want)
		}
	}
}

// FuzzAnswer feeds what a backend may answer to what reads it.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{10, 2, 8, 3}, "CgIIAw")
	f.Add([]byte("{\"partialSuccess\":{\"rejectedSpans\":\"3\"}}"), "")
	f.Fuzz(func(t *testing.T, body []byte, trailer string) {
		if _, message, err := partialSuccess(body); err == nil && !utf8.ValidString(message) {
			t.Errorf("message %q is not UTF-8", message)
		}
		partialSuccessJSON(body)
		if message, err := grpcMessage(body, CompressionGzip); err == nil && len(message) > maxResponseBytes {
			t.Errorf("message of %d bytes", len(message))
		}
		if delay, _ := retryInfo(trailer); delay < 0 {
			t.Errorf("retry delay %s", delay)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add("http://user:pass@host:1/path?q", "a=b", "grpc")
	f.Fuzz(func(t *testing.T, endpoint, headers, protocol string) {
		cfg, _ := ConfigFromEnv(environ("OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_HEADERS="+headers,
			"OTEL_EXPORTER_OTLP_PROTOCOL="+protocol))
		u := cfg.Endpoint
		if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			t.Errorf("endpoint %q gives %q", endpoint, u.String())
		}
		if _, err := http.NewRequest(http.MethodPost, u.String(), nil); err != nil {
			t.Errorf("endpoint %q: %v", endpoint, err)
		}
	})
}
