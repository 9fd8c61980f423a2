package metric

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"

	"github.com/spile-dev/spile/sidecar/span"
)

func testResource() pcommon.Resource {
	res := pcommon.NewResource()
	res.Attributes().PutStr("service.name", "cart")
	return res
}

var (
	server = span.Measurement{Instrument: span.HTTPServer, Container: "app", Method: "GET", Route: "/users/{id}", Scheme: "http", Status: 200, Version: "1.1"}
	failed = span.Measurement{Instrument: span.HTTPServer, Container: "app", Method: "GET", Scheme: "https", Status: 503, ErrorType: "503", Version: "1.1"}
	client = span.Measurement{Instrument: span.HTTPClient, Method: "POST", ErrorType: "reset", ServerAddress: `a"b\c`, ServerPort: 8080}
	rpc    = span.Measurement{Instrument: span.RPCServer, Method: "p.S/M", StatusCode: "OK", Version: "2"}
	call   = span.Measurement{Instrument: span.RPCClient, Method: "p.S/M", StatusCode: "UNAVAILABLE", ErrorType: "UNAVAILABLE", ServerAddress: "s", ServerPort: 9090, Version: "2"}
)

var someCounters = []Counter{
	{Name: "spile.spans.dropped", Unit: "{span}", Description: "Spans.", Attribute: "spile.drop.reason", Points: []Point{{Is: "queue_full", N: 7}, {Is: "unsampled"}}},
	{Name: "spile.queue.size", Unit: "By", Description: "Memory.", Gauge: true, Points: []Point{{N: 1 << 20}}},
}

func recorded() *Recorder {
	r := NewRecorder()
	for _, ns := range []uint64{0, 5e6, 5e6 + 1, 3e9, 20e9} {
		r.Record(&server, ns, nil)
	}
	for _, m := range []span.Measurement{failed, client, rpc, call} {
		r.Record(&m, 1e6, nil)
	}
	return r
}

// encoded decodes what is encoded, which a backend took or did not.
func encoded(t *testing.T, e *Encoder, r *Recorder, counters []Counter, now int64, taken bool) pmetric.Metrics {
	t.Helper()
	request, delivered := e.Encode(r, counters, now)
	md, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(request)
	if err != nil {
		t.Fatal(err)
	}
	if taken {
		delivered()
	}
	return md
}

// TestEncode builds with pdata what the encoder must have written.
func TestEncode(t *testing.T) {
	got := encoded(t, NewEncoder(testResource(), "1.2.3", 1000, Temporality{}), recorded(), someCounters, 2000, false)
	want := pmetric.NewMetrics()
	add := func(container string) pmetric.MetricSlice {
		rm := want.ResourceMetrics().AppendEmpty()
		testResource().CopyTo(rm.Resource())
		if container != "" {
			rm.Resource().Attributes().PutStr("k8s.container.name", container)
		}
		rm.SetSchemaUrl(span.SchemaURL)
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName(span.ScopeName)
		sm.Scope().SetVersion("1.2.3")
		sm.SetSchemaUrl(span.SchemaURL)
		return sm.Metrics()
	}
	histogram := func(to pmetric.MetricSlice, name, description string) func(sum float64, buckets map[int]uint64, attrs map[string]any) {
		m := to.AppendEmpty()
		m.SetName(name)
		m.SetUnit("s")
		m.SetDescription(description)
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		return func(sum float64, buckets map[int]uint64, attrs map[string]any) {
			p := h.DataPoints().AppendEmpty()
			p.SetStartTimestamp(1000)
			p.SetTimestamp(2000)
			p.SetSum(sum)
			counts := make([]uint64, 15)
			for i, n := range buckets {
				counts[i] = n
				p.SetCount(p.Count() + n)
			}
			p.BucketCounts().FromRaw(counts)
			p.ExplicitBounds().FromRaw([]float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10})
			if err := p.Attributes().FromRaw(attrs); err != nil {
				t.Fatal(err)
			}
		}
	}
	own := add("")
	histogram(own, httpconv.ClientRequestDuration{}.Name(), httpconv.ClientRequestDuration{}.Description())(0.001, map[int]uint64{0: 1},
		map[string]any{"http.request.method": "POST", "error.type": "reset", "server.address": `a"b\c`, "server.port": 8080})
	histogram(own, rpcconv.ServerCallDuration{}.Name(), rpcconv.ServerCallDuration{}.Description())(0.001, map[int]uint64{0: 1},
		map[string]any{"rpc.system.name": "grpc", "rpc.method": "p.S/M", "rpc.response.status_code": "OK"})
	histogram(own, rpcconv.ClientCallDuration{}.Name(), rpcconv.ClientCallDuration{}.Description())(0.001, map[int]uint64{0: 1},
		map[string]any{
			"rpc.system.name": "grpc", "rpc.method": "p.S/M", "rpc.response.status_code": "UNAVAILABLE",
			"error.type": "UNAVAILABLE", "server.address": "s", "server.port": 9090,
		})
	m := own.AppendEmpty()
	m.SetName("spile.spans.dropped")
	m.SetUnit("{span}")
	m.SetDescription("Spans.")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for _, p := range someCounters[0].Points {
		dp := sum.DataPoints().AppendEmpty()
		dp.SetStartTimestamp(1000)
		dp.SetTimestamp(2000)
		dp.SetIntValue(int64(p.N))
		dp.Attributes().PutStr("spile.drop.reason", p.Is)
	}
	m = own.AppendEmpty()
	m.SetName("spile.queue.size")
	m.SetUnit("By")
	m.SetDescription("Memory.")
	dp := m.SetEmptyGauge().DataPoints().AppendEmpty()
	dp.SetTimestamp(2000)
	dp.SetIntValue(1 << 20)
	h := histogram(add("app"), httpconv.ServerRequestDuration{}.Name(), httpconv.ServerRequestDuration{}.Description())
	h(23.010000001, map[int]uint64{0: 2, 1: 1, 11: 1, 14: 1}, map[string]any{
		"http.request.method": "GET", "http.route": "/users/{id}",
		"http.response.status_code": 200, "url.scheme": "http", "network.protocol.version": "1.1",
	})
	h(0.001, map[int]uint64{0: 1}, map[string]any{
		"http.request.method": "GET", "http.response.status_code": 503, "url.scheme": "https",
		"network.protocol.version": "1.1", "error.type": "503",
	})
	if d := cmp.Diff(attributesSorted(t, want), attributesSorted(t, got)); d != "" {
		t.Errorf("metrics (-pdata +encoder):\n%s", d)
	}
}

// attributesSorted is the JSON of metrics, with attributes in order.
func attributesSorted(t *testing.T, md pmetric.Metrics) string {
	t.Helper()
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Type() != pmetric.MetricTypeHistogram {
				continue
			}
			for _, p := range m.Histogram().DataPoints().All() {
				sorted := pcommon.NewMap()
				for _, k := range slices.Sorted(maps.Keys(p.Attributes().AsRaw())) {
					v, _ := p.Attributes().Get(k)
					v.CopyTo(sorted.PutEmpty(k))
				}
				sorted.CopyTo(p.Attributes())
			}
		}
	}
	b, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(md)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), `{"name"`, "\n"+`{"name"`)
}

// TestOverflow: an instrument has MaxSeries attribute sets at most, and every
// measurement counts.
func TestOverflow(t *testing.T) {
	const all = 3 * MaxSeries
	r := NewRecorder()
	for i := range all {
		m := client
		m.ServerAddress = fmt.Sprintf("host-%d", i)
		r.Record(&m, 1e6, nil)
		r.Record(&m, 2e6, nil)
		r.Record(&server, 1, nil)
	}
	md := encoded(t, NewEncoder(testResource(), "", 0, Temporality{}), r, nil, 1, false)
	points := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Histogram().DataPoints()
	if points.Len() != MaxSeries {
		t.Errorf("%d points, want %d", points.Len(), MaxSeries)
	}
	total := uint64(0)
	for _, p := range points.All() {
		total += p.Count()
		if overflow, ok := p.Attributes().Get("otel.metric.overflow"); ok {
			if !overflow.Bool() || p.Attributes().Len() != 1 || p.Count() != 2*(all-MaxSeries+1) {
				t.Errorf("overflow point with %v, count %d", p.Attributes().AsRaw(), p.Count())
			}
		}
	}
	if total != 2*all {
		t.Errorf("%d measurements, want %d", total, 2*all)
	}
}

// TestBuckets holds the buckets against the definition: (lower, upper].
func TestBuckets(t *testing.T) {
	for range 10000 {
		ns := rand.Uint64N(20e9)
		if rand.N(4) == 0 {
			ns = boundsNS[rand.N(len(boundsNS))] + rand.Uint64N(3) - 1
		}
		r := NewRecorder()
		r.Record(&server, ns, nil)
		want := 0
		for want < len(bounds) && float64(ns)/1e9 > bounds[want] {
			want++
		}
		if r.series[0].buckets[want] != 1 {
			t.Fatalf("%d ns: buckets %v, want it in %d", ns, r.series[0].buckets, want)
		}
	}
}

// TestTargetLabels: names that become the same, or begin with a digit, are no reason
// for Prometheus to refuse a scrape.
func TestTargetLabels(t *testing.T) {
	resource := testResource()
	for k, v := range map[string]string{"service_name": "b", "service-name": "a", "9.x": "c", "empty": "", "é": "d"} {
		resource.Attributes().PutStr(k, v)
	}
	var out bytes.Buffer
	if err := WriteText(&out, resource, NewRecorder(), nil); err != nil {
		t.Fatal(err)
	}
	const want = `target_info{key_9_x="c",service_name="a;cart;b",_="d"} 1` + "\n"
	if _, got, _ := strings.Cut(out.String(), "gauge\n"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWriteText(t *testing.T) {
	r := NewRecorder()
	r.Record(&client, 3e6, nil)
	r.Record(&server, 30e9, nil)
	var out bytes.Buffer
	if err := WriteText(&out, testResource(), r, someCounters); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# TYPE target_info gauge\ntarget_info{service_name=\"cart\"} 1\n",
		"# TYPE http_server_request_duration_seconds histogram\n",
		`http_server_request_duration_seconds_bucket{http_request_method="GET",http_route="/users/{id}",http_response_status_code="200",url_scheme="http",network_protocol_version="1.1",k8s_container_name="app",le="10"} 0` + "\n",
		`k8s_container_name="app",le="+Inf"} 1` + "\n",
		`http_client_request_duration_seconds_sum{http_request_method="POST",error_type="reset",server_address="a\"b\\c",server_port="8080"} 0.003` + "\n",
		"# TYPE spile_spans_dropped_total counter\nspile_spans_dropped_total{spile_drop_reason=\"queue_full\"} 7\n",
		"# TYPE spile_queue_size_bytes gauge\nspile_queue_size_bytes 1048576\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q in\n%s", want, out.String())
		}
	}
	line := regexp.MustCompile(`^(#.*|[a-z_]+(\{[a-z0-9_]+="([^"\\]|\\.)*"(,[a-z0-9_]+="([^"\\]|\\.)*")*\})? [0-9.e+]+)$`)
	for l := range strings.Lines(out.String()) {
		if !line.MatchString(strings.TrimSuffix(l, "\n")) {
			t.Errorf("malformed line %q", l)
		}
	}
}

// TestDocumented holds docs/metrics.md against the instruments.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range instruments {
		if !strings.Contains(string(page), "| `"+i.name+"` |") {
			t.Errorf("docs/metrics.md lacks %s", i.name)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	r := NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		r.Record(&server, 7e6, nil)
	}
}
