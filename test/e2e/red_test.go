//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

const (
	// red is a namespace whose spans and metrics go to a Collector, by mutual TLS.
	red           = "spile-e2e-red"
	collectorOnly = `{"` + red + `": {"endpoint": "https://collector.` + backend + `:4317", "protocol": "grpc", "files": {` +
		`"certificate": {"configMap": "trust", "key": "ca.crt"}, ` +
		`"clientCertificate": {"secret": "otlp-client", "key": "tls.crt"}, "clientKey": {"secret": "otlp-client", "key": "tls.key"}}}}`

	serverDuration = "http.server.request.duration"
	clientDuration = "http.client.request.duration"
)

func (c cluster) startCatalog(t *testing.T) {
	c.apply(t, "red.yaml", map[string]any{"Namespace": red})
	c.awaitInjection(t, red)
	c.apply(t, "catalog.yaml", map[string]any{"Namespace": red})
	checkInjected(t, rollout(t, red, "catalog"))
}

// report returns what a Job with a load generator says that it did.
func report(t *testing.T, namespace, job string) (all []traffic.Done) {
	t.Helper()
	for line := range strings.Lines(kubectl(t, "-n", namespace, "logs", "job/"+job, "-c", "app")) {
		var d traffic.Done
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, d)
	}
	return all
}

// testRED: rate, errors and durations that both sides' sidecars measure are those
// that the load generator counted itself; they and the spans are at the
// namespace's own backend, and at no other.
func (c cluster) testRED(t *testing.T, j jaeger) {
	c.runJob(t, "load.yaml", red, "shopper", map[string]any{"Target": "http://catalog", "Requests": requests, "Workers": 16})
	done := report(t, red, "shopper")
	if len(done) != requests {
		t.Fatalf("the load generator reports %d requests, want %d", len(done), requests)
	}
	histograms := awaitDurations(t, map[string]string{serverDuration: "catalog", clientDuration: "shopper"})
	for name, key := range map[string]func(traffic.Done) string{
		serverDuration: func(d traffic.Done) string {
			return fmt.Sprint(d.Method, " ", traffic.Route(d.Path), " ", d.Status)
		},
		clientDuration: func(d traffic.Done) string { return fmt.Sprint(d.Method, "  ", d.Status) },
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]int{}
			for _, d := range done {
				want[key(d)]++
			}
			got := map[string]int{}
			for _, s := range histograms[name] {
				got[fmt.Sprint(value(s.Attributes, "http.request.method"), " ", value(s.Attributes, "http.route"), " ",
					value(s.Attributes, "http.response.status_code"))] += int(s.Histogram.Count())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("requests (-generator +metric):\n%s", diff)
			}
			checkDurations(t, histograms[name], done)
		})
	}
	t.Run("spans", func(t *testing.T) {
		spans := map[string][]span{}
		for range 20 { // they leave within a second
			clear(spans)
			for _, s := range collectedSpans(t) {
				spans[value(s.Resource, "service.name")] = append(spans[value(s.Resource, "service.name")], s)
			}
			if len(spans["catalog"]) >= requests && len(spans["shopper"]) >= requests {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		plan := traffic.Plan(requests)
		checkRequests(t, ofKind(spans["catalog"], "Server"), plan)
		checkRequests(t, ofKind(spans["shopper"], "Client"), plan)
	})
	t.Run("each backend has its own namespaces only", func(t *testing.T) {
		for _, s := range collectedSpans(t) {
			if ns := value(s.Resource, "k8s.namespace.name"); ns != red {
				t.Fatalf("the Collector has spans of namespace %q", ns)
			}
		}
		services, err := j.services()
		if err != nil || slices.Contains(services, "catalog") || slices.Contains(services, "shopper") {
			t.Errorf("Jaeger has services %q, %v: want none of %s", services, err, red)
		}
	})
}

// awaitDurations returns the histograms of metrics, each of a service, once they
// count all requests.
func awaitDurations(t *testing.T, services map[string]string) map[string][]series {
	t.Helper()
	found := map[string][]series{}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		clear(found)
		counts := map[string]int{}
		for _, s := range collectedSeries(t) {
			if services[s.Metric] == s.Service && s.Namespace == red {
				found[s.Metric] = append(found[s.Metric], s)
				counts[s.Metric] += int(s.Histogram.Count())
			}
		}
		if counts[serverDuration] >= requests && counts[clientDuration] >= requests || time.Now().After(deadline) {
			return found
		}
	}
}

// checkDurations compares the buckets of histograms with the planned delays, which
// no request can have been faster than, and with what the generator waited, which
// none can have been slower than; but for a twentieth, which the machine may have
// kept waiting after its response was there, they are in the buckets of the latter
// or the one below.
func checkDurations(t *testing.T, histograms []series, done []traffic.Done) {
	t.Helper()
	if len(histograms) == 0 {
		t.Fatal("no histograms")
	}
	bounds := histograms[0].Histogram.ExplicitBounds().AsRaw()
	measured := make([]int, len(bounds)) // requests up to each bound
	for _, s := range histograms {
		sum := 0
		for i, n := range s.Histogram.BucketCounts().AsRaw()[:len(bounds)] {
			sum += int(n)
			measured[i] += sum
		}
	}
	var planned, waited []time.Duration
	for _, d := range done {
		planned, waited = append(planned, traffic.Delay(d.Path)), append(waited, d.Took)
	}
	t.Logf("up to %v s: measured %v, generator %v", bounds, measured, cumulative(waited, bounds))
	p, w := cumulative(planned, bounds), cumulative(waited, bounds)
	below := 0 // up to the bound before
	for i := range bounds {
		if measured[i] > p[i] || measured[i] < w[i] {
			t.Errorf("%d requests took up to %g s, want %d to %d", measured[i], bounds[i], w[i], p[i])
		}
		if below > w[i]+len(done)/20 {
			t.Errorf("%d requests took up to a bucket below %g s; the generator waited so long at most for %d", below, bounds[i], w[i])
		}
		below = measured[i]
	}
}

// cumulative counts the durations up to each bound, in seconds.
func cumulative(durations []time.Duration, bounds []float64) []int {
	counts := make([]int, len(bounds))
	for _, d := range durations {
		for i, b := range bounds {
			if d.Seconds() <= b {
				counts[i]++
			}
		}
	}
	return counts
}
