//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// collected returns the objects of a file of the Collector's. The last one may not
// be whole yet.
func collected(t *testing.T, file string) (all []json.RawMessage) {
	t.Helper()
	out := kubectl(t, "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/services/collector:8080/proxy/%s", backend, file))
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var o json.RawMessage
		if d.Decode(&o) != nil {
			return all
		}
		all = append(all, o)
	}
}

// collectedSpans returns all spans that the Collector has.
func collectedSpans(t *testing.T) (spans []span) {
	t.Helper()
	for _, o := range collected(t, "traces.json") {
		traces, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, rs := range traces.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, s := range ss.Spans().All() {
					spans = append(spans, span{s, rs.Resource().Attributes()})
				}
			}
		}
	}
	return spans
}

// series is what one sidecar, from one of its starts on, last told of a metric
// with one set of attributes.
type series struct {
	Metric, Service, Namespace string
	Start, Time                time.Time
	Attributes                 pcommon.Map
	Histogram                  pmetric.HistogramDataPoint // of durations
	Value                      int                        // of sums
}

// collectedSeries returns what the Collector has last heard of every series.
func collectedSeries(t *testing.T) (all []series) {
	t.Helper()
	last := map[string]series{}
	add := func(s series, sidecar string) {
		key := fmt.Sprint(s.Metric, sidecar, s.Start.UnixNano(), canonical(s.Attributes))
		if !s.Time.Before(last[key].Time) {
			last[key] = s
		}
	}
	for _, o := range collected(t, "metrics.json") {
		metrics, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, rm := range metrics.ResourceMetrics().All() {
			r := rm.Resource().Attributes()
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					for _, s := range points(m) {
						s.Metric, s.Service, s.Namespace = m.Name(), value(r, "service.name"), value(r, "k8s.namespace.name")
						add(s, canonical(r))
					}
				}
			}
		}
	}
	for _, s := range last {
		all = append(all, s)
	}
	return all
}

func points(m pmetric.Metric) (all []series) {
	switch m.Type() {
	case pmetric.MetricTypeHistogram:
		for _, p := range m.Histogram().DataPoints().All() {
			all = append(all, series{Start: p.StartTimestamp().AsTime(), Time: p.Timestamp().AsTime(), Attributes: p.Attributes(), Histogram: p})
		}
	case pmetric.MetricTypeSum:
		for _, p := range m.Sum().DataPoints().All() {
			all = append(all, series{Start: p.StartTimestamp().AsTime(), Time: p.Timestamp().AsTime(), Attributes: p.Attributes(), Value: int(p.IntValue())})
		}
	}
	return all
}

// canonical is the same for equal attributes.
func canonical(m pcommon.Map) string {
	var pairs []string
	for k, v := range m.All() {
		pairs = append(pairs, k+"="+v.AsString())
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
