package metric

import (
	"encoding/binary"
	"math"

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
	histogramAttributes = 9
	keyField            = 1 // KeyValue
	valueField          = 2
	stringValueField    = 1 // AnyValue
	boolValueField      = 2
	intValueField       = 3
	cumulativeTemporal  = 2
)

// Encoder writes ExportMetricsServiceRequest messages.
type Encoder struct {
	resource pcommon.Resource
	version  string
	start    uint64
}

// NewEncoder returns an Encoder of metrics of the given resource that count since
// start (ns since the Unix epoch), made by the given version of the program.
func NewEncoder(resource pcommon.Resource, version string, start int64) *Encoder {
	return &Encoder{resource, version, uint64(start)}
}

// Encode returns what the Recorder and the counters are at now (ns since the
// Unix epoch). Series of a container go under a resource that names it.
func (e *Encoder) Encode(r *Recorder, counters []Counter, now int64) []byte {
	all := r.snapshot()
	containers := []string{""}
	for i := range all {
		if c := all[i].of.Container; !contains(containers, c) {
			containers = append(containers, c)
		}
	}
	var request []byte
	for _, c := range containers {
		var metrics []byte
		for i := range instruments {
			metrics = e.appendHistogram(metrics, span.Instrument(i), c, all, uint64(now))
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
	return request
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
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
	points = appendVarint(points, temporalityField, cumulativeTemporal)
	m := appendDescription(instruments[n].name, "s", instruments[n].description)
	return appendMessage(b, metricsField, appendMessage(m, histogramField, points))
}

func (e *Encoder) histogramPoint(s *series, now uint64) []byte {
	b := appendFixed(nil, startTimeField, e.start)
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
	if s.overflow {
		return appendMessage(b, histogramAttributes, keyValue(overflowKey, appendVarint(nil, boolValueField, 1)))
	}
	for _, a := range attributesOf(s) {
		b = appendAttribute(b, histogramAttributes, a)
	}
	return b
}

const overflowKey = "otel.metric.overflow"

func (e *Encoder) appendCounter(b []byte, c *Counter, now uint64) []byte {
	var points []byte
	for _, p := range c.Points {
		var point []byte
		if !c.Gauge {
			point = appendFixed(point, startTimeField, e.start)
		}
		point = appendFixed(point, timeField, now)
		point = appendFixed(point, asIntField, p.N)
		if c.Attribute != "" {
			point = appendAttribute(point, numberAttributes, attribute{key: c.Attribute, text: p.Is})
		}
		points = appendMessage(points, dataPointsField, point)
	}
	kind := protowire.Number(gaugeField)
	if !c.Gauge {
		kind = sumField
		points = appendVarint(points, temporalityField, cumulativeTemporal)
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
