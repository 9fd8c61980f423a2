package sidecar

import (
	"log/slog"

	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/export"
	"github.com/spile-dev/spile/sidecar/flow"
)

// report is the account that the sidecar gives at its end. residual is what the
// rest does not explain: 0.
type report struct {
	packets, connections, exchanges, spans slog.Value

	seen, dropped uint64
}

func newReport(tap *Tap, table *flow.Table) *report {
	k, f, x := tap.Counters(), &table.Stats, table.Exchanges()
	r := &report{seen: x.Seen}
	for _, n := range x.Dropped {
		r.dropped += n
	}
	r.packets = slog.GroupValue(nonZero(
		"seen", k.Seen, "not_tcp", k.NotTCP, "own", k.Own, "excluded", k.Excluded+f.Ignored, "empty", k.Empty,
		"omitted", k.Omitted, "omitted_bytes", k.OmittedBytes, "malformed", k.Malformed+f.Malformed,
		"fragments", k.Fragments+f.Fragments, "captured", f.Packets, "ring_full", tap.Lost(), "stray", f.Stray,
		"duplicates", f.Duplicates, "reordered", f.Reordered, "missing_bytes", f.Missing)...)
	connections := nonZero("opened", f.Opened, "evicted", f.Evicted)
	for k, n := range x.Kinds {
		connections = append(connections, nonZero(exchange.Kind(k).String(), n)...)
	}
	r.connections = slog.GroupValue(connections...)
	exchanges := nonZero("seen", x.Seen, "gaps", x.Gaps, "resynchronised", x.Resyncs, "responses_without_request", x.Orphans)
	for o, n := range x.Outcomes {
		exchanges = append(exchanges, nonZero(exchange.Outcome(o).String(), n)...)
	}
	for d, n := range x.Dropped {
		exchanges = append(exchanges, nonZero("dropped_"+exchange.Drop(d).String(), n)...)
	}
	r.exchanges = slog.GroupValue(exchanges...)
	return r
}

// exported adds what became of the spans.
func (r *report) exported(s export.Stats) {
	spans := []slog.Attr{slog.Uint64("seen", s.Seen), slog.Uint64("exported", s.Exported)}
	dropped := r.dropped
	for _, reason := range export.Reasons() {
		dropped += s.Dropped[reason]
		spans = append(spans, nonZero("dropped_"+string(reason), s.Dropped[reason])...)
	}
	residual := int64(r.seen) - int64(s.Exported) - int64(dropped)
	r.spans = slog.GroupValue(append(spans, slog.Int64("residual", residual))...)
}

// nonZero makes attributes of names and counts, leaving out what did not happen.
func nonZero(pairs ...any) []slog.Attr {
	var attrs []slog.Attr
	for i := 0; i < len(pairs); i += 2 {
		if n := pairs[i+1].(uint64); n > 0 {
			attrs = append(attrs, slog.Uint64(pairs[i].(string), n))
		}
	}
	return attrs
}
