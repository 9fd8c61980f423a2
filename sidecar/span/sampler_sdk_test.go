package span

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// sdkSamplers are those of OpenTelemetry's Go SDK by the names of
// OTEL_TRACES_SAMPLER.
func sdkSamplers(ratio float64) map[string]sdktrace.Sampler {
	on, off, byRatio := sdktrace.AlwaysSample(), sdktrace.NeverSample(), sdktrace.TraceIDRatioBased(ratio)
	return map[string]sdktrace.Sampler{
		"always_on": on, "always_off": off, "traceidratio": byRatio,
		"parentbased_always_on": sdktrace.ParentBased(on), "parentbased_always_off": sdktrace.ParentBased(off),
		"parentbased_traceidratio": sdktrace.ParentBased(byRatio),
	}
}

// fixedID makes the SDK's root spans be of a given trace.
type fixedID struct{ id trace.TraceID }

func (f *fixedID) NewIDs(context.Context) (trace.TraceID, trace.SpanID) {
	return f.id, trace.SpanID{1}
}
func (f *fixedID) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return trace.SpanID{1} }

// TestSamplersOfTheSDK: every sampler decides as the SDK's does, for requests with
// and without a parent; the span is in the same trace, under the same parent, with
// the same flag and tracestate.
func TestSamplersOfTheSDK(t *testing.T) {
	for _, ratio := range []float64{0, 1e-9, 0.001, 0.25, 1.0 / 3, 0.5, 0.999, 1} {
		for name, sampler := range sdkSamplers(ratio) {
			s, err := ParseSampler(name, fmt.Sprint(ratio))
			if err != nil {
				t.Fatal(err)
			}
			cfg := Default()
			cfg.Sampler = s
			ids := &fixedID{}
			tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithIDGenerator(ids)).Tracer("")
			b := NewBuilder(cfg)
			for range 2000 {
				header := someParent(ratio)
				if !sameAsSDK(t, b, tracer, ids, header) {
					t.Fatalf("sampler %s, ratio %g, request %v", name, ratio, header)
				}
			}
		}
	}
}

// someParent returns the fields of a request: without a parent, or with one whose
// trace id is near the bound of the ratio, half of them.
func someParent(ratio float64) http.Header {
	h := http.Header{}
	if rand.N(4) == 0 {
		return h
	}
	low := rand.Uint64()
	if rand.N(2) == 0 {
		low = uint64(ratio*(1<<63))<<1 + rand.Uint64N(9) - 4
	}
	h.Set("traceparent", fmt.Sprintf("00-%016x%016x-%016x-%02x", rand.Uint64()|1, low, rand.Uint64()|1, rand.N(4)))
	if rand.N(2) == 0 {
		h.Set("tracestate", "ot=th:8,vendor=1")
	}
	return h
}

func sameAsSDK(t *testing.T, b *Builder, tracer trace.Tracer, ids *fixedID, header http.Header) bool {
	t.Helper()
	var fields exchange.Fields
	for name, values := range header {
		fields = append(fields, exchange.Field{Name: name, Value: values[0]})
	}
	got := b.Identify(&exchange.Exchange{Request: exchange.Request{Fields: fields}})
	ids.id = got.TraceID
	ctx := propagation.TraceContext{}.Extract(t.Context(), propagation.HeaderCarrier(header))
	parent := trace.SpanContextFromContext(ctx)
	_, span := tracer.Start(ctx, "")
	want := span.SpanContext()
	if got.TraceID != want.TraceID() || got.ParentSpanID != parent.SpanID() || got.Sampled != want.IsSampled() ||
		got.TraceState != want.TraceState().String() || got.Flags&flagSampled != byte(want.TraceFlags())&flagSampled {
		t.Errorf("got %+v\nwant %+v", got, want)
		return false
	}
	return true
}
