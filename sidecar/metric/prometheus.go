package metric

import (
	"bufio"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/spile-dev/spile/sidecar/span"
)

// ContentType is that of WriteText.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// WriteText writes what the Recorder and the counters are in Prometheus' text
// format, with names as OpenTelemetry's "Prometheus and OpenMetrics
// Compatibility" has them. The resource's attributes are those of target_info.
func WriteText(w io.Writer, resource pcommon.Resource, r *Recorder, counters []Counter) error {
	p := text{bufio.NewWriter(w)}
	p.describe("target_info", "gauge", "Target metadata")
	p.sample("target_info", targetLabels(resource), "1")
	all := r.snapshot()
	for i := range instruments {
		p.histogram(span.Instrument(i), all)
	}
	for i := range counters {
		p.counter(&counters[i])
	}
	return p.Flush()
}

// targetLabels are the attributes of a resource. Prometheus takes no label twice: of
// attributes whose names become the same the values are joined, in the order of the
// names.
func targetLabels(resource pcommon.Resource) (labels []attribute) {
	attributes := resource.Attributes()
	index := make(map[string]int)
	for _, key := range slices.Sorted(maps.Keys(attributes.AsRaw())) {
		v, _ := attributes.Get(key)
		value, name := v.AsString(), promLabel(key)
		if value == "" {
			continue
		}
		if i, ok := index[name]; ok {
			labels[i].text += ";" + value
			continue
		}
		index[name] = len(labels)
		labels = append(labels, attribute{key: key, text: value})
	}
	return labels
}

// text writes the format; a write error is bufio's to keep.
type text struct{ *bufio.Writer }

func (p text) put(parts ...string) {
	for _, s := range parts {
		_, _ = p.WriteString(s)
	}
}

func (p text) describe(name, kind, description string) {
	p.put("# HELP ", name, " ", description, "\n# TYPE ", name, " ", kind, "\n")
}

func (p text) histogram(n span.Instrument, all []series) {
	name := promName(instruments[n].name) + "_seconds"
	described := false
	for i := range all {
		s := &all[i]
		if s.of.Instrument != n {
			continue
		}
		if !described {
			p.describe(name, "histogram", instruments[n].description)
			described = true
		}
		labels := attributesOf(s)
		if s.overflow {
			labels = []attribute{{key: overflowKey, text: "true"}}
		}
		if s.of.Container != "" {
			labels = append(labels, attribute{key: span.ContainerKey, text: s.of.Container})
		}
		total := uint64(0)
		for i, n := range s.buckets {
			total += n
			le := "+Inf"
			if i < len(bounds) {
				le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
			}
			p.sample(name+"_bucket", append(labels[:len(labels):len(labels)], attribute{key: "le", text: le}), strconv.FormatUint(total, 10))
		}
		p.sample(name+"_sum", labels, strconv.FormatFloat(float64(s.sum)/1e9, 'g', -1, 64))
		p.sample(name+"_count", labels, strconv.FormatUint(total, 10))
	}
}

func (p text) counter(c *Counter) {
	name, kind := promName(c.Name), "gauge"
	if c.Unit == "By" {
		name += "_bytes"
	}
	if !c.Gauge {
		name, kind = name+"_total", "counter"
	}
	p.describe(name, kind, c.Description)
	for _, point := range c.Points {
		p.sample(name, c.attributesOf(&point), strconv.FormatUint(point.N, 10))
	}
}

func (p text) sample(name string, labels []attribute, value string) {
	p.put(name)
	for i, l := range labels {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		v := l.text
		if v == "" {
			v = strconv.FormatInt(l.num, 10)
		}
		p.put(sep, promLabel(l.key), `="`, escape.Replace(v), `"`)
	}
	if len(labels) > 0 {
		p.put("}")
	}
	p.put(" ", value, "\n")
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// promLabel is promName of a label, which does not begin with a digit.
func promLabel(key string) string {
	name := promName(key)
	if name != "" && '0' <= name[0] && name[0] <= '9' {
		return "key_" + name
	}
	return name
}

func promName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_':
			return r
		}
		return '_'
	}, s)
}
