package sidecar

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// documented returns the variables of the tables in docs/configuration.md, with
// their defaults.
func documented(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	name, code := regexp.MustCompile("`([A-Z_]+)`"), regexp.MustCompile("^`([^`]*)`$")
	defaults := make(map[string]string)
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(line, "| `") {
			continue
		}
		value := ""
		if m := code.FindStringSubmatch(strings.TrimSpace(cells[2])); m != nil {
			value = m[1]
		}
		for _, n := range name.FindAllStringSubmatch(cells[1], -1) {
			defaults[n[1]] = value
		}
	}
	return defaults
}

func configOf(t *testing.T, vars map[string]string) (printed string, err error) {
	t.Helper()
	c, err := ConfigFromEnv(func(name string) string { return vars[name] }, "1")
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	return out.String(), err
}

// TestVariablesAreDocumented: the tables have each variable that is read, and no
// other.
func TestVariablesAreDocumented(t *testing.T) {
	read := make(map[string]bool)
	for _, vars := range []map[string]string{
		nil,
		{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "SPILE_POD_IP": "10.0.0.1"},
	} {
		_, _ = ConfigFromEnv(func(name string) string {
			for _, signal := range []string{"TRACES_", "METRICS_"} {
				if base, ok := strings.CutPrefix(name, "OTEL_EXPORTER_OTLP_"+signal); ok && base != "TEMPORALITY_PREFERENCE" {
					read["OTEL_EXPORTER_OTLP_"+base] = true
					return vars[name]
				}
			}
			read[name] = true
			return vars[name]
		}, "1")
	}
	read["GOMEMLIMIT"], read["GOMAXPROCS"] = true, true // by the program
	for _, name := range []string{"OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE", "OTEL_TRACES_SAMPLER_ARG"} {
		delete(read, name) // warned of, or read where it counts
	}
	got := documented(t)
	delete(got, "OTEL_TRACES_SAMPLER_ARG")
	if d := cmp.Diff(slices.Sorted(maps.Keys(read)), slices.Sorted(maps.Keys(got))); d != "" {
		t.Errorf("docs/configuration.md (-read +documented):\n%s", d)
	}
}

// TestDocumentedDefaults: a variable that is set to its default changes nothing,
// nor does one that is empty.
func TestDocumentedDefaults(t *testing.T) {
	want, err := configOf(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults := documented(t)
	if len(defaults) < 30 {
		t.Fatalf("%d variables", len(defaults))
	}
	for name, value := range defaults {
		for _, v := range []string{value, "", " "} {
			got, err := configOf(t, map[string]string{name: v})
			if err != nil {
				t.Errorf("%s=%q: %v", name, v, err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s=%q changes the configuration (-unset +set):\n%s", name, v, d)
			}
		}
	}
}

// TestWrongValues: each variable that does not take any text names its fault, and
// counts as unset.
func TestWrongValues(t *testing.T) {
	want, _ := configOf(t, nil)
	anything := []string{ // or not read by ConfigFromEnv
		"OTEL_SERVICE_NAME", "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "OTEL_EXPORTER_PROMETHEUS_HOST",
		"SPILE_POD_IP", "SPILE_HOST_IP", "GOMEMLIMIT", "GOMAXPROCS",
	}
	files := []string{ // waited for
		"SPILE_OTLP_HEADERS_FILE", "OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY",
	}
	for name := range documented(t) {
		vars := map[string]string{name: "{wrong}"}
		switch name {
		case "OTEL_TRACES_SAMPLER_ARG":
			vars["OTEL_TRACES_SAMPLER"] = "traceidratio"
		case "OTEL_EXPORTER_OTLP_INSECURE":
			vars["OTEL_EXPORTER_OTLP_PROTOCOL"], vars["OTEL_EXPORTER_OTLP_ENDPOINT"] = "grpc", "collector:4317"
		}
		got, err := configOf(t, vars)
		if slices.Contains(anything, name) {
			continue
		}
		faults := Faults(err)
		if len(faults) == 0 || !strings.Contains(faults[0].Error(), name) {
			t.Errorf("%s=%q: faults %v", name, vars[name], faults)
		}
		if len(vars) == 1 && !slices.Contains(files, name) && got != want {
			t.Errorf("%s=%q changes the configuration:\n%s", name, vars[name], cmp.Diff(want, got))
		}
	}
}

func TestFaults(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	if got := Faults(errors.Join(a, errors.Join(b, c))); !slices.Equal(got, []error{a, b, c}) {
		t.Errorf("faults %v", got)
	}
	if got := Faults(nil); got != nil {
		t.Errorf("faults %v of nil", got)
	}
}
