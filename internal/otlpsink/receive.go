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

	"go.opentelemetry.io/collector/pdata/ptrace"
)

const (
	tracesPath          = "/v1/traces"
	grpcMethod          = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
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
	switch {
	case req.Method != http.MethodPost:
		http.Error(w, "accepted is POST", http.StatusMethodNotAllowed)
	case contentType == contentTypeGRPC && req.URL.Path == grpcMethod:
		td, err := decodeGRPC(body, req.Header.Get("Grpc-Encoding"))
		if err != nil {
			(&Reply{Code: 3, Message: err.Error()}).grpc(w)
			return
		}
		s.take(w, req, "grpc", td, len(body), func(r *Reply) { r.grpc(w) })
	case req.URL.Path != tracesPath:
		http.NotFound(w, req)
	default:
		td, protocol, err := decodeHTTP(body, contentType, req.Header.Get("Content-Encoding"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.take(w, req, protocol, td, len(body), func(r *Reply) { r.http(w, contentType) })
	}
}

func (s *Sink) take(w http.ResponseWriter, req *http.Request, protocol string, td ptrace.Traces, size int, answer func(*Reply)) {
	reply := s.next(Request{protocol, req.Header.Clone(), td.SpanCount(), size})
	if reply.accepts() {
		s.receive(td)
	}
	if !reply.misbehave(w, req) {
		answer(&reply)
	}
}

func decodeGRPC(body []byte, encoding string) (ptrace.Traces, error) {
	if len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
		return ptrace.Traces{}, errors.New("not one gRPC message")
	}
	message := body[5:]
	if body[0] == 1 {
		if encoding != "gzip" {
			return ptrace.Traces{}, fmt.Errorf("grpc-encoding %q: accepted is gzip", encoding)
		}
		var err error
		if message, err = decompress(message); err != nil {
			return ptrace.Traces{}, err
		}
	}
	return (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(message)
}

func decodeHTTP(body []byte, contentType, encoding string) (td ptrace.Traces, protocol string, err error) {
	switch encoding {
	case "", "identity":
	case "gzip":
		if body, err = decompress(body); err != nil {
			return td, "", err
		}
	default:
		return td, "", fmt.Errorf("content-encoding %q: accepted is gzip", encoding)
	}
	switch contentType {
	case contentTypeProtobuf:
		td, err = (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(body)
		return td, "http/protobuf", err
	case contentTypeJSON:
		td, err = (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(body)
		return td, "http/json", err
	}
	return td, "", fmt.Errorf("content type %q: accepted is %s or %s", contentType, contentTypeProtobuf, contentTypeJSON)
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
