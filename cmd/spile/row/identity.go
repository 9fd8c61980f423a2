package row

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// identity gives an exchange its ids. They are made of what was captured, and
// not at random, so that an exchange has the same ids in every format and
// however often a file is read. A traceparent in the request names the trace
// and the parent, as ever.
func (o *Options) identity(x *exchange.Exchange) span.Identity {
	id := o.Spans.Identify(x)
	key := make([]byte, 0, 96)
	key = x.Peers.Client.Addr().Unmap().AppendTo(key)
	key = x.Peers.Server.Addr().Unmap().AppendTo(append(key, ' '))
	for _, n := range []uint64{
		uint64(x.Peers.Client.Port()), uint64(x.Peers.Server.Port()), uint64(x.Role), uint64(x.Start),
		uint64(x.Wire.RequestSeq), uint64(x.Wire.RequestAck), uint64(x.Wire.StreamID), uint64(x.Wire.Index),
	} {
		key = binary.BigEndian.AppendUint64(key, n)
	}
	sum := sha256.Sum256(key)
	copy(id.SpanID[:], sum[:])
	if id.ParentSpanID == [8]byte{} {
		copy(id.TraceID[:], sum[len(id.SpanID):])
	}
	return id
}
