package otlpsink

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace"
)

func TestBadRequests(t *testing.T) {
	s, err := Start("127.0.0.1:0", func(ptrace.Traces) { t.Error("traces were handed over") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	tests := []struct {
		name, method, path, contentType, encoding, body string
		status                                          int
	}{
		{"method", "GET", "/v1/traces", contentTypeProtobuf, "", "", 405},
		{"path", "POST", "/", contentTypeProtobuf, "", "", 404},
		{"type", "POST", "/v1/traces", "text/plain", "", "x", 400},
		{"encoding", "POST", "/v1/traces", contentTypeProtobuf, "br", "x", 400},
		{"protobuf", "POST", "/v1/traces", contentTypeProtobuf, "", "\xff", 400},
		{"JSON", "POST", "/v1/traces", contentTypeJSON, "", "{", 400},
		{"gzip", "POST", "/v1/traces", contentTypeProtobuf, "gzip", "x", 400},
		{"gRPC message", "POST", grpcMethod, contentTypeGRPC, "", "x", 200}, // the gRPC status tells
		{"gRPC encoding", "POST", grpcMethod, contentTypeGRPC, "", "\x01\x00\x00\x00\x00", 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, s.Endpoint()+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tt.contentType)
			if tt.encoding != "" {
				req.Header.Set("Content-Encoding", tt.encoding)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil { // trailers come after it
				t.Error(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if tt.contentType == contentTypeGRPC && resp.Trailer.Get("Grpc-Status") != "3" {
				t.Errorf("gRPC status %q, want 3", resp.Trailer.Get("Grpc-Status"))
			}
		})
	}
}
