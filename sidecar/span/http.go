package span

import (
	"net/netip"
	"strconv"

	"github.com/spile-dev/spile/sidecar/exchange"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
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

	otherMethod = "_OTHER" // http.request.method of an unknown method
	otherName   = "HTTP"   // its {method} in the span name
)

func (b *Builder) describeServer(x *exchange.Exchange, t *target, m method) {
	r := &b.rec
	r.kind = spanKindServer
	for i := range b.routes {
		if route := &b.routes[i]; route.Match(t.path) {
			r.name = route.names[m.name]
			r.text(keyRoute, route.String())
			break
		}
	}
	fwd := forwardedBy(x.Request.Fields)
	scheme := t.scheme
	if fwd.proto != "" {
		scheme = fwd.proto
	}
	r.text(keyURLScheme, b.clean(scheme))
	r.text(keyURLPath, b.clean(t.path))
	if t.hasQuery {
		r.text(keyURLQuery, b.clean(redactQuery(t.query)))
	}
	b.server(x, t, fwd.host, scheme)
	b.client(x, &fwd)
	b.peer(x.Peers.Client)
	b.local(x.Peers.Server)
	b.protocol(x)
	if ua, ok := x.Request.Fields.Get("User-Agent"); ok {
		r.text(keyUserAgent, b.clean(ua))
	}
}

func (b *Builder) describeClient(x *exchange.Exchange, t *target) {
	r := &b.rec
	r.kind = spanKindClient
	auth := b.server(x, t, "", t.scheme)
	r.text(keyURLFull, b.clean(t.url(auth)))
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

// server sets server.address and server.port from the first that is a valid
// authority of: the host a proxy forwarded, that of an absolute-form or
// authority-form target, Host; otherwise from the server's end of the
// connection. It returns what it chose as an authority, for url.full.
func (b *Builder) server(x *exchange.Exchange, t *target, forwarded, scheme string) string {
	for _, auth := range [...]string{forwarded, t.authority, x.Request.Host} {
		host, port, ok := parseAuthority(auth)
		if !ok {
			continue
		}
		if port == 0 {
			port = defaultPort(scheme)
		}
		b.rec.text(keyServerAddress, b.clean(host))
		b.rec.int(keyServerPort, int64(port))
		return auth
	}
	end := x.Peers.Server
	if !end.IsValid() {
		return ""
	}
	b.rec.text(keyServerAddress, b.addr(end.Addr()))
	b.rec.int(keyServerPort, int64(end.Port()))
	return netip.AddrPortFrom(end.Addr().Unmap(), end.Port()).String()
}

// client sets client.address, and client.port if it is asked for, from what
// proxies said of the first client, otherwise from the client's end of the
// connection.
func (b *Builder) client(x *exchange.Exchange, fwd *forwarded) {
	end := x.Peers.Client
	if fwd.client.Addr().IsValid() {
		end = fwd.client
	}
	if !end.Addr().IsValid() {
		return
	}
	b.rec.text(keyClientAddress, b.addr(end.Addr()))
	if b.optIn.clientPort && end.Port() != 0 {
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
	if b.optIn.transport {
		b.rec.text(keyTransport, "tcp")
	}
	if v := x.Protocol.Version(); v != "" {
		b.rec.text(keyProtocolVersion, v)
	}
}

// describeOutcome sets the response's attributes, error.type and the status: an
// error is a 5xx, for a client a 4xx too, and an exchange that the network
// broke off. That the capture saw only a part of an exchange is no error of it.
func (b *Builder) describeOutcome(x *exchange.Exchange) {
	r, status := &b.rec, x.Response.Status
	if status != 0 {
		r.int(keyStatus, int64(status))
	}
	var broken string
	switch x.Outcome {
	case exchange.NoResponse:
		broken = "connection closed before the response"
	case exchange.Reset:
		broken = "connection reset before the end of the exchange"
	case exchange.Truncated:
		broken = "connection closed before the end of a message"
	}
	switch {
	case status >= 500, status >= 400 && x.Role == exchange.RoleClient:
		r.failed = true
		r.text(keyErrorType, statusText(status))
	case broken != "":
		r.failed, r.message = true, broken
		r.text(keyErrorType, x.Outcome.String())
	}
	if x.Outcome != exchange.Complete {
		r.text(keyOutcome, x.Outcome.String())
	}
	if b.optIn.requestBodySize {
		r.int(keyRequestBodySize, x.Request.BodySize)
	}
	if b.optIn.responseBodySize && status != 0 {
		r.int(keyResponseBodySize, x.Response.BodySize)
	}
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
		b.headers(h.request, h.Name, x.Request.Fields)
		b.headers(h.response, h.Name, x.Response.Fields)
	}
}

func (b *Builder) headers(key, name string, fields exchange.Fields) {
	r, from := &b.rec, len(b.rec.values)
	for i := range fields {
		if len(r.values)-from == maxHeaderValues {
			break
		}
		if equalFold(fields[i].Name, name) {
			r.values = append(r.values, b.clean(fields[i].Value))
		}
	}
	if len(r.values) > from {
		r.list(key, from)
	}
}
