package export

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Exporters of OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER.
const (
	ExporterOTLP       = "otlp"
	ExporterConsole    = "console"
	ExporterPrometheus = "prometheus" // of metrics
	ExporterNone       = "none"
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

// Temporalities of OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE. In the low
// memory one what SDKs gather synchronously is delta, what they observe cumulative.
const (
	TemporalityCumulative = "cumulative"
	TemporalityDelta      = "delta"
	TemporalityLowMemory  = "lowmemory"
)

// Filters of OTEL_METRICS_EXEMPLAR_FILTER: which measurements leave an exemplar.
const (
	ExemplarsTraceBased = "trace_based" // those of sampled spans
	ExemplarsAlwaysOn   = "always_on"
	ExemplarsAlwaysOff  = "always_off"
)

// Config says where spans and metrics go and how many spans may wait.
// ConfigFromEnv makes it.
type Config struct {
	Exporter string
	OTLP

	ScheduleDelay time.Duration // within which a span has left, if the backend takes it
	MaxBatchSpans int
	MaxQueueSpans int
	MaxQueueBytes int

	Metrics MetricsConfig
}

// MetricsConfig says where metrics go.
type MetricsConfig struct {
	Exporter string
	OTLP
	Interval    time.Duration // between exports
	Temporality string
	Exemplars   string // a filter
	Prometheus  string // host:port to listen on
}

// OTLP says how the requests of a signal are sent.
type OTLP struct {
	Protocol    string
	Endpoint    Endpoint
	Headers     Headers
	HeadersFile string // file of further headers
	Compression string
	Timeout     time.Duration // of one attempt; an hour stands for none

	Certificate       string // file of the CAs that the backend's certificate is verified with; "" for the system's
	ClientCertificate string // file of the client's certificate, with ClientKey
	ClientKey         string // file

	signal *signal
}

// Endpoint is the URL that requests go to.
type Endpoint struct{ url.URL }

// MarshalText returns Redacted.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.Redacted()), nil }

// ConfigFromEnv reads the configuration from the environment variables that
// docs/configuration.md lists: those of the OpenTelemetry specification, with its
// defaults and precedence (OTEL_EXPORTER_OTLP_TRACES_* and
// OTEL_EXPORTER_OTLP_METRICS_* over OTEL_EXPORTER_OTLP_*), and SPILE_* for what
// it has no name for.
//
// Two defaults differ from the specification's. The schedule delay is 1 s, not
// 5 s: a pod may be killed at any time. The queue is bounded by its bytes, and
// by spans only far above 2048, which 100 spans a second fill in 20 s.
//
// The error joins every fault; the Config is then usable, with the default in
// place of each faulty variable, as the specification says. A file that cannot be
// read is a fault too, but kept: it is waited for, and spans with it.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	e := env{getenv: getenv}
	cfg := Config{
		Exporter: e.oneOf("OTEL_TRACES_EXPORTER", ExporterOTLP, ExporterConsole, ExporterNone),
		OTLP:     e.otlp(traces),

		ScheduleDelay: time.Duration(e.number("OTEL_BSP_SCHEDULE_DELAY", 1000, 1, 60_000)) * time.Millisecond,
		MaxBatchSpans: e.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 1<<16),
		MaxQueueSpans: e.number("OTEL_BSP_MAX_QUEUE_SIZE", 1<<15, 1, 1<<24),
		MaxQueueBytes: e.number("SPILE_QUEUE_BYTES", 16<<20, 1<<16, 1<<30),

		Metrics: e.metrics(),
	}
	if e.boolean("OTEL_SDK_DISABLED") {
		cfg.Exporter, cfg.Metrics.Exporter = ExporterNone, ExporterNone
	}
	for _, name := range []string{"OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"} {
		if e.get(name) != "" {
			e.fault(fmt.Errorf("%s: configuration files are not supported; the other variables count", name))
		}
	}
	cfg.MaxBatchSpans = min(cfg.MaxBatchSpans, cfg.MaxQueueSpans)
	return cfg, e.join()
}

// env reads variables and gathers their faults. An empty variable counts as
// unset, as the specification says.
type env struct {
	getenv func(string) string
	signal *signal // whose variables count before those of all signals
	faults []error
}

func (e *env) metrics() MetricsConfig {
	m := MetricsConfig{
		Exporter: e.oneOf("OTEL_METRICS_EXPORTER", ExporterOTLP, ExporterPrometheus, ExporterConsole, ExporterNone),
		OTLP:     e.otlp(metrics),
		Interval: time.Duration(e.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000, 100, 86_400_000)) * time.Millisecond,
		Temporality: e.oneOf("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
			TemporalityCumulative, TemporalityDelta, TemporalityLowMemory),
		Exemplars: e.oneOf("OTEL_METRICS_EXEMPLAR_FILTER", ExemplarsTraceBased, ExemplarsAlwaysOn, ExemplarsAlwaysOff),
		Prometheus: net.JoinHostPort(cmp.Or(e.get("OTEL_EXPORTER_PROMETHEUS_HOST"), "localhost"),
			strconv.Itoa(e.number("OTEL_EXPORTER_PROMETHEUS_PORT", 9464, 1, 1<<16-1))),
	}
	m.Timeout = min(m.Timeout, e.timeout(30_000, "OTEL_METRIC_EXPORT_TIMEOUT"))
	return m
}

// otlp reads the variables of a signal.
func (e *env) otlp(s *signal) OTLP {
	e.signal = s
	c := OTLP{
		Protocol:          e.otlpOneOf("PROTOCOL", ProtocolHTTPProtobuf, ProtocolGRPC, ProtocolHTTPJSON),
		Compression:       e.otlpOneOf("COMPRESSION", CompressionNone, CompressionGzip),
		Timeout:           e.timeout(10_000, e.otlpNames("TIMEOUT")...),
		Certificate:       e.file(e.otlpName("CERTIFICATE"), "PEM file"),
		ClientCertificate: e.file(e.otlpName("CLIENT_CERTIFICATE"), "PEM file"),
		ClientKey:         e.file(e.otlpName("CLIENT_KEY"), "PEM file"),
		HeadersFile:       e.file("SPILE_OTLP_HEADERS_FILE", "file"),
		signal:            s,
	}
	if (c.ClientCertificate == "") != (c.ClientKey == "") {
		e.fault(errors.New("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: accepted is both or neither"))
		c.ClientCertificate, c.ClientKey = "", ""
	}
	c.Headers = e.headers()
	c.Endpoint = e.endpoint(c.Protocol)
	return c
}

// join returns the faults, each once: signals share variables.
func (e *env) join() error {
	var distinct []error
	seen := make(map[string]bool)
	for _, err := range e.faults {
		if !seen[err.Error()] {
			seen[err.Error()] = true
			distinct = append(distinct, err)
		}
	}
	return errors.Join(distinct...)
}

func (e *env) fault(err error) { e.faults = append(e.faults, err) }

func (e *env) reject(name, value, accepted string) {
	e.fault(fmt.Errorf("%s=%q: accepted is %s", name, value, accepted))
}

func (e *env) get(name string) string { return strings.TrimSpace(e.getenv(name)) }

// otlpName returns the variable of an OTLP setting that counts: the one for the
// signal if it is set.
func (e *env) otlpName(setting string) string {
	names := e.otlpNames(setting)
	if e.get(names[0]) != "" {
		return names[0]
	}
	return names[1]
}

// otlpNames returns the variables of an OTLP setting, the one for the signal first.
func (e *env) otlpNames(setting string) []string {
	return []string{"OTEL_EXPORTER_OTLP_" + e.signal.variable + "_" + setting, "OTEL_EXPORTER_OTLP_" + setting}
}

// first returns the value of the first variable that is set to one that parse takes,
// or unset. Others, up to that, are faults.
func first[T any](e *env, names []string, unset T, accepted string, parse func(string) (T, bool)) T {
	for _, name := range names {
		v := e.get(name)
		if v == "" {
			continue
		}
		if t, ok := parse(v); ok {
			return t
		}
		e.reject(name, v, accepted)
	}
	return unset
}

// boolean returns true for "true", in any case.
func (e *env) boolean(names ...string) bool {
	return first(e, names, false, "true or false", func(v string) (bool, bool) {
		yes := strings.EqualFold(v, "true")
		return yes, yes || strings.EqualFold(v, "false")
	})
}

// timeout returns a number of milliseconds, of which 0 is none.
func (e *env) timeout(unset int, names ...string) time.Duration {
	if ms := e.firstNumber(names, unset, 0, 3_600_000); ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return time.Hour
}

// oneOf returns the variable's value, the first of accepted by default. Case
// does not count.
func (e *env) oneOf(name string, accepted ...string) string {
	return e.firstOneOf([]string{name}, accepted)
}

func (e *env) otlpOneOf(setting string, accepted ...string) string {
	return e.firstOneOf(e.otlpNames(setting), accepted)
}

func (e *env) firstOneOf(names, accepted []string) string {
	return first(e, names, accepted[0], "one of "+strings.Join(accepted, ", "), func(v string) (string, bool) {
		i := slices.IndexFunc(accepted, func(a string) bool { return strings.EqualFold(v, a) })
		if i < 0 {
			return "", false
		}
		return accepted[i], true
	})
}

func (e *env) number(name string, unset, low, high int) int {
	return e.firstNumber([]string{name}, unset, low, high)
}

func (e *env) firstNumber(names []string, unset, low, high int) int {
	return first(e, names, unset, fmt.Sprintf("a number from %d to %d", low, high), func(v string) (int, bool) {
		n, err := strconv.Atoi(v)
		return n, err == nil && low <= n && n <= high
	})
}

func (e *env) file(name, accepted string) string {
	v := e.get(name)
	if v == "" {
		return ""
	}
	f, err := os.Open(v)
	if err != nil {
		e.fault(fmt.Errorf("%s=%q: %w; accepted is a readable %s", name, v, err, accepted))
		return v
	}
	f.Close()
	return v
}
