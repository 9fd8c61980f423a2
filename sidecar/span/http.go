package span

import (
	"net/netip"
	"strconv"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/spile-dev/spile/sidecar/exchange"
)

const (
	keyMethod           = string(semconv.HTTPRequestMethodKey)
	keyMethodOriginal   = string(semconv.HTTPRequestMethodOriginalKey)
	keyStatus           = string(semconv.HTTPResponseStatusCodeKey)
	keyRoute            = string(semconv.HTTPRouteKey)
	keyRequestBodySize  = string(semconv.HTTPRequestBodySizeKey)
	keyResponseBodySize = string(semconv.HTTPResponseBodySizeKey)
	keyErrorType        = string(semconv.ErrorTypeKey)
	keyURLFull          = string(semconv.URLFullKey)
	keyURLPath          = string(semconv.URLPathKey)
	keyURLQuery         = string(semconv.URLQueryKey)
	keyURLScheme        = string(semconv.URLSchemeKey)
	keyServerAddress    = string(semconv.ServerAddressKey)
	keyServerPort       = string(semconv.ServerPortKey)
	keyClientAddress    = string(semconv.ClientAddressKey)
	keyClientPort       = string(semconv.ClientPortKey)
	keyPeerAddress      = string(semconv.NetworkPeerAddressKey)
	keyPeerPort         = string(semconv.NetworkPeerPortKey)
	keyLocalAddress     = string(semconv.NetworkLocalAddressKey)
	keyLocalPort        = string(semconv.NetworkLocalPortKey)
	keyTransport        = string(semconv.NetworkTransportKey)
	keyProtocolVersion  = string(semconv.NetworkProtocolVersionKey)
	keyUserAgent        = string(semconv.UserAgentOriginalKey)

	// keyOutcome says how the exchange ended, where it was not complete. The
	// conventions have no name for it.
	keyOutcome = "spile.outcome"

	requestHeaderPrefix  = "http.request.header."
	responseHeaderPrefix = "http.response.header."

	requestMetadataPrefix  = "rpc.request.metadata."
	responseMetadataPrefix = "rpc.response.metadata."

	otherMethod = "_OTHER" // http.request.method of an unknown method
	otherName   = "HTTP"   // its {method} in the span name
	otherError  = "_OTHER" // error.type of an unknown error
)

func (b *Builder) describeHTTP(x *exchange.Exchange) {
	r := &b.rec
	m := b.method(x.Request.Method)
	r.name = m.name
	r.text(keyMethod, m.value)
	if m.value != x.Request.Method && x.Request.Method != "" {
		r.text(keyMethodOriginal, b.clean(x.Request.Method))
	}
	r.measure.Method = m.value
	t := parseTarget(x.Request.Method, x.Request.Target)
	if x.Role == exchange.RoleClient {
		r.measure.Instrument = HTTPClient
		b.describeClient(x, &t)
	} else {
		r.measure.Instrument = HTTPServer
		b.describeServer(x, &t, m)
	}
	b.describeOutcome(x)
}

func (b *Builder) describeServer(x *exchange.Exchange, t *target, m method) {
	r := &b.rec
	if route := b.route(x, t.path); route != nil {
		r.name = route.with(m.name)
		r.measure.Route = route.text
		r.text(keyRoute, route.text)
	}
	fwd := forwardedBy(x.Request.Fields)
	scheme := t.scheme
	if fwd.proto != "" {
		scheme = fwd.proto
	}
	r.measure.Scheme = knownScheme(scheme)
	r.text(keyURLScheme, b.clean(scheme))
	if t.form != unknownForm {
		r.text(keyURLPath, b.clean(t.path))
	}
	if t.hasQuery {
		r.text(keyURLQuery, b.clean(redactQuery(t.query)))
	}
	b.server(x, defaultPort(scheme), fwd.host, t.authority, x.Request.Host)
	b.client(x, &fwd, b.optIn.clientPort)
	b.peer(x.Peers.Client)
	b.local(x.Peers.Server)
	b.protocol(x)
	if ua, ok := x.Request.Fields.Get("User-Agent"); ok {
		r.text(keyUserAgent, b.clean(ua))
	}
}

func (b *Builder) describeClient(x *exchange.Exchange, t *target) {
	r := &b.rec
	auth := b.server(x, defaultPort(t.scheme), t.authority, x.Request.Host)
	if t.form != unknownForm {
		r.text(keyURLFull, b.clean(t.url(auth)))
	}
	if b.optIn.urlScheme {
		r.text(keyURLScheme, b.clean(t.scheme))
	}
	b.peer(x.Peers.Server)
	b.protocol(x)
	if b.optIn.userAgent {
		if ua, ok := x.Request.Fields.Get("User-Agent"); ok {
			r.text(keyUserAgent, b.clean(ua))
		}
	}
}

// server sets server.address and server.port from the first authority that is
// valid, with the given port where it names none, otherwise from the server's
// end of the connection. It returns what it chose as an authority, for url.full.
func (b *Builder) server(x *exchange.Exchange, unnamed uint16, authorities ...string) string {
	for _, auth := range authorities {
		host, port, ok := parseAuthority(auth)
		if !ok {
			continue
		}
		if port == 0 {
			port = unnamed
		}
		b.setServer(b.clean(host), port)
		return auth
	}
	end := x.Peers.Server
	if !end.IsValid() {
		return ""
	}
	b.setServer(b.addr(end.Addr()), end.Port())
	return netip.AddrPortFrom(end.Addr().Unmap(), end.Port()).String()
}

func (b *Builder) setServer(host string, port uint16) {
	r := &b.rec
	r.text(keyServerAddress, host)
	r.int(keyServerPort, int64(port))
	if r.kind == spanKindClient { // on servers, clients would choose the value
		r.measure.ServerAddress, r.measure.ServerPort = host, port
	}
}

// client sets client.address, and client.port if it is wanted, from what proxies
// said of the first client, otherwise from the client's end of the connection.
func (b *Builder) client(x *exchange.Exchange, fwd *forwarded, port bool) {
	end := x.Peers.Client
	if fwd.client.Addr().IsValid() {
		end = fwd.client
	}
	if !end.Addr().IsValid() {
		return
	}
	b.rec.text(keyClientAddress, b.addr(end.Addr()))
	if port && end.Port() != 0 {
		b.rec.int(keyClientPort, int64(end.Port()))
	}
}

func (b *Builder) peer(end netip.AddrPort) {
	if !end.IsValid() {
		return
	}
	b.rec.text(keyPeerAddress, b.addr(end.Addr()))
	b.rec.int(keyPeerPort, int64(end.Port()))
}

func (b *Builder) local(end netip.AddrPort) {
	if !end.IsValid() {
		return
	}
	if b.optIn.localAddress {
		b.rec.text(keyLocalAddress, b.addr(end.Addr()))
	}
	if b.optIn.localPort {
		b.rec.int(keyLocalPort, int64(end.Port()))
	}
}

func (b *Builder) protocol(x *exchange.Exchange) {
	if b.optIn.transport || x.Protocol == exchange.GRPC {
		b.rec.text(keyTransport, "tcp")
	}
	if v := x.Protocol.Version(); v != "" {
		b.rec.measure.Version = v
		b.rec.text(keyProtocolVersion, v)
	}
}

// describeOutcome sets the response's attributes, error.type and the status: an
// error is a 5xx, for a client a 4xx too, and an exchange that was broken off.
// That the capture saw only a part of an exchange is no error of it.
func (b *Builder) describeOutcome(x *exchange.Exchange) {
	r, status := &b.rec, x.Response.Status
	if status != 0 {
		r.int(keyStatus, int64(status))
		r.measure.Status = uint16(status)
	}
	errorType, message := brokenOff(x)
	switch {
	case status >= 500, status >= 400 && x.Role == exchange.RoleClient:
		r.fail(statusText(status), "")
	case errorType != "":
		r.fail(errorType, message)
	}
	if b.optIn.requestBodySize && x.Request.BodySize != exchange.UnknownSize {
		r.int(keyRequestBodySize, x.Request.BodySize)
	}
	if b.optIn.responseBodySize && status != 0 && x.Response.BodySize != exchange.UnknownSize {
		r.int(keyResponseBodySize, x.Response.BodySize)
	}
}

// brokenOff returns error.type and the status description of an exchange that
// did not come to its end, "" if it did, or if nothing is known of that.
func brokenOff(x *exchange.Exchange) (errorType, message string) {
	switch x.Outcome {
	case exchange.NoResponse:
		message = "connection closed before the response"
	case exchange.Truncated:
		message = "connection closed before the end of a message"
	case exchange.Reset:
		switch {
		case !x.Reset.Seen:
			message = "connection reset before the end of the exchange"
		case x.Reset.ByServer:
			return streamError(x.Reset.Code), "stream reset by the server"
		default:
			return streamError(x.Reset.Code), "stream reset by the client"
		}
	default:
		return "", ""
	}
	return x.Outcome.String(), message
}

// streamErrors are the error codes of HTTP/2 (RFC 9113, section 7) by number.
var streamErrors = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

func streamError(code uint32) string {
	if code < uint32(len(streamErrors)) {
		return streamErrors[code]
	}
	return otherError
}

// statusText returns the status code as error.type has it.
func statusText(status int) string {
	if status >= 400 && status < 600 {
		return statusTexts[status-400]
	}
	return strconv.Itoa(status)
}

var statusTexts = func() (texts [200]string) {
	for i := range texts {
		texts[i] = strconv.Itoa(400 + i)
	}
	return texts
}()

// maxHeaderValues bounds the field lines of one name that a span carries.
const maxHeaderValues = 32

func (b *Builder) describeHeaders(x *exchange.Exchange) {
	for i := range b.cfg.CaptureHeaders {
		h := &b.cfg.CaptureHeaders[i]
		if x.Protocol == exchange.GRPC {
			b.headers(h.requestMetadata, h.Name, x.Request.Fields, nil)
			b.headers(h.responseMetadata, h.Name, x.Response.Fields, x.Response.Trailers)
		} else {
			b.headers(h.request, h.Name, x.Request.Fields, nil)
			b.headers(h.response, h.Name, x.Response.Fields, nil)
		}
	}
}

func (b *Builder) headers(key, name string, sections ...exchange.Fields) {
	r, from := &b.rec, len(b.rec.values)
	for _, fields := range sections {
		for i := range fields {
			if len(r.values)-from == maxHeaderValues {
				break
			}
			if equalFold(fields[i].Name, name) {
				r.values = append(r.values, b.clean(fields[i].Value))
			}
		}
	}
	if len(r.values) > from {
		r.list(key, from)
	}
}
