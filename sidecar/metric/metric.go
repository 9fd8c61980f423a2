// Package metric aggregates the durations of exchanges into the histograms of
// the semantic conventions, and writes them and the counters of the pipeline as
// OTLP or in Prometheus' text format. docs/metrics.md lists the metrics.
//
// Aggregation and encoding are written by hand, as spans are: see
// docs/decisions/metrics.md.
package metric

import (
	"slices"
	"strings"
	"sync"

	"github.com/spile-dev/spile/sidecar/span"
)

// MaxSeries is how many attribute sets an instrument may have, the overflow set
// among them (OpenTelemetry's metrics SDK, "Cardinality limits").
const MaxSeries = 1000

// bounds are the conventions' bucket boundaries, in seconds, and boundsNS the
// same in nanoseconds.
var (
	bounds   = [...]float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	boundsNS = [len(bounds)]uint64{5e6, 10e6, 25e6, 50e6, 75e6, 100e6, 250e6, 500e6, 750e6, 1e9, 2.5e9, 5e9, 7.5e9, 10e9}
)

// series is a histogram of durations with one set of attributes.
type series struct {
	of       span.Measurement
	overflow bool // of more sets than an instrument may have
	sum      uint64
	buckets  [len(bounds) + 1]uint64
	// exemplars has the last one of each bucket that had any.
	exemplars []Exemplar
}

// Exemplar is a measurement of its own, and the span that was measured.
type Exemplar struct {
	At      int64 // ns since the Unix epoch
	TraceID [16]byte
	SpanID  [8]byte

	ns     uint64
	bucket int
}

func (s *series) count() (n uint64) {
	for _, b := range s.buckets {
		n += b
	}
	return n
}

// Recorder aggregates measurements since its start. Any goroutine may use it.
type Recorder struct {
	mu       sync.Mutex
	series   []series
	index    map[span.Measurement]int
	sets     [span.NumInstruments]int // attribute sets, without overflow
	overflow [span.NumInstruments]int // index of the overflow series, plus one
	last     [span.NumInstruments]int // index of the series that was used last
}

// NewRecorder returns an empty Recorder.
func NewRecorder() *Recorder {
	return &Recorder{index: make(map[span.Measurement]int)}
}

// Record adds a duration in nanoseconds to the series of m. The exemplar is kept
// until another takes its place; it may be nil.
func (r *Recorder) Record(m *span.Measurement, ns uint64, x *Exemplar) {
	bucket := 0
	for bucket < len(boundsNS) && ns > boundsNS[bucket] {
		bucket++
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(m)
	s.buckets[bucket]++
	s.sum += ns
	if x != nil {
		s.keep(*x, bucket, ns)
	}
}

func (s *series) keep(x Exemplar, bucket int, ns uint64) {
	x.bucket, x.ns = bucket, ns
	for i := range s.exemplars {
		if s.exemplars[i].bucket == bucket {
			s.exemplars[i] = x
			return
		}
	}
	s.exemplars = append(s.exemplars, x)
}

func (r *Recorder) find(m *span.Measurement) *series {
	if i := r.last[m.Instrument]; i < len(r.series) && r.series[i].of == *m && !r.series[i].overflow {
		return &r.series[i] // most often, and cheaper than the hash of so many strings
	}
	if i, ok := r.index[*m]; ok {
		r.last[m.Instrument] = i
		return &r.series[i]
	}
	n := m.Instrument
	if r.sets[n] < MaxSeries-1 {
		of := *m
		// Those that may refer to the whole head of a message.
		of.ServerAddress, of.Method = strings.Clone(m.ServerAddress), strings.Clone(m.Method)
		r.sets[n]++
		r.index[of] = len(r.series)
		r.series = append(r.series, series{of: of})
		return &r.series[len(r.series)-1]
	}
	if r.overflow[n] == 0 {
		r.series = append(r.series, series{of: span.Measurement{Instrument: n}, overflow: true})
		r.overflow[n] = len(r.series)
	}
	return &r.series[r.overflow[n]-1]
}

// snapshot returns a copy of all series.
func (r *Recorder) snapshot() []series {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.series)
	for i := range all {
		all[i].exemplars = slices.Clone(all[i].exemplars)
	}
	return all
}

// instrument is what a histogram is called.
type instrument struct{ name, description string }

// instruments are those of span.Instrument; their unit is the second.
var instruments = [span.NumInstruments]instrument{
	span.HTTPServer: {"http.server.request.duration", "Duration of HTTP server requests."},
	span.HTTPClient: {"http.client.request.duration", "Duration of HTTP client requests."},
	span.RPCServer:  {"rpc.server.call.duration", "Measures the duration of an incoming Remote Procedure Call (RPC)."},
	span.RPCClient:  {"rpc.client.call.duration", "Measures the duration of an outgoing Remote Procedure Call (RPC)."},
}

// Counter is a metric of the pipeline: a count that only grows, or what is the
// case now. Its points differ by the value of one attribute.
type Counter struct {
	Name, Unit, Description string
	Gauge                   bool
	Attribute               string // "" if there is one point without attributes
	Points                  []Point
}

// Point is a value of a Counter.
type Point struct {
	Is string // of the attribute
	N  uint64

	Address  string // server.address, if there is one
	Port     uint16 // server.port, if there is one
	Overflow bool   // it stands for all that are too many, and has no other attribute
}

func (c *Counter) attributesOf(p *Point) []attribute {
	var out []attribute
	if p.Overflow {
		return []attribute{{key: overflowKey, text: "true"}}
	}
	if c.Attribute != "" {
		out = append(out, attribute{key: c.Attribute, text: p.Is})
	}
	if p.Address != "" {
		out = append(out, attribute{key: "server.address", text: p.Address})
	}
	if p.Port != 0 {
		out = append(out, attribute{key: "server.port", num: int64(p.Port)})
	}
	return out
}

// attribute is one of a point: a number if text is empty.
type attribute struct {
	key  string
	text string
	num  int64
}

// attributesOf returns the attributes of a series, those of its resource apart.
func attributesOf(s *series) []attribute {
	if s.overflow {
		return nil
	}
	var out []attribute
	m := &s.of
	text := func(key, value string) {
		if value != "" {
			out = append(out, attribute{key: key, text: value})
		}
	}
	num := func(key string, value uint16) {
		if value != 0 {
			out = append(out, attribute{key: key, num: int64(value)})
		}
	}
	switch m.Instrument {
	case span.HTTPServer, span.HTTPClient:
		text("http.request.method", m.Method)
		text("http.route", m.Route)
		num("http.response.status_code", m.Status)
		text("url.scheme", m.Scheme)
		text("network.protocol.version", m.Version)
	default:
		text("rpc.system.name", "grpc")
		text("rpc.method", m.Method)
		text("rpc.response.status_code", m.StatusCode)
	}
	text("error.type", m.ErrorType)
	text("server.address", m.ServerAddress)
	num("server.port", m.ServerPort)
	return out
}
