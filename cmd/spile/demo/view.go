package demo

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/cmd/spile/trace"
	"github.com/spile-dev/spile/cmd/spile/tty"
)

// width of what is shown, in columns.
const width = 100

// settle is how long no span of a trace must have come for it to count as
// complete; a sidecar holds spans back for less.
const settle = time.Second

// view shows spans as they come, as rows and gathered to traces. add may be
// called by any goroutine.
type view struct {
	out     io.Writer
	palette tty.Palette
	names   map[netip.Addr]string

	mu      sync.Mutex
	arrived []trace.Span // not yet shown as rows
	open    map[trace.ID]*gathering
	heard   map[string]bool // services that spans came from
	kinds   []*kind
	headed  bool
	legend  bool // was shown

	spans, complete, whole int
}

// gathering is a trace whose spans are still coming.
type gathering struct {
	spans []trace.Span
	last  time.Time
}

// kind is the traces that are alike: of the same request, status and services.
type kind struct {
	key    string
	tree   trace.Tree // the latest
	traces int
	drawn  int // times
}

func newView(out io.Writer, p tty.Palette, names map[netip.Addr]string) *view {
	return &view{out: out, palette: p, names: names, open: map[trace.ID]*gathering{}, heard: map[string]bool{}}
}

// add takes spans that arrived.
func (v *view) add(td ptrace.Traces) {
	spans := trace.Spans(td)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.spans += len(spans)
	v.arrived = append(v.arrived, spans...)
	for _, s := range spans {
		v.heard[s.Service] = true
		g := v.open[s.Trace]
		if g == nil {
			g = &gathering{}
			v.open[s.Trace] = g
		}
		g.spans, g.last = append(g.spans, s), time.Now()
	}
}

// flush shows the spans that arrived since the last call, and closes the traces
// that are complete, at the end all.
func (v *view) flush(end bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	slices.SortStableFunc(v.arrived, func(a, b trace.Span) int { return a.Start.Compare(b.Start) })
	for _, s := range v.arrived {
		v.row(s)
	}
	v.arrived = v.arrived[:0]
	for id, g := range v.open {
		if end || time.Since(g.last) >= settle {
			delete(v.open, id)
			v.close(trace.Nest(g.spans))
		}
	}
}

// close files a trace that is complete under its kind.
func (v *view) close(t trace.Tree) {
	v.complete++
	if t.Whole() {
		v.whole++
	}
	root := t.Roots[0]
	key := fmt.Sprint(root.Service, root.Method, root.Path, root.Code(), t.Spans, t.Whole())
	i := slices.IndexFunc(v.kinds, func(k *kind) bool { return k.key == key })
	if i < 0 {
		i = len(v.kinds)
		v.kinds = append(v.kinds, &kind{key: key})
	}
	v.kinds[i].tree = t
	v.kinds[i].traces++
}

// row shows a span in a line.
func (v *view) row(s trace.Span) {
	if !v.headed {
		v.headed = true
		v.print(v.palette.Paint(tty.Bold, fmt.Sprintf("%-12s  %-19s %-6s  %-42s %5s %8s\n",
			"TIME", "POD AND PEER", "KIND", "REQUEST", "STATUS", "DURATION")))
	}
	arrow, kind := "◀", "SERVER"
	if s.Client {
		arrow, kind = "▶", "CLIENT"
	}
	peer, known := v.names[s.Peer.Addr()]
	if !known {
		peer = s.Peer.Addr().String()
	}
	style := s.Style()
	request := tty.Escape(s.Method, 12)
	request += " " + tty.Escape(s.Path, 41-len([]rune(request)))
	v.print(v.palette.Paint(tty.Dim, s.Start.Local().Format("15:04:05.000")) +
		fmt.Sprintf("  %-19s %-6s  %-42s", s.Service+" "+arrow+" "+peer, kind, request) +
		v.palette.Paint(style, fmt.Sprintf(" %6s", s.Code())) +
		fmt.Sprintf(" %8s\n", tty.Duration(s.End.Sub(s.Start))))
}

// drawNext draws a trace of the kind that was drawn the least. It reports
// whether there is one.
func (v *view) drawNext() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.kinds) == 0 {
		return false
	}
	if !v.legend {
		v.legend = true
		v.print("\n" + v.palette.Paint(tty.Dim, trace.Legend))
	}
	v.draw(slices.MinFunc(v.kinds, func(a, b *kind) int { return a.drawn - b.drawn }))
	v.print("\n")
	return true
}

// drawAll draws the last trace of each kind, the largest at the end.
func (v *view) drawAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.kinds) == 0 {
		return
	}
	slices.SortStableFunc(v.kinds, func(a, b *kind) int {
		return cmp.Or(a.tree.Spans-b.tree.Spans, strings.Compare(a.key, b.key))
	})
	v.print("\n" + v.palette.Paint(tty.Bold, "The last trace of each kind") + "\n" + v.palette.Paint(tty.Dim, trace.Legend) + "\n")
	for _, k := range v.kinds {
		v.draw(k)
	}
}

func (v *view) draw(k *kind) {
	k.drawn++
	v.print("\n")
	// What cannot be written to the terminal cannot be told there either.
	_ = trace.Draw(v.out, k.tree, width, v.palette)
}

func (v *view) print(s string) { fmt.Fprint(v.out, s) }

// services lists those that spans came from.
func (v *view) services() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.heard) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(v.heard)), ", ")
}
