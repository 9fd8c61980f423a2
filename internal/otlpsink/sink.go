// Package otlpsink is an OTLP receiver of traces and metrics within the process,
// for tests and the demo: OTLP/HTTP (protobuf and JSON) and OTLP/gRPC on one port, gzip or
// not. Tests tell it how to misbehave.
package otlpsink

import (
	"fmt"
	"net"
	"net/http"
	"sync"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Sink receives traces. It is an http.Handler; gRPC needs it to be served by
// HTTP/2, as Serve does, also without TLS.
type Sink struct {
	receive func(ptrace.Traces)
	server  http.Server
	addr    net.Addr

	mu       sync.Mutex
	script   []Reply
	repeat   *Reply
	requests []Request

	metrics         func(pmetric.Metrics)
	metricsReply    Reply
	metricsRequests []Request
}

// Request is what was received, its spans or metrics apart.
type Request struct {
	Protocol string // "grpc", "http/protobuf" or "http/json"
	Header   http.Header
	Spans    int // or data points
	Bytes    int // of the body as it came
}

// maxRequests is how many requests a Sink remembers: the demo may run for days.
const maxRequests = 1 << 16

// New returns a Sink that hands over what it receives, from several goroutines
// at once.
func New(receive func(ptrace.Traces)) *Sink {
	s := &Sink{receive: receive}
	s.server.Handler = s
	s.server.Protocols = new(http.Protocols)
	s.server.Protocols.SetHTTP1(true)
	s.server.Protocols.SetHTTP2(true)
	s.server.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// Start returns a Sink that listens on addr (host:port), which may be
// "127.0.0.1:0".
func Start(addr string, receive func(ptrace.Traces)) (*Sink, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for OTLP: %w", err)
	}
	s := New(receive)
	s.addr = l.Addr()
	go func() { _ = s.Serve(l) }() // until Close
	return s, nil
}

// Serve accepts connections until Close; it returns http.ErrServerClosed then.
func (s *Sink) Serve(l net.Listener) error { return s.server.Serve(l) }

// Endpoint returns the URL of a Sink that Start returned, without a path: as
// OTEL_EXPORTER_OTLP_ENDPOINT has it, for each protocol.
func (s *Sink) Endpoint() string { return "http://" + s.addr.String() }

// Close ends all connections at once.
func (s *Sink) Close() error { return s.server.Close() }

// OnMetrics says what to do with metrics; until then they are accepted and
// forgotten.
func (s *Sink) OnMetrics(receive func(pmetric.Metrics)) {
	s.mu.Lock()
	s.metrics = receive
	s.mu.Unlock()
}

// ReplyMetrics says how requests with metrics are answered, until it is called
// again.
func (s *Sink) ReplyMetrics(r Reply) {
	s.mu.Lock()
	s.metricsReply = r
	s.mu.Unlock()
}

// MetricsRequests returns the first of the requests with metrics so far.
func (s *Sink) MetricsRequests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.metricsRequests...)
}

func (s *Sink) nextMetrics(r Request) (Reply, func(pmetric.Metrics)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metricsRequests) < maxRequests {
		s.metricsRequests = append(s.metricsRequests, r)
	}
	return s.metricsReply, s.metrics
}

// Requests returns the first of the requests with traces so far.
func (s *Sink) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Script says how the next requests are answered, one after the other; those
// after them are accepted.
func (s *Sink) Script(replies ...Reply) {
	s.mu.Lock()
	s.script, s.repeat = replies, nil
	s.mu.Unlock()
}

// Repeat says how every further request is answered, until Script.
func (s *Sink) Repeat(r Reply) {
	s.mu.Lock()
	s.script, s.repeat = nil, &r
	s.mu.Unlock()
}

func (s *Sink) next(r Request) Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) < maxRequests {
		s.requests = append(s.requests, r)
	}
	if s.repeat != nil {
		return *s.repeat
	}
	if len(s.script) == 0 {
		return Reply{}
	}
	reply := s.script[0]
	s.script = s.script[1:]
	return reply
}
