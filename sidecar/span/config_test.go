package span

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func environ(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestConfigFromEnv(t *testing.T) {
	cfg, err := ConfigFromEnv(environ(map[string]string{
		"OTEL_TRACES_SAMPLER":               "parentbased_traceidratio",
		"OTEL_TRACES_SAMPLER_ARG":           "0.25",
		"OTEL_PROPAGATORS":                  "b3, tracecontext,b3",
		"SPILE_ROUTES":                      "/users/{id}, /static/*",
		"SPILE_ROUTES_UNMATCHED":            "heuristic",
		"SPILE_EXCLUDE":                     "probes",
		"SPILE_EXCLUDE_PATHS":               "/healthz,/static/*",
		"SPILE_CAPTURE_HEADERS":             "X-Request-ID,x-request-id,Content-Type",
		"SPILE_CONTAINER_PORTS":             "app=8080+8443,sidecar=9090",
		"SPILE_OPT_IN_ATTRIBUTES":           "network.transport",
		"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "100",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "Sampler": "parentbased_traceidratio=0.25",
  "KnownMethods": [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "QUERY"
  ],
  "Propagators": [
    "b3",
    "tracecontext"
  ],
  "Routes": [
    "/users/{id}",
    "/static/*"
  ],
  "RoutesUnmatched": "heuristic",
  "Exclude": [
    "probes"
  ],
  "ExcludePaths": [
    "/healthz",
    "/static/*"
  ],
  "CaptureHeaders": [
    "x-request-id",
    "content-type"
  ],
  "OptIn": [
    "network.transport"
  ],
  "ValueLengthLimit": 100,
  "CountLimit": 128,
  "ContainerPorts": {
    "8080": "app",
    "8443": "app",
    "9090": "sidecar"
  }
}`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
}

func TestConfigFaults(t *testing.T) {
	cfg, err := ConfigFromEnv(environ(map[string]string{
		"OTEL_TRACES_SAMPLER":                    "jaeger_remote",
		"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1",
		"OTEL_PROPAGATORS":                       "b3,jaeger,none",
		"SPILE_ROUTES":                           "/ok,users/{id},/a/{b}c",
		"SPILE_ROUTES_UNMATCHED":                 "path",
		"SPILE_EXCLUDE":                          "none,bots",
		"SPILE_EXCLUDE_PATHS":                    "/a/*/b",
		"SPILE_CAPTURE_HEADERS":                  "X Request",
		"SPILE_CONTAINER_PORTS":                  "app=http,=80,db",
		"SPILE_OPT_IN_ATTRIBUTES":                "url.template",
	}))
	if err == nil {
		t.Fatal("no error")
	}
	const want = `OTEL_TRACES_SAMPLER="jaeger_remote": accepted is one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio
OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT="-1": accepted is a number from 1 to 65536
OTEL_PROPAGATORS="jaeger": accepted is a list of tracecontext, baggage, b3, b3multi, none
OTEL_PROPAGATORS="b3,jaeger,none": accepted is none alone, or a list without it
SPILE_ROUTES="users/{id}": a pattern begins with "/"; accepted are path patterns such as /users/{id} and /static/*
SPILE_ROUTES="/a/{b}c": segment "{b}c": {name} is a whole segment, "*" the last one; accepted are path patterns such as /users/{id} and /static/*
SPILE_ROUTES_UNMATCHED="path": accepted is unset or heuristic
SPILE_EXCLUDE="none": accepted is probes, scrapes, or none alone
SPILE_EXCLUDE="bots": accepted is probes, scrapes, or none alone
SPILE_EXCLUDE_PATHS="/a/*/b": segment "*": {name} is a whole segment, "*" the last one; accepted are path patterns such as /users/{id} and /static/*
SPILE_CAPTURE_HEADERS="X Request": accepted is a comma-separated list of header field names
SPILE_OPT_IN_ATTRIBUTES="url.template": accepted is a list of client.port, http.request.body.size, http.response.body.size, network.local.address, network.local.port, network.transport, url.scheme, user_agent.original
SPILE_CONTAINER_PORTS="app=http": accepted is container=port+port, separated by commas
SPILE_CONTAINER_PORTS="=80": accepted is container=port+port, separated by commas
SPILE_CONTAINER_PORTS="db": accepted is container=port+port, separated by commas`
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("error (-want +got):\n%s", d)
	}
	if cfg.Sampler.String() != "parentbased_always_on" || len(cfg.Routes) != 1 {
		t.Errorf("with faults: sampler %s, routes %v; want the default and those without fault", cfg.Sampler, cfg.Routes)
	}
}

func TestSampler(t *testing.T) {
	low, high := [16]byte{15: 1}, [16]byte{8: 0xff}
	tests := []struct {
		name, arg                          string
		root, rootHigh, sampled, unsampled bool // without a parent, low and high id; with one, high and low id
	}{
		{"always_on", "", true, true, true, true},
		{"always_off", "", false, false, false, false},
		{"traceidratio", "0.5", true, false, false, true},
		{"traceidratio", "", true, true, true, true},
		{"traceidratio", "0", false, false, false, false},
		{"parentbased_always_on", "", true, true, true, false},
		{"parentbased_always_off", "", false, false, true, false},
		{"parentbased_traceidratio", "0.5", true, false, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name+tt.arg, func(t *testing.T) {
			s, err := ParseSampler(tt.name, tt.arg)
			if err != nil {
				t.Fatal(err)
			}
			got := [...]bool{
				s.sample(&low, deferred), s.sample(&high, deferred),
				s.sample(&high, sampled), s.sample(&low, notSampled),
			}
			if want := [...]bool{tt.root, tt.rootHigh, tt.sampled, tt.unsampled}; got != want {
				t.Errorf("decisions %v, want %v", got, want)
			}
		})
	}
	for _, arg := range []string{"-0.1", "1.1", "NaN", "x", "Inf"} {
		if _, err := ParseSampler("traceidratio", arg); err == nil || !strings.Contains(err.Error(), "OTEL_TRACES_SAMPLER_ARG") {
			t.Errorf("argument %q: error %v", arg, err)
		}
	}
}

// TestSamplerRatio holds the bound of otel-go's TraceIDRatioBased: the lower 63
// bits (of the last 8 bytes, shifted) are below ratio * 2^63.
func TestSamplerRatio(t *testing.T) {
	s, err := ParseSampler("traceidratio", "0.25")
	if err != nil {
		t.Fatal(err)
	}
	for x, want := range map[uint64]bool{0: true, 1<<62 - 1: true, 1 << 62: false, 1<<64 - 1: false} {
		var id [16]byte
		binary.BigEndian.PutUint64(id[8:], x)
		if got := s.sample(&id, deferred); got != want {
			t.Errorf("id %x: sampled %v, want %v", id, got, want)
		}
	}
	ids, kept := newIDSource(), 0
	for range 10000 {
		id := ids.traceID()
		if s.sample(&id, deferred) {
			kept++
		}
	}
	if kept < 2300 || kept > 2700 { // seven standard deviations
		t.Errorf("kept %d of 10000 at a ratio of 0.25", kept)
	}
}

func TestIdentify(t *testing.T) {
	b := NewBuilder(Default())
	seen := make(map[[8]byte]bool)
	for range 1000 {
		id := b.Identify(exampleExchange())
		if id.TraceID == [16]byte{} || id.SpanID == [8]byte{} || id.ParentSpanID != [8]byte{} || seen[id.SpanID] {
			t.Fatalf("identity %+v", id)
		}
		seen[id.SpanID] = true
		if !id.Sampled || id.Flags != flagSampled|flagRandom {
			t.Fatalf("identity %+v, want sampled and random", id)
		}
	}
}

func TestExcludedAndContainer(t *testing.T) {
	cfg, err := ConfigFromEnv(environ(map[string]string{
		"SPILE_EXCLUDE_PATHS": "/healthz,/static/*", "SPILE_CONTAINER_PORTS": "app=8080",
	}))
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder(cfg)
	x := exampleExchange()
	for target, want := range map[string]bool{
		"/healthz": true, "/healthz?full": true, "http://shop/healthz": true, "/healthz/": false,
		"/static/a/b": true, "/static": false, "*": false,
	} {
		if x.Request.Target = target; b.Excluded(x) != want {
			t.Errorf("%q excluded: %v, want %v", target, !want, want)
		}
	}
	if got := b.Container(x); got != "app" {
		t.Errorf("container %q of port 8080", got)
	}
	x.Role = exchange.RoleClient
	if got := b.Container(x); got != "" {
		t.Errorf("container %q of a client", got)
	}
}

func TestResource(t *testing.T) {
	sdk := map[string]any{
		"telemetry.sdk.name": "spile", "telemetry.sdk.language": "go", "telemetry.sdk.version": "1.2.3",
		"telemetry.distro.name": "spile", "telemetry.distro.version": "1.2.3",
	}
	tests := []struct {
		name, service, attributes string
		want                      map[string]any
		err                       string
	}{
		{"nothing", "", "", map[string]any{"service.name": "unknown_service:spile"}, ""},
		{"service", "cart", "", map[string]any{"service.name": "cart"}, ""},
		{
			"attributes", "", "service.name=shop,k8s.pod.name=cart-7f%2C1, a = b%20c ,",
			map[string]any{"service.name": "shop", "k8s.pod.name": "cart-7f,1", "a": "b c"},
			"",
		},
		{"service wins", "cart", "service.name=shop", map[string]any{"service.name": "cart"}, ""},
		{"empty name", "", "service.name=", map[string]any{"service.name": "unknown_service:spile"}, ""},
		{"plus is no space", "", "a=b+c", map[string]any{"service.name": "unknown_service:spile", "a": "b+c"}, ""},
		{"no value", "cart", "a=b,c", map[string]any{"service.name": "cart"}, `OTEL_RESOURCE_ATTRIBUTES="c": accepted is key=value pairs, separated by commas`},
		{"bad encoding", "cart", "a=%zz", map[string]any{"service.name": "cart"}, `OTEL_RESOURCE_ATTRIBUTES="a=%zz": invalid URL escape "%zz"; accepted is percent-encoding`},
		{"not UTF-8", "cart", "a=%ff", map[string]any{"service.name": "cart"}, `OTEL_RESOURCE_ATTRIBUTES="a=%ff": accepted is UTF-8, percent-encoded`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, err := Resource(environ(map[string]string{
				"OTEL_SERVICE_NAME": tt.service, "OTEL_RESOURCE_ATTRIBUTES": tt.attributes,
			}), "1.2.3")
			if got := errText(err); got != tt.err {
				t.Errorf("error %q, want %q", got, tt.err)
			}
			for k, v := range sdk {
				tt.want[k] = v
			}
			if d := cmp.Diff(tt.want, res.Attributes().AsRaw()); d != "" {
				t.Errorf("resource (-want +got):\n%s", d)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestLimitFallback: a limit of spans that is not accepted counts as unset, so that
// the one of all signals counts.
func TestLimitFallback(t *testing.T) {
	cfg, err := ConfigFromEnv(environ(map[string]string{
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_ATTRIBUTE_COUNT_LIMIT": "12",
	}))
	if want := `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="0": accepted is a number from 1 to 1024`; errText(err) != want || cfg.CountLimit != 12 {
		t.Errorf("limit %d, error %v", cfg.CountLimit, err)
	}
}

// TestCountLimit: what is too many is left out and counted, those of header
// fields first.
func TestCountLimit(t *testing.T) {
	cfg, err := ConfigFromEnv(environ(map[string]string{
		"OTEL_ATTRIBUTE_COUNT_LIMIT": "12", "SPILE_CAPTURE_HEADERS": "a,b,c,d",
	}))
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder(cfg)
	x := parseExchange(t, "GET /a?b=c HTTP/1.1\nHost: shop\nUser-Agent: test\na: 1\nb: 2\nc: 3\nd: 4\n\nHTTP/1.1 200\n")
	s := decodeSpan(t, b.Append(nil, x, b.Identify(x)))
	if s.Attributes().Len() != 12 || s.DroppedAttributesCount() == 0 {
		t.Errorf("%d attributes, %d left out: %v", s.Attributes().Len(), s.DroppedAttributesCount(), s.Attributes().AsRaw())
	}
	for _, name := range []string{"url.path", "url.query", "http.response.status_code", "user_agent.original"} {
		if _, ok := s.Attributes().Get(name); !ok {
			t.Errorf("lacks %s", name)
		}
	}
}
