package span

import (
	"strings"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// extractB3 reads B3 (https://github.com/openzipkin/b3-propagation): the single
// field b3 if it is valid, else the X-B3-* fields. If neither names a parent, the
// context may still say that the trace is not sampled.
func extractB3(fields exchange.Fields) (tc traceContext, ok bool) {
	var single, trace, span, sampling, flags string
	for i := range fields {
		name, value := fields[i].Name, fields[i].Value
		switch len(name) {
		case len("b3"):
			if equalFold(name, "b3") {
				single = value
			}
		case len("X-B3-TraceId"):
			switch {
			case equalFold(name, "X-B3-TraceId"):
				trace = value
			case equalFold(name, "X-B3-Sampled"):
				sampling = value
			}
		case len("X-B3-SpanId"):
			if equalFold(name, "X-B3-SpanId") {
				span = value
			}
		case len("X-B3-Flags"):
			if equalFold(name, "X-B3-Flags") {
				flags = value
			}
		}
	}
	if single != "" {
		if tc, ok = parseB3(single); ok || tc.decision == notSampled {
			return tc, ok
		}
	}
	if flags == "1" { // debug
		sampling = "1"
	}
	return b3Context(trace, span, sampling)
}

// parseB3 parses trace-id "-" span-id ["-" sampling ["-" parent-span-id]], or
// the sampling state alone.
func parseB3(s string) (traceContext, bool) {
	trace, rest, ok := strings.Cut(s, "-")
	if !ok {
		return b3Context("", "", trace)
	}
	span, rest, _ := strings.Cut(rest, "-")
	sampling, _, _ := strings.Cut(rest, "-")
	if sampling == "d" {
		sampling = "1"
	}
	return b3Context(trace, span, sampling)
}

func b3Context(trace, span, sampling string) (tc traceContext, ok bool) {
	switch sampling {
	case "":
	case "1", "true", "True":
		tc.decision = sampled
	case "0", "false", "False":
		tc.decision = notSampled
	default:
		return traceContext{}, false
	}
	id := tc.traceID[:]
	if len(trace) == 16 {
		id = id[8:]
	}
	if len(trace) != 2*len(id) || len(span) != 16 || !decodeHex(id, trace) || !decodeHex(tc.spanID[:], span) ||
		tc.traceID == [16]byte{} || tc.spanID == [8]byte{} {
		return traceContext{decision: tc.decision}, false
	}
	return tc, true
}
