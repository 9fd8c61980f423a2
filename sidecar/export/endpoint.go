package export

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// endpoint returns the URL that requests go to, by protocol.
func (e *env) endpoint(protocol string) Endpoint {
	name := e.otlpName("ENDPOINT")
	value := e.get(name)
	if protocol == ProtocolGRPC {
		return e.grpcEndpoint(name, value)
	}
	if value == "" {
		return Endpoint{url.URL{Scheme: "http", Host: "localhost:4318", Path: e.signal.path}}
	}
	u, ok := parseURL(value)
	if !ok {
		e.reject(name, hideSecrets(value), "a URL such as http://collector:4318 or https://collector.example.com/otlp")
		return e.without(name).endpoint(protocol)
	}
	if strings.HasSuffix(name, "_"+e.signal.variable+"_ENDPOINT") { // used as it is
		if u.Path == "" {
			u.Path = "/"
		}
		return Endpoint{*u}
	}
	return Endpoint{*u.JoinPath(e.signal.path)}
}

func (e *env) grpcEndpoint(name, value string) Endpoint {
	if value == "" {
		return Endpoint{url.URL{Scheme: "http", Host: "localhost:4317"}}
	}
	u, ok := parseURL(value)
	if !ok && !strings.Contains(value, "/") {
		if _, port, err := net.SplitHostPort(value); err == nil && port != "" {
			scheme := "https"
			if e.boolean(e.otlpNames("INSECURE")...) {
				scheme = "http"
			}
			u, ok = parseURL(scheme + "://" + value)
		}
	}
	if !ok || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		e.reject(name, hideSecrets(value), "a URL such as http://collector:4317, or host:port (with TLS unless OTEL_EXPORTER_OTLP_INSECURE=true)")
		return e.without(name).endpoint(ProtocolGRPC)
	}
	u.Path = ""
	return Endpoint{*u}
}

// without returns an env in which the variable is not set.
func (e *env) without(name string) *env {
	return &env{signal: e.signal, getenv: func(n string) string {
		if n == name {
			return ""
		}
		return e.getenv(n)
	}}
}

func parseURL(value string) (*url.URL, bool) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return nil, false
	}
	return u, true
}

// Redacted is the URL without what may be a credential: the password, a user name
// without one, the values in a query.
func (e Endpoint) Redacted() string {
	const hidden = "xxxxx"
	u := e.URL
	if password, _ := u.User.Password(); u.User != nil && password == "" {
		u.User = url.User(hidden)
	}
	if u.RawQuery != "" {
		params := strings.Split(u.RawQuery, "&")
		for i, p := range params {
			if name, _, ok := strings.Cut(p, "="); ok {
				params[i] = name + "=" + hidden
			} else {
				params[i] = hidden
			}
		}
		u.RawQuery = strings.Join(params, "&")
	}
	return u.Redacted()
}

// hideSecrets makes an endpoint that does not parse fit for an error.
func hideSecrets(s string) string {
	if path, _, ok := strings.Cut(s, "?"); ok {
		s = path + "?REDACTED"
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	scheme := ""
	if i := strings.Index(s, "://"); i >= 0 && i < at {
		scheme = s[:i+3]
	}
	return scheme + "REDACTED@" + s[at+1:]
}

// Headers are sent with each request. Their values may be secret and are never
// printed.
type Headers []Header

// Header is one of Headers.
type Header struct{ Name, Value string }

func (h Headers) String() string {
	var b strings.Builder
	for i, header := range h {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(header.Name + "=REDACTED")
	}
	return b.String()
}

// GoString keeps values out of %#v.
func (h Headers) GoString() string { return fmt.Sprintf("export.Headers(%q)", h.String()) }

// MarshalJSON returns an object of the names.
func (h Headers) MarshalJSON() ([]byte, error) {
	names := make(map[string]string, len(h))
	for _, header := range h {
		names[header.Name] = "REDACTED"
	}
	return json.Marshal(names)
}

// authorize adds what the configuration says that requests carry.
func (c *OTLP) authorize(req *http.Request) {
	if u := c.Endpoint.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	for _, h := range c.Headers {
		req.Header.Set(h.Name, h.Value)
	}
}

// misdirected is a connection's error that is likely due to a protocol that is not
// the endpoint's.
type misdirected struct {
	error
	hint string // what to change
}

func (m *misdirected) Error() string { return m.error.Error() + "; " + m.hint }
func (m *misdirected) Unwrap() error { return m.error }

// explain adds to a connection's error that the protocol is likely not the
// endpoint's: the commonest mistake, with errors that do not tell.
func (c *OTLP) explain(err error) error {
	port := c.Endpoint.Port()
	switch {
	case c.Protocol == ProtocolGRPC && port == "4318":
		return &misdirected{err, "port 4318 is OTLP/HTTP's, by OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}
	case c.Protocol != ProtocolGRPC && (port == "4317" || isHTTP2Answer(err)):
		return &misdirected{err, "a gRPC receiver, as on port 4317, needs OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}
	}
	return err
}

// isHTTP2Answer recognises the errors of net/http for the settings that an HTTP/2
// server sends, after the request or before it.
func isHTTP2Answer(err error) bool {
	s := err.Error()
	return strings.Contains(s, "malformed HTTP response") || strings.Contains(s, "readLoopPeekFailLocked")
}

// headers reads key=value pairs in the format of W3C Baggage without its
// metadata: percent-encoded, separated by commas.
func (e *env) headers() Headers {
	name := e.otlpName("HEADERS")
	headers, faults := parseHeaders(name, e.get(name), ",")
	e.faults = append(e.faults, faults...)
	return headers
}

// parseHeaders reads what name holds; separators are those between pairs.
func parseHeaders(name, list, separators string) (out Headers, faults []error) {
	for item := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if strings.TrimSpace(item) == "" {
			continue
		}
		key, value, ok := strings.Cut(item, "=")
		key = strings.TrimSpace(key)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || err != nil || !validHeaderName(key) || !validHeaderValue(value) {
			if !ok || !validHeaderName(key) { // it may be, or hold, the secret
				key = "REDACTED"
			}
			faults = append(faults, fmt.Errorf("%s=%q: accepted is key=value pairs, percent-encoded, separated by commas", name, key+"=…"))
			continue
		}
		out = append(out, Header{key, value})
	}
	return out, faults
}

func validHeaderName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func validHeaderValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
