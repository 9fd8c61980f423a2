package span

import (
	"errors"
	"slices"
	"strings"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// Propagators of OTEL_PROPAGATORS.
const (
	propagatorTraceContext = "tracecontext"
	propagatorBaggage      = "baggage" // carries nothing that a span shows
	propagatorB3           = "b3"
	propagatorB3Multi      = "b3multi"
	propagatorNone         = "none"
)

var (
	acceptedPropagators = []string{
		propagatorTraceContext, propagatorBaggage, propagatorB3, propagatorB3Multi, propagatorNone,
	}
	defaultPropagators = []string{propagatorTraceContext, propagatorBaggage}
)

// decision is what the sender of a request decided about sampling.
type decision uint8

const (
	deferred decision = iota // it left that to whoever comes next (B3)
	notSampled
	sampled
)

// extract returns the parent that the request names by one of the configured
// propagators: the last of them that finds one, as later ones override earlier
// ones in the SDKs.
func (b *Builder) extract(fields exchange.Fields) (tc traceContext, ok bool) {
	for _, p := range b.cfg.Propagators {
		var found traceContext
		valid := false
		switch p {
		case propagatorTraceContext:
			found, valid = extractW3C(fields)
		case propagatorB3, propagatorB3Multi: // either reads both forms
			found, valid = extractB3(fields)
		}
		switch {
		case valid:
			tc, ok = found, true
		case !ok && found.decision == notSampled:
			tc.decision = notSampled
		}
	}
	return tc, ok
}

func propagators(getenv func(string) string) ([]string, error) {
	const name = "OTEL_PROPAGATORS"
	var out []string
	var faults []error
	for _, item := range items(getenv(name)) {
		item = strings.ToLower(item)
		switch {
		case !slices.Contains(acceptedPropagators, item):
			faults = append(faults, fault(name, item, "a list of "+strings.Join(acceptedPropagators, ", ")))
		case !slices.Contains(out, item):
			out = append(out, item)
		}
	}
	if slices.Contains(out, propagatorNone) {
		if len(out) > 1 {
			faults = append(faults, fault(name, getenv(name), "none alone, or a list without it"))
		}
		return []string{propagatorNone}, errors.Join(faults...)
	}
	if len(out) == 0 {
		out = defaultPropagators
	}
	return out, errors.Join(faults...)
}
