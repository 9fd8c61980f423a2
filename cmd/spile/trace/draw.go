package trace

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spile-dev/spile/cmd/spile/tty"
)

// Legend explains what Draw draws, in one line.
const Legend = "█ server  ░ client  nested by parent span id where the trace has it, else by connection and time"

// Columns of a drawn span: the label takes what the others leave.
const (
	statusColumns   = 4
	durationColumns = 8
	barColumns      = 28
	minLabelColumns = 30
)

// Draw draws a trace within width columns: a heading, and a line for each span.
func Draw(w io.Writer, t Tree, width int, p tty.Palette) error {
	if len(t.Roots) == 0 {
		return nil
	}
	d := drawing{
		palette: p,
		label:   max(minLabelColumns, width-statusColumns-durationColumns-barColumns-1),
		from:    t.Roots[0].Start,
	}
	to := d.from
	for _, n := range t.Roots {
		to = n.latest(to)
	}
	d.span = max(to.Sub(d.from), 1)
	root := t.Roots[0]
	fmt.Fprintf(&d.out, "%s  %s  %s in %s\n", p.Paint(tty.Bold, title(root, max(20, width-60))),
		p.Paint(tty.Dim, "trace "+root.Trace.String()), plural(t.Spans, "span"), tty.Duration(d.span))
	for _, n := range t.Roots {
		d.node(n, "", "")
	}
	_, err := io.WriteString(w, d.out.String())
	return err
}

// drawing is a trace being drawn.
type drawing struct {
	out     strings.Builder
	palette tty.Palette
	label   int // columns
	from    time.Time
	span    time.Duration
}

// node draws a span behind its own indent, and those below it behind theirs.
func (d *drawing) node(n *Node, indent, below string) {
	kind := "SERVER"
	if n.Client {
		kind = "CLIENT"
	}
	label := indent + tty.Escape(n.Service, 16) + " " + kind + " "
	label += title(n, d.label-columns(label))
	pad := strings.Repeat(" ", max(0, d.label-columns(label)))
	style := n.Style()
	fmt.Fprintf(&d.out, "%s%s%s%s %s\n", label, pad,
		d.palette.Paint(style, fmt.Sprintf("%*s", statusColumns, n.Code())),
		fmt.Sprintf("%*s", durationColumns, tty.Duration(n.End.Sub(n.Start))),
		d.palette.Paint(style, d.bar(n)))
	for i, c := range n.Children {
		if i == len(n.Children)-1 {
			d.node(c, below+"└ ", below+"  ")
		} else {
			d.node(c, below+"├ ", below+"│ ")
		}
	}
}

// bar is the time of a span within that of the trace, at least a column long.
func (d *drawing) bar(n *Node) string {
	column := func(t time.Time) int {
		return int(int64(t.Sub(d.from)) * barColumns / int64(d.span))
	}
	begin := min(max(0, column(n.Start)), barColumns-1)
	end := min(max(begin+1, column(n.End)), barColumns)
	cell := "█"
	if n.Client {
		cell = "░"
	}
	return strings.Repeat(" ", begin) + strings.Repeat(cell, end-begin)
}

// latest returns the latest of t and the ends of the spans from n on.
func (n *Node) latest(t time.Time) time.Time {
	if n.End.After(t) {
		t = n.End
	}
	for _, c := range n.Children {
		t = c.latest(t)
	}
	return t
}

// title is the request line of a span.
func title(n *Node, limit int) string {
	method := tty.Escape(n.Method, 12)
	return method + " " + tty.Escape(n.Path, max(1, limit-columns(method)-1))
}

func columns(s string) int { return len([]rune(s)) }

// Code is the status code as it is shown, a dash if there is none: that of HTTP, OK
// of a gRPC call or the number of another status.
func (s Span) Code() string {
	switch {
	case s.Call == "OK":
		return s.Call
	case s.Call != "":
		return strconv.Itoa(max(0, slices.Index(calls, s.Call)))
	case s.Status == 0:
		return "-"
	}
	return strconv.Itoa(s.Status)
}

// Style is the style of the status code.
func (s Span) Style() tty.Style {
	switch s.Call {
	case "":
		return tty.Status(s.Status)
	case "OK":
		return tty.Status(http.StatusOK)
	}
	return tty.Status(http.StatusInternalServerError)
}

// calls are the status codes of gRPC, by number.
var calls = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
