package chart

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/spile-dev/spile/sidecar"
	"github.com/spile-dev/spile/webhook"
)

// What the values say of spans and metrics, the sidecar understands.
func TestTelemetryValues(t *testing.T) {
	c := sidecarConfig(t, "sidecar.traces.sampler=parentbased_traceidratio", "sidecar.traces.samplerArgument=0.25",
		"sidecar.traces.propagators={b3,tracecontext}", "sidecar.traces.exclude={probes}", "sidecar.traces.optInAttributes={client.port,url.scheme}",
		"sidecar.traces.routes.unmatched=heuristic", "sidecar.metrics.exporter=prometheus", "sidecar.metrics.interval=15000", "otlp.temporality=delta")
	want := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo.monitoring:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta", "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0",
		"OTEL_EXPORTER_PROMETHEUS_PORT": "9464", "OTEL_METRICS_EXPORTER": "prometheus", "OTEL_METRIC_EXPORT_INTERVAL": "15000",
		"OTEL_PROPAGATORS": "b3,tracecontext", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25",
		"SPILE_EXCLUDE": "probes", "SPILE_OPT_IN_ATTRIBUTES": "client.port,url.scheme", "SPILE_ROUTES_UNMATCHED": "heuristic",
	}
	got := map[string]string{}
	for _, e := range c.Env {
		got[e.Name] = e.Value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	if _, err := sidecar.ConfigFromEnv(func(name string) string { return got[name] }, "test"); err != nil {
		t.Error(err)
	}
}

// Spans of a namespace go where its block says, by its credentials only.
func TestNamespaces(t *testing.T) {
	c := sidecarConfig(t, "otlp.headers.api-key=secret", "otlp.files.headers.secret=otlp", "otlp.files.headers.key=headers",
		"otlp.namespaces.shop.endpoint=https://shop.example.com", "otlp.namespaces.shop.protocol=grpc",
		"otlp.namespaces.shop.files.certificate.configMap=trust", "otlp.namespaces.shop.files.certificate.key=ca.crt")
	if c.Files.Headers != (webhook.File{Secret: "otlp", Key: "headers"}) {
		t.Errorf("files %+v", c.Files)
	}
	want := webhook.Destination{
		Env: []webhook.EnvVar{
			{Name: "OTEL_EXPORTER_OTLP_ENDPOINT", Value: "https://shop.example.com"}, {Name: "OTEL_EXPORTER_OTLP_PROTOCOL", Value: "grpc"},
		},
		Files: webhook.Files{Certificate: webhook.File{ConfigMap: "trust", Key: "ca.crt"}},
	}
	if diff := cmp.Diff(want, c.Namespaces["shop"]); diff != "" {
		t.Errorf("destination (-want +got):\n%s", diff)
	}
}

func sidecarConfig(t *testing.T, set ...string) webhook.Config {
	t.Helper()
	c, err := webhook.ParseConfig([]byte(find[corev1.ConfigMap](t, render(t, set...), "ConfigMap").Data["sidecar.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
