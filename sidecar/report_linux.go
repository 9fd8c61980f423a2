package sidecar

import (
	"log/slog"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/export"
	"github.com/spile-dev/spile/sidecar/flow"
)

// count is how often something happened.
type count struct {
	name string
	n    uint64
}

// account is what became of packets, connections and exchanges until some
// moment, as the log and the metrics tell it.
type account struct {
	packetsSeen uint64
	packets     []count // by what became of them
	segments    []count // captured ones that were not in order, or not whole
	payload     []count // bytes that were not captured, or not seen
	connections []count // by what they turned out to be
	tracked     []count
	pieces      []count                // bytes captured beside packets
	seen        uint64                 // requests
	outcomes    []count                // exchanges
	drops       []count                // requests that became no exchange
	unseen      []exchange.UnseenCount // connections that are not followed
	streams     []count                // what the bytes of connections needed
}

// takeAccount is for the goroutine that captures.
func takeAccount(tap *Tap, table *flow.Table) account {
	k, f, x := tap.Counters(), &table.Stats, table.Exchanges()
	a := account{
		packetsSeen: k.Seen,
		packets:     packetCounts(k, f, tap.Lost(), tap.ownPackets),
		segments:    []count{{"stray", f.Stray}, {"duplicates", f.Duplicates}, {"reordered", f.Reordered}, {"cut", k.Cut}, {"walked", k.Walked}, {"unsynced", k.Unsynced}},
		pieces:      []count{{"captured", k.Pieces}, {"stale", k.PiecesStale}, {"full", k.PiecesFull}},
		payload:     []count{{"omitted_bytes", k.OmittedBytes}, {"missing_bytes", f.Missing}},
		tracked:     []count{{"opened", f.Opened}, {"evicted", f.Evicted}},
		unseen:      x.Unseen.Counts(),
		seen:        x.Seen,
		streams:     []count{{"gaps", x.Gaps}, {"resynchronised", x.Resyncs}, {"responses_without_request", x.Orphans}},
	}
	for k, n := range x.Kinds {
		a.connections = append(a.connections, count{exchange.Kind(k).String(), n})
	}
	for o, n := range x.Outcomes {
		a.outcomes = append(a.outcomes, count{exchange.Outcome(o).String(), n})
	}
	for d, n := range x.Dropped {
		a.drops = append(a.drops, count{exchange.Drop(d).String(), n})
	}
	return a
}

// packetCounts are packets by what became of them, each counted once: in the kernel
// or, of those that were captured, here. Ours are those of our own connections that
// the classic filter let pass.
func packetCounts(k bpf.Counters, f *flow.Stats, lost, ours uint64) []count {
	return []count{
		{"not_tcp", k.NotTCP + f.NotTCP},
		{"own", k.Own + ours},
		{"excluded", k.Excluded + f.Ignored - ours},
		{"empty", k.Empty},
		{"omitted", k.Omitted},
		{"malformed", k.Malformed + f.Malformed},
		{"fragments", k.Fragments + f.Fragments},
		{"loopback_copy", k.LoopbackCopy},
		{"captured", f.Packets - f.NotTCP - f.Malformed - f.Fragments - f.Ignored},
		{"ring_full", lost},
	}
}

// log writes the account that the sidecar gives at its end. residual is what the
// rest does not explain: 0.
func (a *account) log(log *slog.Logger, s export.Stats) {
	spans := []slog.Attr{slog.Uint64("seen", s.Seen), slog.Uint64("exported", s.Exported)}
	dropped := uint64(0)
	for _, d := range a.drops {
		dropped += d.n
	}
	for _, reason := range export.Reasons() {
		dropped += s.Dropped[reason]
		spans = append(spans, nonZero("dropped_", []count{{string(reason), s.Dropped[reason]}})...)
	}
	spans = append(spans, slog.Int64("residual", int64(a.seen)-int64(s.Exported)-int64(dropped)))
	seen := []count{{"seen", a.packetsSeen}}
	log.Info("accounts",
		"packets", group(nonZero("", seen), nonZero("", a.packets), nonZero("", a.segments), nonZero("pieces_", a.pieces), nonZero("", a.payload)),
		"connections", group(nonZero("", a.tracked), nonZero("", a.connections)),
		"not_followed", group(a.servers()),
		"exchanges", group(nonZero("", []count{{"seen", a.seen}}), nonZero("", a.streams), nonZero("", a.outcomes), nonZero("dropped_", a.drops)),
		"spans", group(spans))
}

// servers are those of connections that are not followed, but for the rarest.
func (a *account) servers() []slog.Attr {
	const most = 20
	var attrs []slog.Attr
	for _, u := range a.unseen[:min(len(a.unseen), most)] {
		attrs = append(attrs, slog.Uint64(u.String(), u.N))
	}
	rest := count{name: "others"}
	for _, u := range a.unseen[len(attrs):] {
		rest.n += u.N
	}
	return append(attrs, nonZero("", []count{rest})...)
}

func group(lists ...[]slog.Attr) slog.Value {
	var all []slog.Attr
	for _, l := range lists {
		all = append(all, l...)
	}
	return slog.GroupValue(all...)
}

// nonZero leaves out what did not happen.
func nonZero(prefix string, counts []count) []slog.Attr {
	var attrs []slog.Attr
	for _, c := range counts {
		if c.n > 0 {
			attrs = append(attrs, slog.Uint64(prefix+c.name, c.n))
		}
	}
	return attrs
}
