// Package span describes an HTTP exchange as an OpenTelemetry span by the
// semantic conventions for HTTP and for gRPC (https://opentelemetry.io/docs/specs/semconv/).
// docs/attributes.md lists the attributes.
//
// The conventions are applied once, into a flat record; the record is then
// written either as OTLP protobuf bytes (Append, the path of every exported
// span) or into a collector/pdata span (Put), and says which series of the
// duration metrics the exchange counts in (Measurement).
package span

import (
	"net/netip"
	"slices"

	"go.opentelemetry.io/collector/pdata/ptrace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/spile-dev/spile/sidecar/exchange"
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
	grouper *grouper // nil: paths that no route matches have none
	rpc     rpcMethods
	probes  bool // are left out
	scrapes bool // are left out
	ids     *idSource
	addrs   map[netip.Addr]string
	rec     record
}

// method is a known HTTP method: the value of http.request.method and the span
// name without a route.
type method struct{ value, name string }

// NewBuilder returns a Builder. Its Config comes from ConfigFromEnv or Default:
// in the zero Config no method is known, no value fits, and nothing is sampled.
func NewBuilder(cfg Config) *Builder {
	b := &Builder{
		cfg:     cfg,
		optIn:   newOptIn(cfg.OptIn),
		methods: make(map[string]method, len(cfg.KnownMethods)),
		rpc:     make(rpcMethods),
		probes:  slices.Contains(cfg.Exclude, excludeProbes),
		scrapes: slices.Contains(cfg.Exclude, excludeScrapes),
		ids:     newIDSource(),
		addrs:   make(map[netip.Addr]string),
	}
	for _, m := range cfg.KnownMethods {
		b.methods[m] = method{m, m}
	}
	for _, p := range cfg.Routes {
		b.routes = append(b.routes, namedRoute{p, routeName{text: p.String()}})
	}
	if cfg.RoutesUnmatched == routesHeuristic {
		b.grouper = newGrouper()
	}
	return b
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
	b.Describe(x)
	return b.AppendDescribed(buf, id)
}

// AppendDescribed is Append of the exchange that was last described.
func (b *Builder) AppendDescribed(buf []byte, id Identity) []byte {
	return appendSpan(buf, &b.rec, &id)
}

// Put fills dst, which must be new, with the exchange.
func (b *Builder) Put(x *exchange.Exchange, id Identity, dst ptrace.Span) {
	b.Describe(x)
	putSpan(dst, &b.rec, &id)
}

// Describe applies the conventions to the exchange, for Measurement and
// AppendDescribed.
func (b *Builder) Describe(x *exchange.Exchange) {
	r := &b.rec
	r.reset()
	r.start, r.end = uint64(max(x.Start, 0)), uint64(max(x.Start, x.End, 0))
	r.measured = ended(x.Outcome)
	r.measure.Container = b.Container(x)
	r.kind = spanKindServer
	if x.Role == exchange.RoleClient {
		r.kind = spanKindClient
	}
	if x.Protocol == exchange.GRPC {
		b.describeRPC(x)
	} else {
		b.describeHTTP(x)
	}
	if x.Outcome != exchange.Complete {
		r.text(keyOutcome, x.Outcome.String())
	}
	b.describeHeaders(x)
	if n := b.cfg.CountLimit; len(r.attrs) > n { // those of headers are last
		r.left, r.attrs = uint32(len(r.attrs)-n), r.attrs[:n]
	}
}

func (b *Builder) method(wire string) method {
	if m, ok := b.methods[wire]; ok {
		return m
	}
	return method{otherMethod, otherName}
}
