package export

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Exporters of OTEL_TRACES_EXPORTER.
const (
	ExporterOTLP    = "otlp"
	ExporterConsole = "console"
	ExporterNone    = "none"
)

// Protocols of OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	ProtocolGRPC         = "grpc"
	ProtocolHTTPProtobuf = "http/protobuf"
	ProtocolHTTPJSON     = "http/json"
)

// Compressions of OTEL_EXPORTER_OTLP_COMPRESSION.
const (
	CompressionNone = "none"
	CompressionGzip = "gzip"
)

// Config says where spans go and how much of them may wait. ConfigFromEnv
// makes it.
type Config struct {
	Exporter string

	Protocol    string
	Endpoint    Endpoint
	Headers     Headers
	Compression string
	Timeout     time.Duration // of one attempt

	Certificate       string // file of the CAs that the backend's certificate is verified with; "" for the system's
	ClientCertificate string // file of the client's certificate, with ClientKey
	ClientKey         string // file

	ScheduleDelay time.Duration // within which a span has left, if the backend takes it
	MaxBatchSpans int
	MaxQueueSpans int
	MaxQueueBytes int
}

// Endpoint is the URL that requests go to.
type Endpoint struct{ url.URL }

// MarshalText returns the URL without its password.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.Redacted()), nil }

// ConfigFromEnv reads the configuration from the environment variables of the
// OpenTelemetry specification, with its defaults and precedence
// (OTEL_EXPORTER_OTLP_TRACES_* over OTEL_EXPORTER_OTLP_*):
//
//	OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER (otlp)
//	OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT (http://localhost:4318, for grpc http://localhost:4317)
//	OTEL_EXPORTER_OTLP_[TRACES_]PROTOCOL (http/protobuf), _HEADERS, _COMPRESSION (none),
//	  _TIMEOUT (10000 ms), _CERTIFICATE, _CLIENT_CERTIFICATE, _CLIENT_KEY, _INSECURE (false)
//	OTEL_BSP_SCHEDULE_DELAY (1000 ms), OTEL_BSP_MAX_EXPORT_BATCH_SIZE (512),
//	OTEL_BSP_MAX_QUEUE_SIZE (32768)
//	SPILE_QUEUE_BYTES (16777216)
//
// Two defaults differ from the specification's. The schedule delay is 1 s, not
// 5 s: a pod may be killed at any time. The queue is bounded by its bytes, and
// by spans only far above 2048, which 100 spans a second fill in 20 s.
//
// The error joins every fault; the Config is then usable, with the default in
// place of each faulty variable.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	e := env{getenv: getenv}
	cfg := Config{
		Exporter: e.oneOf("OTEL_TRACES_EXPORTER", ExporterOTLP, ExporterConsole, ExporterNone),
		Protocol: e.otlpOneOf("PROTOCOL", ProtocolHTTPProtobuf, ProtocolGRPC, ProtocolHTTPJSON),

		Compression:       e.otlpOneOf("COMPRESSION", CompressionNone, CompressionGzip),
		Timeout:           time.Duration(e.number(e.otlpName("TIMEOUT"), 10000, 1, 600_000)) * time.Millisecond,
		Certificate:       e.file(e.otlpName("CERTIFICATE")),
		ClientCertificate: e.file(e.otlpName("CLIENT_CERTIFICATE")),
		ClientKey:         e.file(e.otlpName("CLIENT_KEY")),

		ScheduleDelay: time.Duration(e.number("OTEL_BSP_SCHEDULE_DELAY", 1000, 1, 60_000)) * time.Millisecond,
		MaxBatchSpans: e.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 1<<16),
		MaxQueueSpans: e.number("OTEL_BSP_MAX_QUEUE_SIZE", 1<<15, 1, 1<<24),
		MaxQueueBytes: e.number("SPILE_QUEUE_BYTES", 16<<20, 1<<16, 1<<30),
	}
	if strings.EqualFold(e.get("OTEL_SDK_DISABLED"), "true") {
		cfg.Exporter = ExporterNone
	}
	if (cfg.ClientCertificate == "") != (cfg.ClientKey == "") {
		e.fault(errors.New("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: accepted is both or neither"))
		cfg.ClientCertificate, cfg.ClientKey = "", ""
	}
	cfg.Headers = e.headers()
	cfg.Endpoint = e.endpoint(cfg.Protocol)
	cfg.MaxBatchSpans = min(cfg.MaxBatchSpans, cfg.MaxQueueSpans)
	return cfg, errors.Join(e.faults...)
}

// env reads variables and gathers their faults. An empty variable counts as
// unset, as the specification says.
type env struct {
	getenv func(string) string
	faults []error
}

func (e *env) fault(err error) { e.faults = append(e.faults, err) }

func (e *env) reject(name, value, accepted string) {
	e.fault(fmt.Errorf("%s=%q: accepted is %s", name, value, accepted))
}

func (e *env) get(name string) string { return strings.TrimSpace(e.getenv(name)) }

// otlpName returns the variable of an OTLP setting that counts: the one for
// traces if it is set.
func (e *env) otlpName(setting string) string {
	if name := "OTEL_EXPORTER_OTLP_TRACES_" + setting; e.get(name) != "" {
		return name
	}
	return "OTEL_EXPORTER_OTLP_" + setting
}

// oneOf returns the variable's value, the first of accepted by default.
func (e *env) oneOf(name string, accepted ...string) string {
	v := e.get(name)
	if v == "" {
		return accepted[0]
	}
	for _, a := range accepted {
		if v == a {
			return v
		}
	}
	e.reject(name, v, "one of "+strings.Join(accepted, ", "))
	return accepted[0]
}

func (e *env) otlpOneOf(setting string, accepted ...string) string {
	return e.oneOf(e.otlpName(setting), accepted...)
}

func (e *env) number(name string, unset, low, high int) int {
	v := e.get(name)
	if v == "" {
		return unset
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		e.reject(name, v, fmt.Sprintf("a number from %d to %d", low, high))
		return unset
	}
	return n
}

func (e *env) file(name string) string {
	v := e.get(name)
	if v == "" {
		return ""
	}
	f, err := os.Open(v)
	if err != nil {
		e.fault(fmt.Errorf("%s=%q: %w; accepted is a readable PEM file", name, v, err))
		return ""
	}
	f.Close()
	return v
}
