// Package span describes an HTTP exchange as an OpenTelemetry span by the
// stable HTTP semantic conventions (https://opentelemetry.io/docs/specs/semconv/http/http-spans/).
//
// The conventions are applied once, into a flat record; the record is then
// written either as OTLP protobuf bytes (Append, the path of every exported
// span) or into a collector/pdata span (Put).
package span

import (
	"net/netip"

	"github.com/spile-dev/spile/sidecar/exchange"
	"go.opentelemetry.io/collector/pdata/ptrace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// SchemaURL names the version of the semantic conventions that spans follow.
const SchemaURL = semconv.SchemaURL

// ScopeName is the instrumentation scope of every span.
const ScopeName = "github.com/spile-dev/spile"

// Builder makes spans of exchanges. It keeps scratch memory between calls and
// is for one goroutine.
type Builder struct {
	cfg     Config
	optIn   optIn
	methods map[string]method
	routes  []namedRoute
	ids     *idSource
	addrs   map[netip.Addr]string
	rec     record
}

// method is a known HTTP method: the value of http.request.method and the span
// name without a route.
type method struct{ value, name string }

// namedRoute is a route and its span name for each {method} placeholder, made
// ahead so that naming a span does not allocate.
type namedRoute struct {
	Pattern
	names map[string]string
}

// NewBuilder returns a Builder. Its Config comes from ConfigFromEnv or Default:
// in the zero Config no method is known, no value fits, and nothing is sampled.
func NewBuilder(cfg Config) *Builder {
	b := &Builder{
		cfg:     cfg,
		optIn:   newOptIn(cfg.OptIn),
		methods: make(map[string]method, len(cfg.KnownMethods)),
		ids:     newIDSource(),
		addrs:   make(map[netip.Addr]string),
	}
	for _, m := range cfg.KnownMethods {
		b.methods[m] = method{m, m}
	}
	for _, p := range cfg.Routes {
		r := namedRoute{p, map[string]string{otherName: otherName + " " + p.String()}}
		for _, m := range cfg.KnownMethods {
			r.names[m] = m + " " + p.String()
		}
		b.routes = append(b.routes, r)
	}
	return b
}

// Excluded reports whether the path of the request is one that the
// configuration leaves out.
func (b *Builder) Excluded(x *exchange.Exchange) bool {
	if len(b.cfg.ExcludePaths) == 0 {
		return false
	}
	path := parseTarget(x.Request.Method, x.Request.Target).path
	for i := range b.cfg.ExcludePaths {
		if b.cfg.ExcludePaths[i].Match(path) {
			return true
		}
	}
	return false
}

// Container returns the name of the container that the exchange belongs to, ""
// if it cannot be told. Only the server's port says so: a client's port is
// ephemeral, and any container of the pod may have opened it.
func (b *Builder) Container(x *exchange.Exchange) string {
	if x.Role != exchange.RoleServer {
		return ""
	}
	return b.cfg.ContainerPorts[x.Peers.Server.Port()]
}

// Append appends the exchange to buf as one encoded
// opentelemetry.proto.trace.v1.Span message.
func (b *Builder) Append(buf []byte, x *exchange.Exchange, id Identity) []byte {
	b.describe(x)
	return appendSpan(buf, &b.rec, &id)
}

// Put fills dst, which must be new, with the exchange.
func (b *Builder) Put(x *exchange.Exchange, id Identity, dst ptrace.Span) {
	b.describe(x)
	putSpan(dst, &b.rec, &id)
}

// describe fills the record of the Builder from the exchange.
func (b *Builder) describe(x *exchange.Exchange) {
	r := &b.rec
	r.reset()
	r.start, r.end = uint64(max(x.Start, 0)), uint64(max(x.Start, x.End, 0))
	m := b.method(x.Request.Method)
	r.name = m.name
	r.text(keyMethod, m.value)
	if m.value != x.Request.Method {
		r.text(keyMethodOriginal, b.clean(x.Request.Method))
	}
	t := parseTarget(x.Request.Method, x.Request.Target)
	if x.Role == exchange.RoleClient {
		b.describeClient(x, &t)
	} else {
		b.describeServer(x, &t, m)
	}
	b.describeOutcome(x)
	b.describeHeaders(x)
}

func (b *Builder) method(wire string) method {
	if m, ok := b.methods[wire]; ok {
		return m
	}
	return method{otherMethod, otherName}
}
