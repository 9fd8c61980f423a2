package webhook

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDestination(t *testing.T) {
	c := Config{
		Env: []EnvVar{
			{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"},
			{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "secret=a"},
			{"OTEL_LOG_LEVEL", "debug"},
			{"SPILE_OTLP_HEADERS_FILE", "/a"},
		},
		Files:      Files{Headers: File{Secret: "a", Key: "a"}},
		Namespaces: map[string]Destination{"b": {Env: []EnvVar{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://b"}}}},
	}
	if d := cmp.Diff(c, c.in("a")); d != "" {
		t.Errorf("another namespace (-want +got):\n%s", d)
	}
	got := c.in("b")
	want := []EnvVar{{"OTEL_LOG_LEVEL", "debug"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://b"}}
	if d := cmp.Diff(want, got.Env); d != "" || got.Files != (Files{}) {
		t.Errorf("files %+v; environment (-want +got):\n%s", got.Files, d)
	}
}

func TestDestinationFaults(t *testing.T) {
	for config, want := range map[string]string{
		`files: {headers: {secret: a, configMap: b, key: c}}`:                       "either a secret or a configMap",
		`files: {headers: {key: c}}`:                                                "either a secret or a configMap",
		`files: {headers: {configMap: b, key: c}}`:                                  "headers cannot come from a ConfigMap",
		`files: {certificate: {secret: "../a", key: c}}`:                            "not a name of an object",
		`files: {certificate: {secret: a, key: ".."}}`:                              "not one of its keys",
		`files: {clientKey: {secret: a, key: c}}`:                                   "need each other",
		`namespaces: {a: {env: []}}`:                                                "namespaces.a.env: names no endpoint",
		`namespaces: {a: {env: [{name: OTEL_LOG_LEVEL, value: x}]}}`:                "does not say where spans go",
		`namespaces: {A_B: {env: [{name: OTEL_EXPORTER_OTLP_ENDPOINT, value: x}]}}`: "not a name of a namespace",
		`namespaces: {a: {files: {clientKey: {secret: a, key: c}}, env: []}}`:       "namespaces.a.files: clientCertificate",
		`namespaces: {a: {env: [{name: OTEL_EXPORTER_OTLP_ENDPOINT, value: x}, {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: y}]}}`: "set twice",
	} {
		_, err := ParseConfig([]byte("image: a\n" + config))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", config, err, want)
		}
	}
}
