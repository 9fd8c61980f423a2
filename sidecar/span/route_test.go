package span

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func TestParameterOf(t *testing.T) {
	tests := map[string][]string{
		"": {
			"users", "v1", "v2beta1", "oauth2", "2fa", "utf8", "item42", "deadbeef", "decade", "getUserById", "sign-in",
			"robots.txt", "AuthenticationServiceImpl", "internationalization-settings", "well-known", ".env", "http2", "x",
		},
		parameterNumber: {"0", "42", "2024", "3.14", "10-20", "-1", "20261123", "4111111111111111", "2026-1123"},
		parameterDate:   {"2026-11", "2026-11-23", "1999_12_31", "2026.11.23"},
		parameterUUID:   {"123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"},
		parameterHash:   {"a1b2c3d4", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "deadbeefdeadbeef", "4F3A2B1C"},
		parameterToken: {
			"01ARZ3NDEKTSV4RRFFQ69G5FAV", "AKIAIOSFODNN7EXAMPLEX9Q2", "main.4f3a2b1c.js", "dQw4w9WgXcQ5fKp8L2m3",
			strings.Repeat("x", 41), "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
		},
		parameterID:   {"order-12345", "p123", "12a", "sku_0042"},
		parameterText: {"J%C3%BCrgen", "a@b.example", "a b", "x,y", "caf\u00e9", "{id}", "*"},
	}
	for want, segments := range tests {
		for _, s := range segments {
			if got := parameterOf(s); got != want {
				t.Errorf("%q is %q, want %q", s, got, want)
			}
		}
	}
}

func TestGrouper(t *testing.T) {
	g := newGrouper()
	route := func(path string, known bool) string {
		r := g.route(path, known)
		if r == nil {
			return "-"
		}
		return r.text
	}
	steps := []struct {
		path  string
		known bool
		want  string
	}{
		{"/", true, "/"},
		{"/users/42", true, "/users/{number}"},
		{"/users/43", false, "/users/{number}"}, // such paths are known
		{"/users/ann", true, "/users/ann"},
		{"/wp-admin", false, "-"},
		{"//users//42/", true, "/users/{number}"},
		{"/a/b/c/d/e/f/g/h/i/j", true, "/a/b/c/d/e/f/g/h/*"},
		{"/a/b/c/d/e/f/g/h", true, "/a/b/c/d/e/f/g/h"},
		{"*", true, "-"},
		{"", true, "-"},
	}
	for _, s := range steps {
		if got := route(s.path, s.known); got != s.want {
			t.Errorf("%s: route %s, want %s", s.path, got, s.want)
		}
	}
	distinct := make(map[string]bool)
	for i := range 100 {
		distinct[route("/shelf/"+string(rune('a'+i/26))+string(rune('a'+i%26)), true)] = true
	}
	if len(distinct) != maxGroupValues+1 || !distinct["/shelf/{value}"] || !distinct["/shelf/aa"] {
		t.Errorf("100 different segments give %d routes, want %d and /shelf/{value}", len(distinct), maxGroupValues)
	}
	if got := route("/shelf/aa", true); got != "/shelf/aa" {
		t.Errorf("a route of before is %s now", got)
	}
}

// FuzzGrouper: routes are bounded in number, and a route's own path has it.
func FuzzGrouper(f *testing.F) {
	f.Add("/users/42", "/users/ann", uint8(200))
	f.Add("/%00/{id}/*", "//", uint8(4))
	f.Fuzz(func(t *testing.T, a, b string, n uint8) {
		g := newGrouper()
		for _, p := range []string{a, b, a + b, "/" + a, strings.Repeat("/"+b, int(n))} {
			if r := g.route(p, true); r != nil {
				again := g.route(p, false)
				if again != r {
					t.Errorf("%q has the route %q, then another", p, r.text)
				}
				if strings.ContainsAny(r.text, "% \x00?") {
					t.Errorf("%q has the route %q", p, r.text)
				}
			}
		}
		for i := range int(n) {
			g.route(fmt.Sprintf("%s/%d%s/%x", a, i, b, i*7919), true)
		}
		if g.nodes > maxGroupNodes {
			t.Errorf("%d nodes", g.nodes)
		}
	})
}

func TestRPCMethods(t *testing.T) {
	b := NewBuilder(Default())
	name := func(method, status string) string {
		x := exampleExchange()
		x.Protocol, x.Request.Target = exchange.GRPC, "/"+method
		x.Response.Trailers = exchange.Fields{{Name: "grpc-status", Value: status}}
		b.Describe(x)
		return b.rec.name
	}
	got := []string{name("a.A/M", "12"), name("a.A/M", "0"), name("a.A/M", "12")}
	if d := cmp.Diff([]string{"grpc", "a.A/M", "a.A/M"}, got); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	for i := range 2 * maxRPCMethods {
		name(fmt.Sprintf("a.A/M%d", i), "0")
	}
	if n := len(b.rpc); n != maxRPCMethods {
		t.Errorf("%d methods are remembered, want %d", n, maxRPCMethods)
	}
	if got := name("a.A/New", "0"); got != "grpc" {
		t.Errorf("name %q of one more", got)
	}
}
