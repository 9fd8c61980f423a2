package span

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// Sampler decides which spans are exported, by the trace id and the parent's
// sampled flag alone, so that every span of a trace fares alike.
type Sampler struct {
	name        string
	parentBased bool
	// bound is what the lower 63 bits of a trace id must be less than, as
	// otel-go's TraceIDRatioBased has it, so that both keep the same traces.
	bound uint64
	ratio float64
}

const always = 1 << 63

const acceptedSamplers = "always_on, always_off, traceidratio, parentbased_always_on, " +
	"parentbased_always_off, parentbased_traceidratio"

// ParseSampler returns the sampler of OTEL_TRACES_SAMPLER and
// OTEL_TRACES_SAMPLER_ARG; the argument counts for the ratio samplers only and
// is 1 if empty.
func ParseSampler(name, arg string) (Sampler, error) {
	s := Sampler{name: name}
	root := name
	if rest, ok := strings.CutPrefix(name, "parentbased_"); ok {
		s.parentBased, root = true, rest
	}
	switch root {
	case "always_on":
		s.bound, s.ratio = always, 1
	case "always_off":
	case "traceidratio":
		s.bound, s.ratio = always, 1
		if arg == "" {
			break
		}
		ratio, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(ratio >= 0 && ratio <= 1) {
			return s, fault("OTEL_TRACES_SAMPLER_ARG", arg, "a ratio from 0 to 1")
		}
		s.ratio = ratio
		if ratio < 1 {
			s.bound = uint64(ratio * always)
		}
	default:
		return Sampler{}, fault("OTEL_TRACES_SAMPLER", name, "one of "+acceptedSamplers)
	}
	return s, nil
}

// sample decides about a span of the trace; remote is what its sender decided.
func (s *Sampler) sample(trace *[16]byte, remote decision) bool {
	if s.parentBased && remote != deferred {
		return remote == sampled
	}
	return binary.BigEndian.Uint64(trace[8:])>>1 < s.bound
}

func (s Sampler) String() string {
	if strings.HasSuffix(s.name, "traceidratio") {
		return fmt.Sprintf("%s=%g", s.name, s.ratio)
	}
	return s.name
}

// MarshalText returns the sampler's name, with its ratio after "=".
func (s Sampler) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
