package span

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/sidecar/exchange"
)

var update = flag.Bool("update", false, "write the golden files")

// TestConformance holds spans against testdata/conformance: each archive is a
// topic with its environment in "env" and pairs of files, the request and
// response as "<case>" and the spans of both roles as "<case>.spans". Lines
// that begin with "!" set what is not in a message: the outcome, the peers.
func TestConformance(t *testing.T) {
	topics, err := filepath.Glob("testdata/conformance/*.txtar")
	if err != nil || len(topics) == 0 {
		t.Fatalf("no topics: %v", err)
	}
	ran := 0
	for _, path := range topics {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { ran++; testTopic(t, path) })
	}
	if ran == len(topics) { // not with -run
		checkRuleTables(t)
	}
}

func testTopic(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, f := range archive.Files {
		files[f.Name] = string(f.Data)
	}
	cfg, err := ConfigFromEnv(envOf(files["env"]))
	if err != nil {
		t.Fatal(err)
	}
	out := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".spans") {
			continue
		}
		out.Files = append(out.Files, f)
		if f.Name == "env" {
			continue
		}
		golden := f.Name + ".spans"
		got := spansOf(t, NewBuilder(cfg), string(f.Data))
		out.Files = append(out.Files, txtar.File{Name: golden, Data: []byte(got)})
		if *update {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			if d := cmp.Diff(files[golden], got); d != "" {
				t.Errorf("spans (-want +got):\n%s", d)
			}
		})
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func envOf(file string) func(string) string {
	return func(name string) string {
		for line := range strings.Lines(file) {
			if n, v, _ := strings.Cut(strings.TrimSpace(line), "="); n == name {
				return v
			}
		}
		return ""
	}
}

// spansOf returns the spans of an exchange in both roles, as JSON.
func spansOf(t *testing.T, b *Builder, text string) string {
	t.Helper()
	var out bytes.Buffer
	for _, role := range []exchange.Role{exchange.RoleServer, exchange.RoleClient} {
		x := parseExchange(t, text)
		x.Role = role
		id := b.Identify(x)
		s := ptrace.NewSpan()
		b.Put(x, id, s)
		checkRules(t, s)
		checkEncoding(t, b, x, id, s)
		enc := json.NewEncoder(&out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(render(s)); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// checkEncoding compares the encoded span with the one that pdata holds.
func checkEncoding(t *testing.T, b *Builder, x *exchange.Exchange, id Identity, want ptrace.Span) {
	t.Helper()
	got := decodeSpan(t, b.Append(nil, x, id))
	wantJSON, gotJSON := spanJSON(t, want), spanJSON(t, got)
	if d := cmp.Diff(wantJSON, gotJSON); d != "" {
		t.Errorf("Append differs from Put (-Put +Append):\n%s", d)
	}
}

// decodeSpan has pdata decode a Span message.
func decodeSpan(t testing.TB, span []byte) ptrace.Span {
	t.Helper()
	scope := appendString(nil, 2<<3|wireBytes, string(span))
	resource := appendString(nil, 2<<3|wireBytes, string(scope))
	request := appendString(nil, 1<<3|wireBytes, string(resource))
	td, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(request)
	if err != nil {
		t.Fatalf("decoding an appended span: %v", err)
	}
	return td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
}

func spanJSON(t testing.TB, s ptrace.Span) string {
	t.Helper()
	td := ptrace.NewTraces()
	s.CopyTo(td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty())
	b, err := (&ptrace.JSONMarshaler{}).MarshalTraces(td)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type spanView struct {
	Name       string         `json:"name"`
	Kind       string         `json:"kind"`
	Start      uint64         `json:"start"`
	End        uint64         `json:"end"`
	Status     string         `json:"status"`
	Message    string         `json:"message,omitempty"`
	TraceID    string         `json:"traceId,omitempty"` // of a remote parent's trace; others are random
	Parent     string         `json:"parentSpanId,omitempty"`
	TraceState string         `json:"traceState,omitempty"`
	Flags      string         `json:"flags"`
	Attributes map[string]any `json:"attributes"`
	Events     []string       `json:"events,omitempty"` // time and name
}

func render(s ptrace.Span) spanView {
	v := spanView{
		Name: s.Name(), Kind: s.Kind().String(), Status: s.Status().Code().String(), Message: s.Status().Message(),
		Start: uint64(s.StartTimestamp()), End: uint64(s.EndTimestamp()),
		TraceState: s.TraceState().AsRaw(), Flags: strconv.FormatUint(uint64(s.Flags()), 16),
		Attributes: s.Attributes().AsRaw(),
	}
	for _, e := range s.Events().All() {
		v.Events = append(v.Events, fmt.Sprintf("%d %s", e.Timestamp(), e.Name()))
	}
	if !s.ParentSpanID().IsEmpty() {
		trace, parent := s.TraceID(), s.ParentSpanID()
		v.TraceID, v.Parent = hex.EncodeToString(trace[:]), hex.EncodeToString(parent[:])
	}
	return v
}

// parseExchange reads an exchange as the conformance files have it.
func parseExchange(t *testing.T, text string) *exchange.Exchange {
	t.Helper()
	x := &exchange.Exchange{
		Peers: exchange.Peers{
			Client: netip.MustParseAddrPort("10.0.0.1:40000"), Server: netip.MustParseAddrPort("10.0.0.2:8080"),
		},
		Start: 1000, FirstByte: 2000, End: 3000,
	}
	request, response, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimSuffix(request, "\n"), "\n")
	start, version, ok := cutLast(lines[0], " ")
	if !ok {
		t.Fatalf("%q is no request line", lines[0])
	}
	x.Request.Method, x.Request.Target, _ = strings.Cut(start, " ")
	x.Protocol = map[string]exchange.Protocol{"HTTP/1.0": exchange.HTTP10, "HTTP/1.1": exchange.HTTP11, "HTTP/2": exchange.HTTP2, "gRPC": exchange.GRPC}[version]
	x.Request.Fields = parseFields(t, x, lines[1:])
	x.Request.Host, _ = x.Request.Fields.Get("Host")
	if authority, ok := x.Request.Fields.Get(":authority"); ok {
		x.Request.Host, x.Request.Fields = authority, x.Request.Fields[1:]
	}
	if lines = strings.Split(strings.TrimSuffix(response, "\n"), "\n"); strings.HasPrefix(lines[0], "HTTP/") {
		_, status, _ := strings.Cut(lines[0], " ")
		x.Response.Status, _ = strconv.Atoi(status)
		lines = lines[1:]
	} else {
		x.FirstByte = 0
	}
	x.Response.Fields = parseFields(t, x, lines)
	return x
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func parseFields(t *testing.T, x *exchange.Exchange, lines []string) (fields exchange.Fields) {
	t.Helper()
	for _, line := range lines {
		if directive, ok := strings.CutPrefix(line, "! "); ok {
			direct(t, x, directive)
			continue
		}
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		if rest, pseudo := strings.CutPrefix(line, ":authority: "); pseudo {
			name, value, ok = ":authority", rest, true
		}
		if !ok {
			t.Fatalf("%q is no field line", line)
		}
		if unquoted, err := strconv.Unquote(value); err == nil && strings.Contains(value, `\x`) {
			value = unquoted
		}
		fields = append(fields, exchange.Field{Name: name, Value: value})
	}
	return fields
}

func direct(t *testing.T, x *exchange.Exchange, directive string) {
	t.Helper()
	name, value, _ := strings.Cut(directive, " ")
	switch name {
	case "outcome":
		for _, o := range exchange.Outcomes() {
			if o.String() == value {
				x.Outcome = o
				return
			}
		}
		t.Fatalf("no outcome %q", value)
	case "trailer":
		name, value, _ := strings.Cut(value, ": ")
		x.Response.Trailers = append(x.Response.Trailers, exchange.Field{Name: name, Value: value})
	case "first-content":
		x.FirstContent, _ = strconv.ParseInt(value, 10, 64)
	case "stream-reset":
		by, code, _ := strings.Cut(value, " ")
		n, _ := strconv.ParseUint(code, 10, 32)
		x.Reset = exchange.StreamReset{Seen: true, ByServer: by == "server", Code: uint32(n)}
		x.Outcome = exchange.Reset
	case "client":
		x.Peers.Client = netip.MustParseAddrPort(value)
	case "server":
		x.Peers.Server = netip.MustParseAddrPort(value)
	case "no-peers":
		x.Peers = exchange.Peers{}
	case "end":
		x.End, _ = strconv.ParseInt(value, 10, 64)
	case "sizes":
		from, to, _ := strings.Cut(value, " ")
		x.Request.BodySize, _ = strconv.ParseInt(from, 10, 64)
		x.Response.BodySize, _ = strconv.ParseInt(to, 10, 64)
	case "target": // one that a request line cannot show
		x.Request.Target, _ = strconv.Unquote(value)
	case "method":
		x.Request.Method, _ = strconv.Unquote(value)
	default:
		t.Fatalf("no directive %q", name)
	}
}
