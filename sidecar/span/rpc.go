package span

import (
	"net/http"
	"strconv"
	"strings"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/spile-dev/spile/sidecar/exchange"
)

const (
	keyRPCSystem         = string(semconv.RPCSystemNameKey)
	keyRPCMethod         = string(semconv.RPCMethodKey)
	keyRPCMethodOriginal = string(semconv.RPCMethodOriginalKey)
	keyRPCStatus         = string(semconv.RPCResponseStatusCodeKey)
	keyProtocolName      = string(semconv.NetworkProtocolNameKey)

	rpcSystem = "grpc"

	// eventFirstMessage is the event of the first response message, which tells
	// of a stream how long its client waited.
	eventFirstMessage = "spile.first_response_message"
)

// describeRPC applies the conventions for gRPC.
func (b *Builder) describeRPC(x *exchange.Exchange) {
	r := &b.rec
	r.measure.Instrument = RPCServer
	if x.Role == exchange.RoleClient {
		r.measure.Instrument = RPCClient
	}
	r.text(keyRPCSystem, rpcSystem)
	status := rpcStatusOf(x)
	r.name = b.describeRPCMethod(x, status)
	fwd := forwarded{}
	if x.Role == exchange.RoleServer {
		fwd = forwardedBy(x.Request.Fields)
	}
	// An :authority without a port is often not where the server is: clients
	// are told to override it, and its default port would be wrong.
	port := x.Peers.Server.Port()
	if port == 0 {
		port = defaultPort("http")
	}
	b.server(x, port, fwd.host, x.Request.Host)
	if x.Role == exchange.RoleServer {
		b.client(x, &fwd, true)
		b.peer(x.Peers.Client)
		b.local(x.Peers.Server)
	} else {
		b.peer(x.Peers.Server)
	}
	r.text(keyProtocolName, "http")
	b.protocol(x)
	r.firstMessage = uint64(max(x.FirstContent, 0))
	b.describeRPCOutcome(x, status)
}

// describeRPCMethod sets rpc.method and returns the span's name.
func (b *Builder) describeRPCMethod(x *exchange.Exchange, s rpcStatus) string {
	if x.Request.Target == "" { // not decoded
		return rpcSystem
	}
	r := &b.rec
	method, ok := b.rpc.lookup(x, s)
	r.measure.Method = method
	r.text(keyRPCMethod, method)
	if !ok {
		path := parseTarget(x.Request.Method, x.Request.Target).path // without user information
		r.text(keyRPCMethodOriginal, b.clean(strings.TrimPrefix(path, "/")))
		return rpcSystem
	}
	return method
}

// describeRPCOutcome sets rpc.response.status_code, error.type and the status.
func (b *Builder) describeRPCOutcome(x *exchange.Exchange, s rpcStatus) {
	r := &b.rec
	if s.known {
		name := rpcCodes[s.code]
		r.text(keyRPCStatus, name)
		r.measure.StatusCode = name
		if s.code != rpcOK && (x.Role == exchange.RoleClient || rpcServerErrors>>s.code&1 != 0) {
			r.fail(name, "")
		}
		return
	}
	errorType, message := brokenOff(x)
	switch {
	case x.Response.Status != 0 && x.Response.Status != http.StatusOK:
		r.fail(statusText(x.Response.Status), "answered by HTTP status, without a gRPC status")
	case errorType != "":
		r.fail(errorType, message)
	case x.Outcome == exchange.Complete:
		r.fail(otherError, "the response has no gRPC status")
	}
}

// rpcStatus is the status code of a call: what its server said, or what gRPC
// makes of the stream's end.
type rpcStatus struct {
	code  uint8
	known bool
	told  bool // by the server
}

const (
	rpcOK               = 0
	rpcCancelled        = 1
	rpcUnknown          = 2
	rpcDeadlineExceeded = 4
	rpcUnimplemented    = 12

	// rpcServerErrors has a bit for each code that is an error of the server:
	// UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
	rpcServerErrors = 1<<2 | 1<<4 | 1<<12 | 1<<13 | 1<<14 | 1<<15
)

// rpcCodes are the status codes by number.
var rpcCodes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
	"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// rpcStatusOf reads grpc-status from the trailers, or the fields of a response
// that has nothing else. Without one, RST_STREAM tells (gRPC over HTTP2,
// "Errors").
func rpcStatusOf(x *exchange.Exchange) rpcStatus {
	value, ok := x.Response.Trailers.Get("grpc-status")
	if !ok {
		value, ok = x.Response.Fields.Get("grpc-status")
	}
	if ok {
		code, err := strconv.ParseUint(value, 10, 8)
		if err != nil || code >= uint64(len(rpcCodes)) {
			code = rpcUnknown // as clients take it
		}
		return rpcStatus{uint8(code), true, true}
	}
	if !x.Reset.Seen || x.Reset.Code >= uint32(len(rpcOfReset)) {
		return rpcStatus{}
	}
	code := rpcOfReset[x.Reset.Code]
	if code == rpcCancelled && deadlinePassed(x) {
		code = rpcDeadlineExceeded // clients cancel then, and so do servers in Go
	}
	return rpcStatus{code, code != rpcNone, false}
}

const rpcNone = 0xff

// rpcOfReset is the status code by the error code of a RST_STREAM.
var rpcOfReset = [...]uint8{13, 13, 13, 13, 13, rpcNone, 13, 14, rpcCancelled, 13, 13, 8, 7}

// deadlinePassed reports whether the call took about as long as its grpc-timeout
// let it.
func deadlinePassed(x *exchange.Exchange) bool {
	value, ok := x.Request.Fields.Get("grpc-timeout")
	if !ok || len(value) < 2 || len(value) > 9 {
		return false
	}
	n, err := strconv.ParseUint(value[:len(value)-1], 10, 32)
	if err != nil {
		return false
	}
	var unit int64
	switch value[len(value)-1] {
	case 'H':
		unit = 3600e9
	case 'M':
		unit = 60e9
	case 'S':
		unit = 1e9
	case 'm':
		unit = 1e6
	case 'u':
		unit = 1e3
	case 'n':
		unit = 1
	default:
		return false
	}
	// The client's clock starts before its request is sent, which waits for others
	// on the connection and for the processor, and gRPC's core rounds up by as much
	// as a hundredth. That a client cancels so shortly before its deadline is rarer.
	timeout := float64(n) * float64(unit)
	return float64(x.End-x.Start) >= timeout*0.99-min(timeout/10, 1e9)
}

// rpcMethods are the methods that are known to exist: rpc.method may not be
// whatever a client asks for. A client has its methods from the interface's
// definition; of a server those exist that it did not answer by UNIMPLEMENTED.
type rpcMethods map[string]struct{}

const (
	maxRPCMethods   = 1000
	maxRPCMethodLen = 256
)

// lookup returns the method as rpc.method has it; ok is false for _OTHER.
func (known rpcMethods) lookup(x *exchange.Exchange, s rpcStatus) (method string, ok bool) {
	method, ok = strings.CutPrefix(x.Request.Target, "/")
	if !ok || len(method) > maxRPCMethodLen || !isRPCMethod(method) {
		return otherMethod, false
	}
	if _, ok := known[method]; ok {
		return method, true
	}
	exists := x.Role == exchange.RoleClient || s.told && s.code != rpcUnimplemented ||
		!s.told && x.Response.Status == http.StatusOK && x.FirstByte != 0
	if !exists || len(known) >= maxRPCMethods {
		return otherMethod, false
	}
	method = strings.Clone(method)
	known[method] = struct{}{}
	return method, true
}

// isRPCMethod reports whether s is service/method in printable ASCII.
func isRPCMethod(s string) bool {
	slash := strings.IndexByte(s, '/')
	if slash <= 0 || slash == len(s)-1 || strings.IndexByte(s[slash+1:], '/') >= 0 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c > '~' || c == '?' || c == '#' || c == '%' {
			return false
		}
	}
	return true
}
