package sidecar

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/export"
	"github.com/spile-dev/spile/sidecar/flow"
	"github.com/spile-dev/spile/sidecar/metric"
	"github.com/spile-dev/spile/sidecar/span"
)

// observed is a tap that gives an account while it captures: counters belong to
// the goroutine that does.
type observed struct {
	*Tap
	table *flow.Table

	wanted atomic.Bool
	mu     sync.Mutex
	last   account
	taken  chan struct{}
	ended  chan struct{}
}

func newObserved(tap *Tap) *observed {
	return &observed{Tap: tap, taken: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Next implements capture.Source.
func (o *observed) Next() (capture.Packet, error) {
	if o.wanted.Load() {
		o.take()
		o.wanted.Store(false)
		select {
		case o.taken <- struct{}{}:
		default:
		}
	}
	return o.Tap.Next()
}

func (o *observed) take() {
	a := takeAccount(o.Tap, o.table)
	o.mu.Lock()
	o.last = a
	o.mu.Unlock()
}

// account returns what Next takes, which it wakes for that; after the capture has
// ended, what was taken last.
func (o *observed) account() account {
	select {
	case <-o.taken: // an answer that came too late
	default:
	}
	o.wanted.Store(true)
	o.Wake()
	select {
	case <-o.taken:
	case <-o.ended:
	case <-time.After(500 * time.Millisecond):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// end takes the last account, which stands for what is asked for later. It is
// for the goroutine that captured.
func (o *observed) end() {
	o.take()
	close(o.ended)
}

// counters are the metrics of the pipeline.
func counters(a account, s export.Stats) []metric.Counter {
	reasons := make([]count, 0, len(export.Reasons()))
	for _, r := range export.Reasons() {
		reasons = append(reasons, count{string(r), s.Dropped[r]})
	}
	one := func(name, unit, description string, n uint64) metric.Counter {
		return metric.Counter{Name: name, Unit: unit, Description: description, Points: []metric.Point{{N: n}}}
	}
	by := func(name, unit, description, attribute string, counts []count) metric.Counter {
		c := metric.Counter{Name: name, Unit: unit, Description: description, Attribute: attribute}
		for _, k := range counts {
			c.Points = append(c.Points, metric.Point{Is: k.name, N: k.n})
		}
		return c
	}
	gauge := func(c metric.Counter) metric.Counter { c.Gauge = true; return c }
	return []metric.Counter{
		one("spile.packets.seen", "{packet}", "Packets that the filter saw.", a.packetsSeen),
		by("spile.packets", "{packet}", "Packets by what became of them.", "spile.packet.result", a.packets),
		by("spile.segments", "{segment}", "Captured segments that were not in order, or not whole.", "spile.segment.state", a.segments),
		by("spile.pieces", "{piece}", "Bytes that were captured beside their packet.", "spile.piece.result", a.pieces),
		by("spile.payload", "By", "Payload that was not captured for it was not needed, or is missing.", "spile.payload.state", a.payload),
		by("spile.connections", "{connection}", "Connections by what they carry.", "spile.connection.kind", a.connections),
		unseen(a.unseen),
		by("spile.connections.tracked", "{connection}", "Connections that were followed, and forgotten.", "spile.connection.event", a.tracked),
		one("spile.requests.seen", "{request}", "Requests that were seen.", a.seen),
		by("spile.requests.dropped", "{request}", "Requests that became no exchange, by reason.", "spile.drop.reason", a.drops),
		by("spile.exchanges", "{exchange}", "Exchanges by how they ended.", "spile.exchange.outcome", a.outcomes),
		by("spile.streams", "{event}", "Gaps in the bytes of connections, and what they led to.", "spile.stream.event", a.streams),
		one("spile.spans.seen", "{span}", "Spans of exchanges, exported or not.", s.Seen),
		one("spile.spans.exported", "{span}", "Spans that the backend took.", s.Exported),
		by("spile.spans.dropped", "{span}", "Spans that were not exported, by reason.", "spile.drop.reason", reasons),
		gauge(one("spile.queue.spans", "{span}", "Spans that wait to be exported.", s.Queued)),
		gauge(one("spile.queue.size", "By", "Memory of spans that wait to be exported.", s.QueuedBytes)),
	}
}

// measure returns what records durations, with the exemplars that a filter lets
// pass.
func measure(r *metric.Recorder, filter string) export.Measure {
	return func(m *span.Measurement, ns uint64, end int64, id span.Identity) {
		var x *metric.Exemplar
		if filter == export.ExemplarsAlwaysOn || filter == export.ExemplarsTraceBased && id.Sampled {
			x = &metric.Exemplar{At: end, TraceID: id.TraceID, SpanID: id.SpanID}
		}
		r.Record(m, ns, x)
	}
}

// unseen is the metric of connections that are not followed.
func unseen(all []exchange.UnseenCount) metric.Counter {
	c := metric.Counter{
		Name: "spile.connections.not_followed", Unit: "{connection}", Description: "Connections that are not followed, by their server.",
		Attribute: "spile.connection.kind",
	}
	index := make(map[metric.Point]int) // a name may have several addresses
	for _, u := range all {
		p := metric.Point{Overflow: true}
		if u.Server.IsValid() {
			p = metric.Point{Is: u.Kind.String(), Address: u.Name, Port: u.Server.Port()}
			if p.Address == "" {
				p.Address = u.Server.Addr().String()
			}
		}
		i, ok := index[p]
		if !ok {
			i = len(c.Points)
			index[p], c.Points = i, append(c.Points, p)
		}
		c.Points[i].N += u.N
	}
	return c
}

// reporter makes the metrics known, by OTLP or on a port.
type reporter struct {
	sender *export.Metrics
	server *http.Server
}

// newReporter starts what the configuration asks for. A port that cannot be had
// is a warning: spans are worth more than metrics.
func newReporter(c Config, version string, started time.Time, recorder *metric.Recorder, read func() []metric.Counter,
	opts export.Options, own func(uint16, bool),
) (r reporter) {
	switch m := c.Export.Metrics; m.Exporter {
	case export.ExporterOTLP, export.ExporterConsole:
		encoder := metric.NewEncoder(c.resource, version, started.UnixNano(), metric.Temporality{
			DeltaDurations: m.Temporality != export.TemporalityCumulative,
			DeltaCounters:  m.Temporality == export.TemporalityDelta,
		})
		r.sender = export.NewMetrics(m, func() ([]byte, func()) {
			return encoder.Encode(recorder, read(), time.Now().UnixNano())
		}, opts)
	case export.ExporterPrometheus:
		l, err := net.Listen("tcp", m.Prometheus)
		if err != nil {
			opts.Log.Warn("metrics cannot be scraped", "error", err)
			return r
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		own(port, true)
		r.server = serveMetrics(l, opts.Log, func(w http.ResponseWriter) error {
			return metric.WriteText(w, c.resource, recorder, read())
		})
		opts.Log.Info("metrics can be scraped", "address", l.Addr().String())
	}
	return r
}

func serveMetrics(l net.Listener, log *slog.Logger, write func(http.ResponseWriter) error) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metric.ContentType)
		if err := write(w); err != nil {
			log.Debug("a scrape was broken off", "error", err)
		}
	})
	s := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() { _ = s.Serve(l) }() // until Close
	return s
}

func (r reporter) shutdown(ctx context.Context) {
	if r.sender != nil {
		r.sender.Shutdown(ctx)
	}
	if r.server != nil {
		_ = r.server.Close()
	}
}
