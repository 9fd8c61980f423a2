package span

import (
	cryptorand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// Identity is a span's place in a trace. It is apart from the span so that it
// can be decided later than the exchange ends.
type Identity struct {
	TraceID      [16]byte
	SpanID       [8]byte
	ParentSpanID [8]byte // zero for a root
	Flags        byte    // W3C trace flags of this span
	TraceState   string  // W3C tracestate
	Sampled      bool    // whether the span is to be exported
}

// Identify returns the identity of the exchange's span. A parent that the request
// names by one of the configured propagators is the remote parent, in either
// role; without one the span is the root of a new trace.
func (b *Builder) Identify(x *exchange.Exchange) Identity {
	id := Identity{SpanID: b.ids.spanID()}
	tc, ok := b.extract(x.Request.Fields)
	if ok {
		id.TraceID, id.ParentSpanID, id.TraceState = tc.traceID, tc.spanID, tc.state
	} else {
		id.TraceID, tc.flags = b.ids.traceID(), flagRandom
	}
	id.Sampled = b.cfg.Sampler.sample(&id.TraceID, tc.decision)
	id.Flags = tc.flags &^ flagSampled
	if id.Sampled {
		id.Flags |= flagSampled
	}
	return id
}

// idSource makes random ids. Its generator is a stream cipher under a key from
// the operating system: as unpredictable, without a system call for each id.
type idSource struct{ *rand.ChaCha8 }

func newIDSource() *idSource {
	var seed [32]byte
	cryptorand.Read(seed[:]) // never fails: crypto/rand aborts the program instead
	return &idSource{rand.NewChaCha8(seed)}
}

func (s *idSource) spanID() (id [8]byte) {
	binary.NativeEndian.PutUint64(id[:], s.nonZero())
	return id
}

func (s *idSource) traceID() (id [16]byte) {
	binary.NativeEndian.PutUint64(id[:8], s.Uint64())
	binary.NativeEndian.PutUint64(id[8:], s.nonZero())
	return id
}

func (s *idSource) nonZero() uint64 {
	for {
		if v := s.Uint64(); v != 0 {
			return v
		}
	}
}
