package export

import (
	"slices"
	"time"
)

// maxBatchBytes closes a batch early: gRPC servers take 4 MiB by default.
const maxBatchBytes = 1 << 20

// openBatch gathers encoded spans, by container. Its memory is kept from batch
// to batch.
type openBatch struct {
	parts  []part
	spans  int
	bytes  int
	opened time.Time
}

type part struct {
	container string
	spans     []byte // ScopeSpans.spans fields
}

func (o *openBatch) add(container string, encoded []byte) {
	i := 0
	for i < len(o.parts) && o.parts[i].container != container {
		i++
	}
	if i == len(o.parts) {
		o.parts = append(o.parts, part{container: container})
	}
	p := &o.parts[i]
	before := len(p.spans)
	p.spans = appendBytes(p.spans, fieldSpan, encoded)
	o.spans++
	o.bytes += len(p.spans) - before
}

// seal returns the batch as a request of exactly the size that it needs, and
// opens a new one.
func (o *openBatch) seal(env *envelope) *batch {
	size := 0
	for i := range o.parts {
		if p := &o.parts[i]; len(p.spans) > 0 {
			size += len(p.spans) + len(env.resourceOf(p.container)) + len(env.scope) + 256
		}
	}
	request := make([]byte, 0, size)
	for i := range o.parts {
		p := &o.parts[i]
		if len(p.spans) == 0 {
			continue
		}
		request = env.appendResourceSpans(request, p.container, p.spans)
		p.spans = p.spans[:0]
	}
	b := &batch{request: request, spans: o.spans}
	o.spans, o.bytes = 0, 0
	return b
}

// batch is a request that waits in the queue, or is on its way.
type batch struct {
	request []byte // ExportTraceServiceRequest; never written again
	packed  bool   // request is compressed
	spans   int

	// What is known of a batch that failed and could be tried again.
	failures int
	strikes  int       // failures right after the backend took another batch
	since    time.Time // of the first strike
}

// queue holds sealed batches, oldest first, within bounds.
type queue struct {
	batches  []*batch
	spans    int
	bytes    int
	inFlight *batch // the one that is being sent: it cannot be dropped then
}

func (q *queue) push(b *batch) {
	q.batches = append(q.batches, b)
	q.spans += b.spans
	q.bytes += cap(b.request)
}

// shed removes the oldest batches until the queue is within its bounds and
// returns how many spans they had.
func (q *queue) shed(maxSpans, maxBytes int) (spans int) {
	for q.spans > maxSpans || q.bytes > maxBytes {
		i := 0
		if i < len(q.batches) && q.batches[i] == q.inFlight {
			i++
		}
		if i >= len(q.batches) {
			break
		}
		spans += q.batches[i].spans
		q.remove(i)
	}
	return spans
}

func (q *queue) remove(i int) {
	b := q.batches[i]
	q.spans -= b.spans
	q.bytes -= cap(b.request)
	copy(q.batches[i:], q.batches[i+1:])
	q.batches[len(q.batches)-1] = nil
	q.batches = q.batches[:len(q.batches)-1]
}

// take marks a batch as in flight and returns it: of those that failed least often
// the oldest, so that one which never succeeds does not block the others; nil if
// there is none.
func (q *queue) take() *batch {
	for _, b := range q.batches {
		if q.inFlight == nil || b.failures < q.inFlight.failures {
			q.inFlight = b
		}
	}
	return q.inFlight
}

// settle ends the flight of the batch that take returned; done removes it.
func (q *queue) settle(done bool) {
	if done {
		q.remove(slices.Index(q.batches, q.inFlight))
	}
	q.inFlight = nil
}

// packable returns the oldest batch that waits uncompressed, nil if there is
// none.
func (q *queue) packable() *batch {
	for _, b := range q.batches {
		if b != q.inFlight && !b.packed {
			return b
		}
	}
	return nil
}

// pack puts the compressed request in place of the batch's, if the batch is
// still queued.
func (q *queue) pack(b *batch, compressed []byte) {
	i := slices.Index(q.batches, b)
	if i < 0 || b == q.inFlight {
		return
	}
	q.bytes += cap(compressed) - cap(b.request)
	packed := *b
	packed.request, packed.packed = compressed, true
	q.batches[i] = &packed
}
