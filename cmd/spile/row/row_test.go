package row

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/cmd/spile/tty"
	"github.com/spile-dev/spile/internal/golden"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var start = time.Date(2026, 11, 23, 6, 0, 0, 1500, time.UTC).UnixNano()

// complete is an exchange with all that one can have.
func complete() *exchange.Exchange {
	return &exchange.Exchange{
		Peers: exchange.Peers{
			Client: netip.MustParseAddrPort("10.244.0.9:40000"),
			Server: netip.MustParseAddrPort("[::ffff:10.244.0.10]:80"),
		},
		Protocol: exchange.HTTP11,
		Request: exchange.Request{
			Method: "POST", Target: "/cart/items?a=<b>&c", Host: "shop.example",
			Fields: exchange.Fields{
				{Name: "Host", Value: "shop.example"},
				{Name: "Accept", Value: "a/b"},
				{Name: "AUTHORIZATION", Value: "Basic c2VjcmV0"},
				{Name: "accept", Value: "c/d"},
				{Name: "Cookie", Value: "secret=1"},
				{Name: "X-Api-Key", Value: "secret"},
				{Name: "Traceparent", Value: traceparent},
			},
			BodySize: 28,
		},
		Response: exchange.Response{
			Status:   201,
			Fields:   exchange.Fields{{Name: "Set-Cookie", Value: "secret=2"}, {Name: "Content-Length", Value: "1530"}},
			BodySize: 1530,
		},
		Start: start, FirstByte: start + 2_000_000, End: start + 12_440_000,
		Wire: exchange.Wire{RequestSeq: 1, RequestAck: 2, ResponseSeq: 3},
	}
}

// hostile has bytes that terminals, JSON and OTLP must not get.
func hostile() *exchange.Exchange {
	x := complete()
	x.Peers.Client = netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:65535")
	x.Role = exchange.RoleClient
	x.Outcome = exchange.Reset
	x.Request.Method = "GE\x1b[2JT"
	x.Request.Target = "/\x1b]0;owned\x07\xff\xfe\u202e  \r\n200 OK\x9b"
	x.Request.Host = "\x00evil\x7f"
	x.Request.Fields = exchange.Fields{{Name: "X-\x1b[31m", Value: "red \x1b[0m\r\n\xff"}}
	x.Request.BodySize = 0
	x.Response = exchange.Response{}
	x.FirstByte = 0
	return x
}

func reset() *exchange.Exchange {
	x := complete()
	x.Outcome, x.Response, x.FirstByte = exchange.NoResponse, exchange.Response{}, 0
	x.Request.Method, x.Request.Target = "CONNECT", "example.com:443"
	x.Request.Fields = x.Request.Fields[:3]
	return x
}

// adrift is an exchange of which some of the content was not captured.
func adrift() *exchange.Exchange {
	x := complete()
	x.Request.BodySize, x.Response.BodySize = exchange.UnknownSize, exchange.UnknownSize
	return x
}

func TestFormats(t *testing.T) {
	location := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = location })
	for _, c := range []struct {
		name, format string
		options      Options
	}{
		{"json", "json", Options{}},
		{"json-headers", "json", Options{Headers: true}},
		{"json-secrets", "json", Options{Headers: true, Secrets: true}},
		{"table", "table", Options{}},
		{"table-headers", "table", Options{Headers: true, Date: true}},
		{"table-colour", "table", Options{Palette: tty.Palette{On: true}}},
		{"otlp", "otlp", Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			c.options.Version = "v0"
			c.options.Spans = span.NewBuilder(span.Default())
			c.options.Resource, _ = span.Resource(func(string) string { return "" }, "v0")
			w, err := New(c.format, &out, c.options)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range []*exchange.Exchange{complete(), hostile(), reset(), complete(), adrift()} {
				if err := w.Write(x); err != nil {
					t.Fatal(err)
				}
			}
			golden.Compare(t, filepath.Join("testdata", c.name+".golden"), out.String())
			for line := range strings.Lines(out.String()) {
				checkLine(t, c.format, strings.TrimSuffix(line, "\n"))
			}
			if !c.options.Secrets && strings.Contains(out.String(), "secret=") {
				t.Error("a secret is shown")
			}
		})
	}
}

// checkLine checks that a line is what its format promises.
func checkLine(t *testing.T, format, line string) {
	t.Helper()
	switch format {
	case "json":
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	case "otlp":
		var u ptrace.JSONUnmarshaler
		if td, err := u.UnmarshalTraces([]byte(line)); err != nil || td.SpanCount() != 1 {
			t.Errorf("not one span (%v): %s", err, line)
		}
	}
	line = strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[32m", "").Replace(line)
	for _, r := range line {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			t.Errorf("control character %q in %q", r, line)
		}
	}
}

// TestIdentity checks that ids are a function of what was captured.
func TestIdentity(t *testing.T) {
	ids := func(x *exchange.Exchange) span.Identity {
		o := Options{Spans: span.NewBuilder(span.Default())}
		return o.identity(x)
	}
	if a, b := ids(reset()), ids(reset()); a != b {
		t.Errorf("the same exchange has the ids %v and %v", a, b)
	}
	other := reset()
	other.Wire.Index++
	if a, b := ids(reset()), ids(other); a.SpanID == b.SpanID || a.TraceID == b.TraceID {
		t.Errorf("different exchanges have the ids %v and %v", a, b)
	}
	a, b := ids(complete()), ids(hostile())
	if a.ParentSpanID == b.ParentSpanID || a.TraceID == b.TraceID {
		t.Errorf("traceparent is without effect: %v and %v", a, b)
	}
}

func TestIsSecret(t *testing.T) {
	for name, want := range map[string]bool{
		"authorization": true, "x-api-key": true, "api_key": true, "x_access_token": true, "x-functions-key": true,
		"x-amzn-oidc-data": true, "x-hub-signature-256": true, "x-original-authorization": true,
		"accept": false, "x-request-id": false, "idempotency-key": false, "sec-websocket-key": false, "access-control-allow-credentials": false,
	} {
		if got := isSecret(name); got != want {
			t.Errorf("%s: secret %t, want %t", name, got, want)
		}
	}
}

func TestNewUnknownFormat(t *testing.T) {
	_, err := New("xml", &strings.Builder{}, Options{})
	if want := `unknown output "xml" (want table, json, otlp)`; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		name string
		add  func(*Filter) error
		want bool
	}{
		{"none", func(*Filter) error { return nil }, true},
		{"port", func(f *Filter) error { return f.AddPorts("8080, 80") }, true},
		{"other port", func(f *Filter) error { return f.AddPorts("8080") }, false},
		{"client's port", func(f *Filter) error { return f.AddPorts("40000") }, false},
		{"method", func(f *Filter) error { return f.AddMethods("GET,POST") }, true},
		{"other method", func(f *Filter) error { return f.AddMethods("post") }, false},
		{"status", func(f *Filter) error { return f.AddStatuses("404,201") }, true},
		{"status class", func(f *Filter) error { return f.AddStatuses("2xx") }, true},
		{"status range", func(f *Filter) error { return f.AddStatuses("202-599") }, false},
		{"no status", func(f *Filter) error { return f.AddStatuses("none") }, false},
		{"path", func(f *Filter) error { return f.AddPaths("/cart/items") }, true},
		{"path below", func(f *Filter) error { return f.AddPaths("/cart/*") }, true},
		{"path parameter", func(f *Filter) error { return f.AddPaths("/{what}/items") }, true},
		{"other path", func(f *Filter) error { return f.AddPaths("/cart") }, false},
		{"one of two", func(f *Filter) error {
			_ = f.AddPorts("80")
			return f.AddMethods("GET")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Filter
			if err := c.add(&f); err != nil {
				t.Fatal(err)
			}
			if got := f.Match(complete()); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
		})
	}
}

func TestFilterErrors(t *testing.T) {
	var f Filter
	for _, c := range []struct {
		add  func(string) error
		bad  []string
		want string
	}{
		{f.AddPorts, []string{"0", "65536", "http", "-1"}, "want a port"},
		{f.AddStatuses, []string{"99", "1000", "6", "xx", "x00", "500-400", "5xx-6xx", "0"}, "want a status"},
		{f.AddPaths, []string{"cart", "/a b", "/{id", "/a?b"}, "want a path"},
		{f.AddMethods, []string{"", "GET,"}, "want a list"},
	} {
		for _, bad := range c.bad {
			if err := c.add(bad); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: got error %v, want one with %q", bad, err, c.want)
			}
		}
	}
}
