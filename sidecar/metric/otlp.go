package metric

import (
	"encoding/binary"
	"math"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/spile-dev/spile/sidecar/span"
)

// Field numbers of opentelemetry.proto.metrics.v1, by message.
const (
	resourceMetricsField = 1 // ExportMetricsServiceRequest

	resourceField       = 1 // ResourceMetrics
	scopeMetricsField   = 2
	resourceSchemaField = 3
	scopeField          = 1 // ScopeMetrics
	metricsField        = 2
	scopeSchemaField    = 3
	scopeNameField      = 1 // InstrumentationScope
	scopeVersionField   = 2
	nameField           = 1 // Metric
	descriptionField    = 2
	unitField           = 3
	gaugeField          = 5
	sumField            = 7
	histogramField      = 9
	dataPointsField     = 1 // Gauge, Sum, Histogram
	temporalityField    = 2
	monotonicField      = 3
	startTimeField      = 2 // NumberDataPoint, HistogramDataPoint
	timeField           = 3
	asIntField          = 6 // NumberDataPoint
	numberAttributes    = 7
	countField          = 4 // HistogramDataPoint
	histogramSumField   = 5
	bucketCountsField   = 6
	explicitBoundsField = 7
	exemplarsField      = 8
	histogramAttributes = 9
	exemplarTimeField   = 2 // Exemplar
	exemplarValueField  = 3
	exemplarSpanField   = 4
	exemplarTraceField  = 5
	keyField            = 1 // KeyValue
	valueField          = 2
	stringValueField    = 1 // AnyValue
	boolValueField      = 2
	intValueField       = 3
	deltaTemporal       = 1
	cumulativeTemporal  = 2
)

// Temporality says since when what is encoded counts.
type Temporality struct {
	DeltaDurations bool // histograms since the last export that was delivered, not since the start
	DeltaCounters  bool // the same of counters
}

// Encoder writes ExportMetricsServiceRequest messages. It is for one goroutine.
type Encoder struct {
	resource    pcommon.Resource
	version     string
	start       uint64
	temporality Temporality
	delivered   state
}

// state is what was delivered last, by delta temporality.
type state struct {
	at       uint64 // 0 before the first delivery
	series   []series
	counters map[point]uint64
}

// point names a point of a Counter: its value is 0.
type point struct {
	counter string
	Point
}

func nameOf(c *Counter, p Point) point {
	p.N = 0
	return point{c.Name, p}
}

// NewEncoder returns an Encoder of metrics of the given resource that count since
// start (ns since the Unix epoch), made by the given version of the program.
func NewEncoder(resource pcommon.Resource, version string, start int64, t Temporality) *Encoder {
	return &Encoder{resource: resource, version: version, start: uint64(start), temporality: t}
}

// Encode returns what the Recorder and the counters are at now (ns since the
// Unix epoch). Series of a container go under a resource that names it. The
// caller calls delivered when a backend took the request: by delta temporality
// the next begins where that ended, so that one which fails loses nothing.
func (e *Encoder) Encode(r *Recorder, counters []Counter, now int64) (request []byte, delivered func()) {
	all := r.snapshot()
	containers := []string{""}
	for i := range all {
		if c := all[i].of.Container; !slices.Contains(containers, c) {
			containers = append(containers, c)
		}
	}
	changed := e.durations(all)
	for _, c := range containers {
		var metrics []byte
		for i := range instruments {
			metrics = e.appendHistogram(metrics, span.Instrument(i), c, changed, uint64(now))
		}
		if c == "" {
			for i := range counters {
				metrics = e.appendCounter(metrics, &counters[i], uint64(now))
			}
		}
		if len(metrics) > 0 {
			request = appendMessage(request, resourceMetricsField, e.resourceMetrics(c, metrics))
		}
	}
	return request, func() { e.delivered = newState(all, counters, uint64(now)) }
}

func newState(all []series, counters []Counter, now uint64) state {
	s := state{at: now, series: all, counters: make(map[point]uint64)}
	for i := range counters {
		for _, p := range counters[i].Points {
			s.counters[nameOf(&counters[i], p)] = p.N
		}
	}
	return s
}

// durations returns the series as they are to be encoded: by delta temporality
// without what was delivered, and without those that have not changed since.
func (e *Encoder) durations(all []series) []series {
	if !e.temporality.DeltaDurations {
		return all
	}
	var changed []series
	for i := range all {
		s := all[i]
		if i < len(e.delivered.series) { // series are only ever added
			before := &e.delivered.series[i]
			s.sum -= before.sum
			for j := range s.buckets {
				s.buckets[j] -= before.buckets[j]
			}
			s.exemplars = slices.DeleteFunc(slices.Clone(s.exemplars), func(x Exemplar) bool {
				return slices.Contains(before.exemplars, x)
			})
		}
		if s.count() > 0 {
			changed = append(changed, s)
		}
	}
	return changed
}

// since returns the start of the interval that a point is about, and its kind.
func (e *Encoder) since(delta bool) (start uint64, temporality uint64) {
	switch {
	case !delta:
		return e.start, cumulativeTemporal
	case e.delivered.at == 0:
		return e.start, deltaTemporal
	}
	return e.delivered.at, deltaTemporal
}

func (e *Encoder) resourceMetrics(container string, metrics []byte) []byte {
	res := pcommon.NewResource()
	e.resource.CopyTo(res)
	if container != "" {
		res.Attributes().PutStr(span.ContainerKey, container)
	}
	scope := appendString(nil, scopeNameField, span.ScopeName)
	scope = appendString(scope, scopeVersionField, e.version)
	scopeMetrics := appendMessage(nil, scopeField, scope)
	scopeMetrics = append(scopeMetrics, metrics...)
	scopeMetrics = appendString(scopeMetrics, scopeSchemaField, span.SchemaURL)
	b := appendMessage(nil, resourceField, span.AppendResource(nil, res))
	b = appendMessage(b, scopeMetricsField, scopeMetrics)
	return appendString(b, resourceSchemaField, span.SchemaURL)
}

func (e *Encoder) appendHistogram(b []byte, n span.Instrument, container string, all []series, now uint64) []byte {
	var points []byte
	for i := range all {
		if s := &all[i]; s.of.Instrument == n && s.of.Container == container {
			points = appendMessage(points, dataPointsField, e.histogramPoint(s, now))
		}
	}
	if points == nil {
		return b
	}
	_, temporality := e.since(e.temporality.DeltaDurations)
	points = appendVarint(points, temporalityField, temporality)
	m := appendDescription(instruments[n].name, "s", instruments[n].description)
	return appendMessage(b, metricsField, appendMessage(m, histogramField, points))
}

func (e *Encoder) histogramPoint(s *series, now uint64) []byte {
	start, _ := e.since(e.temporality.DeltaDurations)
	b := appendFixed(nil, startTimeField, start)
	b = appendFixed(b, timeField, now)
	b = appendFixed(b, countField, s.count())
	b = appendFixed(b, histogramSumField, math.Float64bits(float64(s.sum)/1e9))
	packed := make([]byte, 0, 8*len(s.buckets))
	for _, n := range s.buckets {
		packed = binary.LittleEndian.AppendUint64(packed, n)
	}
	b = appendMessage(b, bucketCountsField, packed)
	packed = packed[:0]
	for _, bound := range bounds {
		packed = binary.LittleEndian.AppendUint64(packed, math.Float64bits(bound))
	}
	b = appendMessage(b, explicitBoundsField, packed)
	for i := range s.exemplars {
		b = appendMessage(b, exemplarsField, encodeExemplar(&s.exemplars[i]))
	}
	if s.overflow {
		return appendMessage(b, histogramAttributes, keyValue(overflowKey, appendVarint(nil, boolValueField, 1)))
	}
	for _, a := range attributesOf(s) {
		b = appendAttribute(b, histogramAttributes, a)
	}
	return b
}

func encodeExemplar(x *Exemplar) []byte {
	b := appendFixed(nil, exemplarTimeField, uint64(max(x.At, 0)))
	b = appendFixed(b, exemplarValueField, math.Float64bits(float64(x.ns)/1e9))
	b = appendMessage(b, exemplarSpanField, x.SpanID[:])
	return appendMessage(b, exemplarTraceField, x.TraceID[:])
}

const overflowKey = "otel.metric.overflow"

func (e *Encoder) appendCounter(b []byte, c *Counter, now uint64) []byte {
	var points []byte
	start, temporality := e.since(e.temporality.DeltaCounters)
	for _, p := range c.Points {
		var b []byte
		n := p.N
		if !c.Gauge {
			b = appendFixed(b, startTimeField, start)
			if e.temporality.DeltaCounters {
				n -= e.delivered.counters[nameOf(c, p)]
			}
		}
		b = appendFixed(b, timeField, now)
		b = appendFixed(b, asIntField, n)
		if p.Overflow {
			b = appendMessage(b, numberAttributes, keyValue(overflowKey, appendVarint(nil, boolValueField, 1)))
		} else {
			for _, a := range c.attributesOf(&p) {
				b = appendAttribute(b, numberAttributes, a)
			}
		}
		points = appendMessage(points, dataPointsField, b)
	}
	kind := protowire.Number(gaugeField)
	if !c.Gauge {
		kind = sumField
		points = appendVarint(points, temporalityField, temporality)
		points = appendVarint(points, monotonicField, 1)
	}
	m := appendDescription(c.Name, c.Unit, c.Description)
	return appendMessage(b, metricsField, appendMessage(m, kind, points))
}

func appendDescription(name, unit, description string) []byte {
	b := appendString(nil, nameField, name)
	b = appendString(b, descriptionField, description)
	return appendString(b, unitField, unit)
}

func appendAttribute(b []byte, field protowire.Number, a attribute) []byte {
	var value []byte
	if a.text != "" {
		value = appendString(nil, stringValueField, a.text)
	} else {
		value = appendVarint(nil, intValueField, uint64(a.num))
	}
	return appendMessage(b, field, keyValue(a.key, value))
}

func keyValue(key string, value []byte) []byte {
	return appendMessage(appendString(nil, keyField, key), valueField, value)
}

func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, message)
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendFixed(b []byte, field protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, field, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, v)
}
