package export

import (
	"slices"
	"time"
)

// maxBatchBytes closes a batch early: gRPC servers take 4 MiB by default.
const maxBatchBytes = 1 << 20

// openBatch gathers encoded spans, by container.
type openBatch struct {
	parts  []part
	spans  int
	bytes  int
	opened time.Time
	spare  []byte // memory of a batch that has left, for the next one
}

// part is what a request has of one container. In front of the spans, which are
// ScopeSpans.spans fields, there is room for what comes before them in a request.
type part struct {
	container string
	buf       []byte
	room      int
}

func (p *part) spans() []byte { return p.buf[p.room:] }

// maxSpare bounds the memory that is kept for the next batch.
const maxSpare = 512 << 10

// part returns the part of a container, to which a span is to be appended.
func (o *openBatch) part(env *envelope, container string) *part {
	i := 0
	for i < len(o.parts) && o.parts[i].container != container {
		i++
	}
	if i == len(o.parts) {
		o.parts = append(o.parts, part{container: container, room: env.headerRoom(container)})
	}
	p := &o.parts[i]
	if p.buf == nil {
		p.buf, o.spare = append(o.spare[:0], make([]byte, p.room)...), nil
	}
	return p
}

// beginSpan appends the start of a span field, whose length endSpan fills in.
func beginSpan(b []byte) []byte { return append(b, fieldSpan<<3|2, 0, 0) }

// endSpan ends the span field that begins at an index.
func endSpan(b []byte, at int) []byte {
	const header = 3
	n := len(b) - at - header
	if n >= 1<<7 && n < 1<<14 { // a varint of two bytes
		b[at+1], b[at+2] = byte(n)|0x80, byte(n>>7)
		return b
	}
	span := slices.Clone(b[at+header:])
	return appendBytes(b[:at], fieldSpan, span)
}

// seal returns the batch as a request, and opens a new one. With lend, the request
// may be in the memory of the batch, else it takes exactly what it needs.
func (o *openBatch) seal(env *envelope, lend bool) *batch {
	b := &batch{spans: o.spans}
	o.spans, o.bytes = 0, 0
	var used *part
	size := 0
	for i := range o.parts {
		if p := &o.parts[i]; len(p.buf) > p.room {
			used, lend = p, lend && used == nil
			size += len(p.spans()) + len(env.resourceOf(p.container)) + len(env.scope) + 256
		}
	}
	if lend && used != nil {
		b.memory = used.buf
		b.request = env.wrap(used.buf, used.room, used.container)
		used.buf = nil
		return b
	}
	b.request = make([]byte, 0, size)
	for i := range o.parts {
		if p := &o.parts[i]; len(p.buf) > p.room {
			b.request = env.appendResourceSpans(b.request, p.container, p.spans())
			p.buf = p.buf[:p.room]
		}
	}
	return b
}

// takeBack keeps the memory of a batch that has left for the next.
func (o *openBatch) takeBack(b *batch) {
	if b.memory != nil && cap(b.memory) <= maxSpare {
		o.spare = b.memory
	}
}

// batch is a request that waits in the queue, or is on its way.
type batch struct {
	request []byte // ExportTraceServiceRequest; never written again
	memory  []byte // that request lies in, if it is to be used again
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
	packed.request, packed.memory, packed.packed = compressed, nil, true
	q.batches[i] = &packed
}
