package otlpsink

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

const (
	tracesPath          = "/v1/traces"
	metricsPath         = "/v1/metrics"
	grpcMethod          = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	metricsGRPCMethod   = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
	contentTypeGRPC     = "application/grpc"
	contentTypeProtobuf = "application/x-protobuf"
	contentTypeJSON     = "application/json"

	maxRequestBytes = 64 << 20 // of a body, compressed or not
)

// ServeHTTP receives one request.
func (s *Sink) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	contentType, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxRequestBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path := req.URL.Path
	switch {
	case req.Method != http.MethodPost:
		http.Error(w, "accepted is POST", http.StatusMethodNotAllowed)
	case contentType == contentTypeGRPC && (path == grpcMethod || path == metricsGRPCMethod):
		message, err := grpcMessage(body, req.Header.Get("Grpc-Encoding"))
		if err == nil {
			err = s.take(w, req, received{"grpc", message, len(body)}, path == metricsGRPCMethod, func(r *Reply) { r.grpc(w) })
		}
		if err != nil {
			(&Reply{Code: 3, Message: err.Error()}).grpc(w)
		}
	case path != tracesPath && path != metricsPath:
		http.NotFound(w, req)
	default:
		in, err := httpMessage(body, contentType, req.Header.Get("Content-Encoding"))
		if err == nil {
			err = s.take(w, req, in, path == metricsPath, func(r *Reply) { r.http(w, contentType) })
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}
}

// received is an encoded request, and its size as it came.
type received struct {
	protocol string
	message  []byte
	size     int
}

// take decodes a request, answers it and hands it over. Nothing is answered if
// it cannot be decoded.
func (s *Sink) take(w http.ResponseWriter, req *http.Request, in received, metrics bool, answer func(*Reply)) error {
	var reply Reply
	var hand func()
	if metrics {
		md, err := in.metrics()
		if err != nil {
			return err
		}
		var receive func(pmetric.Metrics)
		reply, receive = s.nextMetrics(Request{in.protocol, req.Header.Clone(), md.DataPointCount(), in.size})
		hand = func() {
			if receive != nil {
				receive(md)
			}
		}
	} else {
		td, err := in.traces()
		if err != nil {
			return err
		}
		reply = s.next(Request{in.protocol, req.Header.Clone(), td.SpanCount(), in.size})
		hand = func() { s.receive(td) }
	}
	if reply.accepts() {
		hand()
	}
	if !reply.misbehave(w, req) {
		answer(&reply)
	}
	return nil
}

func (in *received) traces() (ptrace.Traces, error) {
	if in.protocol == "http/json" {
		return (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(in.message)
	}
	return (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(in.message)
}

func (in *received) metrics() (pmetric.Metrics, error) {
	if in.protocol == "http/json" {
		return (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics(in.message)
	}
	return (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(in.message)
}

func grpcMessage(body []byte, encoding string) ([]byte, error) {
	if len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
		return nil, errors.New("not one gRPC message")
	}
	message := body[5:]
	if body[0] == 0 {
		return message, nil
	}
	if encoding != "gzip" {
		return nil, fmt.Errorf("grpc-encoding %q: accepted is gzip", encoding)
	}
	return decompress(message)
}

func httpMessage(body []byte, contentType, encoding string) (received, error) {
	in := received{message: body, size: len(body)}
	switch encoding {
	case "", "identity":
	case "gzip":
		var err error
		if in.message, err = decompress(body); err != nil {
			return in, err
		}
	default:
		return in, fmt.Errorf("content-encoding %q: accepted is gzip", encoding)
	}
	switch contentType {
	case contentTypeProtobuf:
		in.protocol = "http/protobuf"
	case contentTypeJSON:
		in.protocol = "http/json"
	default:
		return in, fmt.Errorf("content type %q: accepted is %s or %s", contentType, contentTypeProtobuf, contentTypeJSON)
	}
	return in, nil
}

func decompress(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxRequestBytes+1))
	if err == nil && len(out) > maxRequestBytes {
		err = fmt.Errorf("longer than %d bytes", maxRequestBytes)
	}
	return out, err
}
