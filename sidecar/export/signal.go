package export

import (
	"net/http"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// signal is a kind of telemetry as OTLP sends it.
type signal struct {
	variable   string // in OTEL_EXPORTER_OTLP_<variable>_ENDPOINT and its kin
	path       string // of OTLP/HTTP
	grpcMethod string
	toJSON     func(request []byte) ([]byte, error)
}

var (
	traces = &signal{
		"TRACES", "/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export", tracesJSON,
	}
	metrics = &signal{
		"METRICS", "/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", metricsJSON,
	}
)

// tracesJSON returns an ExportTraceServiceRequest, which is TracesData on the
// wire, as OTLP JSON.
func tracesJSON(request []byte) ([]byte, error) {
	td, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(request)
	if err != nil {
		return nil, err
	}
	return (&ptrace.JSONMarshaler{}).MarshalTraces(td)
}

func metricsJSON(request []byte) ([]byte, error) {
	md, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(request)
	if err != nil {
		return nil, err
	}
	return (&pmetric.JSONMarshaler{}).MarshalMetrics(md)
}

// unsupported reports whether an HTTP status says that there is no receiver of
// the signal.
func unsupported(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}
