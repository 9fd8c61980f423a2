package metric

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// points lists what metrics say: name, temporality, interval, count and sum or
// value.
func points(md pmetric.Metrics) (out []string) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			switch m.Type() {
			case pmetric.MetricTypeHistogram:
				for _, p := range m.Histogram().DataPoints().All() {
					out = append(out, fmt.Sprintf("%s %s %d-%d %d %g", m.Name(), m.Histogram().AggregationTemporality(),
						p.StartTimestamp(), p.Timestamp(), p.Count(), p.Sum()))
				}
			case pmetric.MetricTypeSum:
				for _, p := range m.Sum().DataPoints().All() {
					out = append(out, fmt.Sprintf("%s %s %d-%d %d", m.Name(), m.Sum().AggregationTemporality(),
						p.StartTimestamp(), p.Timestamp(), p.IntValue()))
				}
			case pmetric.MetricTypeGauge:
				out = append(out, fmt.Sprintf("%s %d", m.Name(), m.Gauge().DataPoints().At(0).IntValue()))
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestTemporality: by delta an export has what came since the last that was
// delivered, and nothing that failed is lost or counted twice.
func TestTemporality(t *testing.T) {
	counters := func(n uint64) []Counter {
		return []Counter{
			{Name: "count", Points: []Point{{N: n}}},
			{Name: "gauge", Gauge: true, Points: []Point{{N: n}}},
		}
	}
	const duration = "http.server.request.duration "
	for name, test := range map[string]struct {
		of   Temporality
		want string
	}{
		"cumulative": {Temporality{}, `
			count Cumulative 10-20 3; gauge 3; ` + duration + `Cumulative 10-20 1 1
			count Cumulative 10-30 5; gauge 5; ` + duration + `Cumulative 10-30 3 5
			count Cumulative 10-40 6; gauge 6; ` + duration + `Cumulative 10-40 3 5
			count Cumulative 10-50 6; gauge 6; ` + duration + `Cumulative 10-50 4 5.5`},
		"delta": {Temporality{DeltaDurations: true, DeltaCounters: true}, `
			count Delta 10-20 3; gauge 3; ` + duration + `Delta 10-20 1 1
			count Delta 20-30 2; gauge 5; ` + duration + `Delta 20-30 2 4
			count Delta 20-40 3; gauge 6; ` + duration + `Delta 20-40 2 4
			count Delta 40-50 0; gauge 6; ` + duration + `Delta 40-50 1 0.5`},
		"low memory": {Temporality{DeltaDurations: true}, `
			count Cumulative 10-20 3; gauge 3; ` + duration + `Delta 10-20 1 1
			count Cumulative 10-30 5; gauge 5; ` + duration + `Delta 20-30 2 4
			count Cumulative 10-40 6; gauge 6; ` + duration + `Delta 20-40 2 4
			count Cumulative 10-50 6; gauge 6; ` + duration + `Delta 40-50 1 0.5`},
	} {
		t.Run(name, func(t *testing.T) {
			r, e := NewRecorder(), NewEncoder(testResource(), "", 10, test.of)
			var got []string
			export := func(n uint64, now int64, taken bool) {
				got = append(got, strings.Join(points(encoded(t, e, r, counters(n), now, taken)), "; "))
			}
			r.Record(&server, 1e9, nil)
			export(3, 20, true)
			r.Record(&server, 2e9, nil)
			r.Record(&server, 2e9, nil)
			export(5, 30, false)
			export(6, 40, true)
			r.Record(&server, 5e8, nil)
			export(6, 50, true)
			var want []string
			for line := range strings.Lines(strings.TrimSpace(test.want)) {
				want = append(want, strings.TrimSpace(line))
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("points (-want +got):\n%s", d)
			}
		})
	}
}

// TestDeltaWithoutChange: a series that nothing was added to is not sent.
func TestDeltaWithoutChange(t *testing.T) {
	r, e := recorded(), NewEncoder(testResource(), "", 10, Temporality{DeltaDurations: true, DeltaCounters: true})
	encoded(t, e, r, nil, 20, true)
	if got := points(encoded(t, e, r, nil, 30, true)); got != nil {
		t.Errorf("points %v", got)
	}
}

// TestExemplars: the last of each bucket, of delta only new ones.
func TestExemplars(t *testing.T) {
	x := func(n byte) *Exemplar {
		return &Exemplar{At: int64(n), TraceID: [16]byte{n}, SpanID: [8]byte{n}}
	}
	list := func(md pmetric.Metrics) (out []string) {
		for _, rm := range md.ResourceMetrics().All() {
			for _, x := range rm.ScopeMetrics().At(0).Metrics().At(0).Histogram().DataPoints().At(0).Exemplars().All() {
				trace, span := x.TraceID(), x.SpanID()
				out = append(out, fmt.Sprintf("%d %g %d %d", x.Timestamp(), x.DoubleValue(), trace[0], span[0]))
			}
		}
		return out
	}
	for _, delta := range []bool{false, true} {
		t.Run(fmt.Sprintf("delta %t", delta), func(t *testing.T) {
			r, e := NewRecorder(), NewEncoder(testResource(), "", 10, Temporality{DeltaDurations: delta})
			r.Record(&server, 1e6, x(1))
			r.Record(&server, 2e6, x(2))
			r.Record(&server, 3e6, nil)
			r.Record(&server, 3e9, x(3))
			if d := cmp.Diff([]string{"2 0.002 2 2", "3 3 3 3"}, list(encoded(t, e, r, nil, 20, true))); d != "" {
				t.Errorf("exemplars (-want +got):\n%s", d)
			}
			r.Record(&server, 4e9, x(4))
			want := []string{"2 0.002 2 2", "4 4 4 4"}
			if delta {
				want = want[1:]
			}
			if d := cmp.Diff(want, list(encoded(t, e, r, nil, 30, true))); d != "" {
				t.Errorf("exemplars later (-want +got):\n%s", d)
			}
		})
	}
}
