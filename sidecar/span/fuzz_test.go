package span

import (
	"context"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func exampleExchange() *exchange.Exchange {
	return &exchange.Exchange{
		Peers: exchange.Peers{
			Client: netip.MustParseAddrPort("10.0.0.1:40000"), Server: netip.MustParseAddrPort("[2001:db8::2]:8080"),
		},
		Protocol: exchange.HTTP11,
		Request:  exchange.Request{Method: "GET", Target: "/", Host: "shop"},
		Response: exchange.Response{Status: 200},
		Start:    1000, FirstByte: 2000, End: 3000,
	}
}

// checkBothRoles builds the spans of an exchange and holds them against the
// conventions; it returns all that they say.
func checkBothRoles(t *testing.T, b *Builder, x *exchange.Exchange) string {
	t.Helper()
	var all strings.Builder
	for _, role := range []exchange.Role{exchange.RoleServer, exchange.RoleClient} {
		x.Role = role
		id := b.Identify(x)
		s := ptrace.NewSpan()
		b.Put(x, id, s)
		checkRules(t, s)
		checkEncoding(t, b, x, id, s)
		text := spanJSON(t, s)
		if !utf8.ValidString(text) || !utf8.ValidString(s.Name()) {
			t.Errorf("not UTF-8: %q", text)
		}
		all.WriteString(text)
	}
	return all.String()
}

func FuzzRequest(f *testing.F) {
	f.Add("GET", "/a?b=c", "shop:80", "for=192.0.2.1;host=x", "203.0.113.9", "curl")
	f.Add("CONNECT", "[::1]:443", "[::1", `for="[::1]:1";proto=https`, "", "\xff")
	f.Add("OPTIONS", "*", "", "for=\"", ",", "\x00")
	f.Add("get", "http://u:p@h:1/p?token=t#f", "a@b", "==;;,,\"\"", "[1", "")
	cfg := Default()
	cfg.Routes = []Pattern{mustPattern("/a/{b}"), mustPattern("/c/*")}
	cfg.CaptureHeaders = []Header{NewHeader("User-Agent")}
	cfg.ValueLengthLimit = 64
	b := NewBuilder(cfg)
	f.Fuzz(func(t *testing.T, method, target, host, forwarded, xff, agent string) {
		x := exampleExchange()
		x.Request.Method, x.Request.Target, x.Request.Host = method, target, host
		x.Request.Fields = exchange.Fields{
			{Name: "Forwarded", Value: forwarded},
			{Name: "X-Forwarded-For", Value: xff},
			{Name: "X-Forwarded-Host", Value: xff},
			{Name: "X-Forwarded-Proto", Value: xff},
			{Name: "User-Agent", Value: agent},
			{Name: "user-agent", Value: agent},
		}
		checkBothRoles(t, b, x)
	})
}

func FuzzSecrets(f *testing.F) {
	f.Add("a=1", "token", "b=2", "alice")
	f.Add("a;b", "X-Amz-Signature", ";c=%", "")
	f.Add("%", "pass%77ord", "&&=", "a:b")
	f.Add("sig=x", "Api-Key", "#", "@")
	b := NewBuilder(Default())
	const canary = "CANARYCANARY"
	f.Fuzz(func(t *testing.T, before, name, after, user string) {
		if !isSensitive(name) || strings.ContainsAny(name, "&=;#") || strings.Contains(before+after+user, canary) {
			return
		}
		x := exampleExchange()
		x.Request.Target = "/a?" + before + "&" + name + "=" + canary + after
		if all := checkBothRoles(t, b, x); strings.Contains(all, canary) {
			t.Errorf("target %q: the secret is in %s", x.Request.Target, all)
		}
		user, _, _ = strings.Cut(user, "/")
		user, _, _ = strings.Cut(user, "?")
		user, _, _ = strings.Cut(user, "#")
		for _, x.Request.Target = range []string{
			"http://" + user + ":" + canary + "@shop/" + before,
			"http://" + canary + "@shop?" + before,
			user + ":" + canary + "@shop",
		} {
			if strings.HasPrefix(x.Request.Target, "/") || strings.Contains(user, "://") {
				continue
			}
			if all := checkBothRoles(t, b, x); strings.Contains(all, canary) {
				t.Errorf("target %q: the secret is in %s", x.Request.Target, all)
			}
		}
		x.Request.Target = "/"
		x.Request.Host = user + ":" + canary + "@shop"
		if all := checkBothRoles(t, b, x); strings.Contains(all, canary) {
			t.Errorf("host %q: the secret is in %s", x.Request.Host, all)
		}
	})
}

// FuzzTraceContext has otel/propagation for an oracle.
func FuzzTraceContext(f *testing.F) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, p := range []string{parent, "", "01" + parent[2:] + "-x", parent[:52] + "-ff", "ff" + parent[2:], parent + "-", strings.ToUpper(parent)} {
		f.Add(p, "rojo=1,congo=t61rcWkgMzE")
	}
	for _, s := range []string{"", ",", "a=1,,b=2", "a=1,a=2", "1t@sys=v", "A=1", "a= b", "a=b ", "a@=1", "a=\x7f", strings.Repeat("a=1,", 33)} {
		f.Add(parent, s)
	}
	f.Fuzz(func(t *testing.T, parent, state string) {
		got, ok := extractW3C(exchange.Fields{{Name: "TraceParent", Value: parent}, {Name: "tracestate", Value: state}})
		if strings.HasPrefix(parent, "00") && len(parent) != 55 { // otel-go takes one with "-" after it
			if ok {
				t.Errorf("traceparent %q: accepted, with a length of %d", parent, len(parent))
			}
			return
		}
		// Reserved flags: otel-go rejects version 00 with them, the
		// recommendation says to ignore them.
		lenient := parent
		if len(parent) == 55 && parent[:2] == "00" {
			var flags [1]byte
			if decodeHex(flags[:], parent[53:]) {
				lenient = parent[:53] + "0" + string("0123"[flags[0]&3])
			}
		}
		ctx := propagation.TraceContext{}.Extract(context.Background(),
			propagation.MapCarrier{"traceparent": lenient, "tracestate": state})
		want := trace.SpanContextFromContext(ctx)
		if ok != want.IsValid() {
			t.Fatalf("traceparent %q: accepted %v, otel-go %v", parent, ok, want.IsValid())
		}
		if !ok {
			return
		}
		if got.traceID != [16]byte(want.TraceID()) || got.spanID != [8]byte(want.SpanID()) || got.flags != byte(want.TraceFlags()) {
			t.Errorf("traceparent %q: %+v, otel-go %+v", parent, got, want)
		}
		if gotState, err := trace.ParseTraceState(got.state); err != nil {
			t.Errorf("tracestate %q is kept as %q, which otel-go refuses: %v", state, got.state, err)
		} else if d := cmp.Diff(want.TraceState().String(), gotState.String()); d != "" {
			t.Errorf("tracestate %q (-otel-go +got):\n%s", state, d)
		}
		if !utf8.ValidString(got.state) {
			t.Errorf("tracestate %q is not UTF-8", got.state)
		}
	})
}

// FuzzB3: what is accepted is written the same way again, and no more than that.
func FuzzB3(f *testing.F) {
	const ids = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1"
	for _, s := range []string{ids + "-1-05e3ac9a4f6e3b90", ids, ids + "-0", ids + "-d", ids[16:] + "-1", "0", "", "-", "--", ids + "-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tc, ok := extractB3(exchange.Fields{{Name: "B3", Value: s}})
		if !ok {
			if tc.traceID != [16]byte{} || tc.spanID != [8]byte{} {
				t.Errorf("b3 %q is refused, but gives %+v", s, tc)
			}
			return
		}
		trace, span := hex.EncodeToString(tc.traceID[:]), hex.EncodeToString(tc.spanID[:])
		if !strings.HasPrefix(s, trace+"-"+span) && !strings.HasPrefix(s, trace[16:]+"-"+span) {
			t.Errorf("b3 %q is read as %s-%s", s, trace, span)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("/users/{id}", "/users/42")
	f.Add("/static/*", "/static/")
	f.Add("/*", "/")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		p.Match(path)
		if !strings.ContainsAny(pattern, "{*") && p.Match(path) != (path == pattern) {
			t.Errorf("%q matches %q: %v", pattern, path, p.Match(path))
		}
		if !strings.HasSuffix(pattern, "*") && !p.Match(pattern) {
			t.Errorf("%q does not match itself", pattern)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=%20d")
	f.Add("SPILE_CONTAINER_PORTS", "app=80+443,x=1")
	f.Add("OTEL_TRACES_SAMPLER_ARG", "NaN")
	f.Fuzz(func(t *testing.T, name, value string) {
		getenv := func(n string) string {
			switch n {
			case name:
				return value
			case "OTEL_TRACES_SAMPLER":
				return "traceidratio"
			}
			return ""
		}
		cfg, _ := ConfigFromEnv(getenv)
		checkBothRoles(t, NewBuilder(cfg), exampleExchange())
		res, _ := Resource(getenv, "1")
		for k, v := range res.Attributes().All() {
			if !utf8.ValidString(k + v.AsString()) {
				t.Errorf("resource attribute %q=%q is not UTF-8", k, v.AsString())
			}
		}
	})
}
