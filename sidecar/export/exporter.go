// Package export sends spans to an OpenTelemetry backend by OTLP, and accounts
// for each: seen = exported + Σ dropped{reason} + queued, at any moment.
package export

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// Reason says why a span was not exported.
type Reason string

const (
	// ExcludedPath: the configuration leaves the path out.
	ExcludedPath Reason = "excluded_path"
	// Probe: a probe of the kubelet.
	Probe Reason = "probe"
	// Scrape: a scrape of metrics.
	Scrape Reason = "scrape"
	// Unsampled: the sampler decided against it.
	Unsampled Reason = "unsampled"
	// Disabled: the configuration names no exporter.
	Disabled Reason = "disabled"
	// QueueFull: newer spans took its place in the queue.
	QueueFull Reason = "queue_full"
	// Rejected: the backend took the request but not this span (partial success).
	Rejected Reason = "rejected"
	// Refused: the backend refused the request, and would again.
	Refused Reason = "refused"
	// Undeliverable: the backend took others but never this one.
	Undeliverable Reason = "undeliverable"
	// Shutdown: the program ended before the backend took it.
	Shutdown Reason = "shutdown"
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{
		ExcludedPath, Probe, Scrape, Unsampled, Disabled, QueueFull, Rejected, Refused, Undeliverable, Shutdown,
	}
}

// Stats are the counts of an Exporter since its start, in spans.
type Stats struct {
	Seen        uint64
	Exported    uint64
	Dropped     map[Reason]uint64 // reasons that occurred
	Queued      uint64
	QueuedBytes uint64
}

// Residual is what the counts do not account for: 0.
func (s Stats) Residual() int64 {
	r := int64(s.Seen) - int64(s.Exported) - int64(s.Queued)
	for _, n := range s.Dropped {
		r -= int64(n)
	}
	return r
}

// Options are what an Exporter needs of its surroundings.
type Options struct {
	Log     *slog.Logger // nil for none
	Version string       // of this program
	Console io.Writer    // of ExporterConsole, nil for standard output; one TracesData a line
	// Measure is told of each exchange that is not left out, sampled or not, of
	// its duration in nanoseconds and of its span. May be nil.
	Measure Measure
	// DialContext opens connections to the backend, nil for net.Dialer's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Measure takes the duration of an exchange that ended at end (ns since the Unix
// epoch). What m and id refer to is valid during the call.
type Measure func(m *span.Measurement, ns uint64, end int64, id span.Identity)

// shutdownTimeout bounds Shutdown: within a pod's grace period others want
// their part.
const shutdownTimeout = 2 * time.Second

// Exporter encodes spans as they come, gathers them into batches and sends
// those from a goroutine of its own.
type Exporter struct {
	cfg      Config
	log      *slog.Logger
	builder  *span.Builder
	envelope *envelope
	measure  Measure
	client   client
	maxBytes int // of a batch

	wake    chan struct{} // tells the sender to look again
	done    chan struct{} // closed when the sender has ended
	sendCtx context.Context
	abort   context.CancelFunc // ends the sender at once

	mu      sync.Mutex
	closing bool
	open    openBatch
	queue   queue
	stats   Stats
}

// client delivers a request to the backend.
type client interface {
	send(ctx context.Context, request []byte) response
	close()
}

// New starts an Exporter of the spans that builder makes, of the given
// resource.
func New(cfg Config, res pcommon.Resource, builder *span.Builder, opts Options) *Exporter {
	return start(cfg, res, builder, opts, newClient(cfg.Exporter, cfg.OTLP, opts))
}

func start(cfg Config, res pcommon.Resource, builder *span.Builder, opts Options, c client) *Exporter {
	e := &Exporter{
		cfg: cfg, log: logger(opts), builder: builder, measure: opts.Measure, client: c,
		envelope: newEnvelope(res, opts.Version),
		maxBytes: min(maxBatchBytes, cfg.MaxQueueBytes/4),
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
	e.stats.Dropped = make(map[Reason]uint64)
	e.sendCtx, e.abort = context.WithCancel(context.Background())
	go newSender(e).run()
	return e
}

// Add takes an exchange and its identity. It never waits for the backend. All
// calls come from one goroutine.
func (e *Exporter) Add(x *exchange.Exchange, id span.Identity) {
	switch e.builder.Exclusion(x) {
	case span.ExcludedPath:
		e.drop(ExcludedPath)
		return
	case span.ExcludedProbe:
		e.drop(Probe)
		return
	case span.ExcludedScrape:
		e.drop(Scrape)
		return
	}
	export := id.Sampled && e.cfg.Exporter != ExporterNone
	if export || e.measure != nil {
		e.builder.Describe(x)
	}
	if e.measure != nil {
		if m, ns, ok := e.builder.Measurement(); ok {
			e.measure(m, ns, x.End, id)
		}
	}
	switch {
	case e.cfg.Exporter == ExporterNone:
		e.drop(Disabled)
	case !id.Sampled:
		e.drop(Unsampled)
	default:
		e.add(e.builder.Container(x), &id, x.End)
	}
}

func (e *Exporter) drop(r Reason) {
	e.mu.Lock()
	e.stats.Seen++
	e.stats.Dropped[r]++
	e.mu.Unlock()
}

// add puts the span of the exchange that was described, and ended at a time in
// nanoseconds since the Unix epoch, into the open batch.
func (e *Exporter) add(container string, id *span.Identity, end int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Seen++
	if e.closing {
		e.stats.Dropped[Shutdown]++
		return
	}
	if e.open.spans == 0 {
		e.open.opened = e.since(end)
		e.signal()
	}
	p := e.open.part(e.envelope, container)
	at := len(p.buf)
	p.buf = endSpan(e.builder.AppendDescribed(beginSpan(p.buf), *id), at)
	e.open.spans++
	e.open.bytes += len(p.buf) - at
	if e.open.spans >= e.cfg.MaxBatchSpans || e.open.bytes >= e.maxBytes {
		e.seal()
		e.signal()
	}
}

// since returns from when on the schedule delay of a span counts: the end of the
// exchange, which may have waited to be handed over. One that is long over is no
// reason to send it alone.
func (e *Exporter) since(end int64) time.Time {
	now := time.Now()
	waited := time.Duration(now.UnixNano() - end)
	return now.Add(-max(0, min(waited, e.cfg.ScheduleDelay/4)))
}

// seal moves the open batch into the queue. The lock is held. Where batches leave
// as they come, two take turns in the same memory.
func (e *Exporter) seal() {
	e.queue.push(e.open.seal(e.envelope, len(e.queue.batches) == 0))
	if n := e.queue.shed(e.cfg.MaxQueueSpans, e.cfg.MaxQueueBytes); n > 0 {
		e.stats.Dropped[QueueFull] += uint64(n)
	}
}

func (e *Exporter) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Stats returns the counts. They balance: Stats().Residual() is 0.
func (e *Exporter) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Queued = uint64(e.open.spans + e.queue.spans)
	s.QueuedBytes = uint64(e.open.bytes + e.queue.bytes)
	s.Dropped = make(map[Reason]uint64, len(e.stats.Dropped))
	for r, n := range e.stats.Dropped {
		s.Dropped[r] = n
	}
	return s
}

// Shutdown sends what is queued, until the context ends or 2 s have passed, and
// counts the rest as dropped; the error says how many. Spans added later are
// dropped too.
func (e *Exporter) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	e.signal()
	select {
	case <-e.done:
	case <-ctx.Done():
	}
	e.abort()
	<-e.done
	e.client.close()

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open.spans > 0 {
		e.queue.push(e.open.seal(e.envelope, false))
	}
	left := e.queue.spans
	e.queue = queue{}
	if left > 0 {
		e.stats.Dropped[Shutdown] += uint64(left)
		return fmt.Errorf("sending spans to %s: %d dropped at shutdown", e.cfg.target(), left)
	}
	return nil
}
