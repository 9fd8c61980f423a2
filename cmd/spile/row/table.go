package row

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spile-dev/spile/cmd/spile/tty"
	"github.com/spile-dev/spile/sidecar/exchange"
)

// maxCell bounds what is shown of one string of the wire, in columns.
const maxCell = 300

// column of the table. A cell that is wider widens the column from then on.
type column struct {
	title string
	width int
	right bool // aligned
}

// table writes a line per exchange under a heading.
type table struct {
	w       io.Writer
	options Options
	columns []column
	line    strings.Builder
	headed  bool
	format  string // of the time
}

func newTable(w io.Writer, o Options) *table {
	t := &table{w: w, options: o, format: "15:04:05.000"}
	if o.Date {
		t.format = "2006-01-02 15:04:05.000"
	}
	t.columns = []column{
		{"TIME", len(t.format), false},
		{"ROLE", 6, false},
		{"CLIENT", 17, false},
		{"SERVER", 17, false},
		{"STATUS", 6, true},
		{"LATENCY", 7, true},
		{"REQ", 6, true},
		{"RESP", 6, true},
		{"METHOD", 6, false},
		{"HOST AND TARGET", 0, false},
	}
	return t
}

// cell is text without colour, and its colour.
type cell struct {
	text  string
	style tty.Style
}

func (t *table) Write(x *exchange.Exchange) error {
	t.line.Reset()
	if !t.headed {
		t.headed = true
		head := make([]cell, len(t.columns))
		for i, c := range t.columns {
			head[i] = cell{c.title, tty.Bold}
		}
		t.append(head)
	}
	t.append(t.cells(x))
	if t.options.Headers {
		t.headers("> ", x.Request.Fields)
		t.headers("< ", x.Response.Fields)
	}
	_, err := io.WriteString(t.w, t.line.String())
	return err
}

func (t *table) cells(x *exchange.Exchange) []cell {
	status, latency, response := "-", "-", "-"
	if x.Response.Status != 0 {
		status, response = strconv.Itoa(x.Response.Status), bodySize(x.Response.BodySize)
	}
	style := tty.Status(x.Response.Status)
	if code, ok := x.GRPCStatus(); ok && x.Protocol == exchange.GRPC {
		status = "grpc " + strconv.Itoa(code)
		if code != 0 {
			style = tty.Status(http.StatusInternalServerError)
		}
	}
	if x.FirstByte != 0 {
		latency = tty.Duration(time.Duration(x.Latency()))
	}
	what := tty.Escape(x.Request.Host, maxCell) + tty.Escape(x.Request.Target, maxCell)
	if absolute(x.Request.Target) {
		what = tty.Escape(x.Request.Target, maxCell)
	}
	if x.Outcome != exchange.Complete {
		what += "  " + t.options.Palette.Paint(tty.Red, "("+x.Outcome.String()+")")
	}
	return []cell{
		{text: time.Unix(0, x.Start).Format(t.format), style: tty.Dim},
		{text: x.Role.String()},
		{text: addrPort(x.Peers.Client)},
		{text: addrPort(x.Peers.Server)},
		{text: status, style: style},
		{text: latency},
		{text: bodySize(x.Request.BodySize)},
		{text: response},
		{text: tty.Escape(x.Request.Method, 24), style: tty.Bold},
		{text: what},
	}
}

func bodySize(n int64) string {
	if n == exchange.UnknownSize {
		return "?"
	}
	return tty.Bytes(n)
}

// absolute tells whether a target has a host itself: the absolute form or the
// authority form (RFC 9112, sections 3.2.2 and 3.2.3).
func absolute(target string) bool {
	return !strings.HasPrefix(target, "/") && target != "*"
}

func (t *table) append(cells []cell) {
	for i, c := range cells {
		col := &t.columns[i]
		n := len([]rune(c.text))
		if last := i == len(cells)-1; !last {
			col.width = max(col.width, n)
		}
		pad := strings.Repeat(" ", max(0, col.width-n))
		text := t.options.Palette.Paint(c.style, c.text)
		switch {
		case i == len(cells)-1:
			t.line.WriteString(text + "\n")
		case col.right:
			t.line.WriteString(pad + text + " ")
		default:
			t.line.WriteString(text + pad + " ")
		}
	}
}

func (t *table) headers(mark string, fields exchange.Fields) {
	for _, f := range fields {
		name := strings.ToLower(f.Name)
		t.line.WriteString("    " + t.options.Palette.Paint(tty.Dim, mark+tty.Escape(name, maxCell)+": ") +
			tty.EscapeText(t.options.value(name, f.Value), maxCell) + "\n")
	}
}
