package export

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// grpcClient speaks OTLP/gRPC: one unary call a batch, over net/http's HTTP/2
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). Why not
// grpc-go: docs/decisions/otlp-transport.md.
type grpcClient struct {
	cfg       OTLP
	transport *http.Transport
	userAgent string
	gzip      compressor
}

func (c *grpcClient) close() { c.transport.CloseIdleConnections() }

func (c *grpcClient) send(ctx context.Context, request []byte) response {
	compressed := byte(0)
	if c.cfg.Compression == CompressionGzip {
		request, compressed = c.gzip.compress(request), 1
	}
	message := make([]byte, 5, 5+len(request))
	message[0] = compressed
	binary.BigEndian.PutUint32(message[1:], uint32(len(request)))
	message = append(message, request...)

	u := url.URL{Scheme: c.cfg.Endpoint.Scheme, Host: c.cfg.Endpoint.Host, Path: c.cfg.signal.grpcMethod}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(message))
	if err != nil {
		return response{result: refused, err: err}
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("User-Agent", c.userAgent)
	if compressed == 1 {
		req.Header.Set("Grpc-Encoding", "gzip")
	}
	if deadline, ok := ctx.Deadline(); ok {
		req.Header.Set("Grpc-Timeout", strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10)+"m")
	}
	c.cfg.authorize(req)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		c.transport.CloseIdleConnections()
		return retry(c.cfg.explain(err))
	}
	body, err := readAnswer(resp.Body)
	r := grpcResponse(resp, body, err)
	r.released = true // message is a copy
	return r
}

func grpcResponse(resp *http.Response, body []byte, readErr error) response {
	if resp.StatusCode != http.StatusOK {
		return refusal(resp, body)
	}
	if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/grpc") {
		return response{result: refused, err: fmt.Errorf("answered with %q, as no gRPC server does", brief([]byte(ct)))}
	}
	status := resp.Trailer
	if resp.Header.Get("Grpc-Status") != "" { // an answer of headers only
		status = resp.Header
	}
	code, err := strconv.Atoi(status.Get("Grpc-Status"))
	switch {
	case err != nil && errors.Is(readErr, errTooLong): // it would be again
		return response{result: refused, err: readErr}
	case err != nil && readErr != nil:
		return retry(readErr)
	case err != nil:
		return retry(errors.New("the answer ended without a gRPC status"))
	case code != 0:
		return grpcFailure(code, status)
	}
	r := response{}
	if readErr == nil {
		body, readErr = grpcMessage(body, resp.Header.Get("Grpc-Encoding"))
	}
	if readErr == nil {
		r.rejected, r.message, readErr = partialSuccess(body)
	}
	if readErr != nil {
		r.message = "reading the answer: " + readErr.Error()
	}
	return r
}

// grpcMessage returns the message in a body. grpc-go's servers compress it as
// the request was, whatever grpc-accept-encoding says.
func grpcMessage(body []byte, encoding string) ([]byte, error) {
	if len(body) < 5 || uint64(len(body)-5) != uint64(binary.BigEndian.Uint32(body[1:])) {
		return nil, errors.New("not one gRPC message")
	}
	message := body[5:]
	if body[0] == 0 {
		return message, nil
	}
	if encoding != CompressionGzip {
		return nil, fmt.Errorf("compressed with %q", brief([]byte(encoding)))
	}
	return decompress(message, maxResponseBytes)
}

// codeNames are the gRPC status codes by number.
var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
	"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// grpcFailure tells whether to try again (OTLP, "OTLP/gRPC Response"):
// RESOURCE_EXHAUSTED only where the server says when.
func grpcFailure(code int, status http.Header) response {
	name := strconv.Itoa(code)
	if code > 0 && code < len(codeNames) {
		name = codeNames[code]
	}
	r := response{result: refused, err: errors.New(name)}
	if m, err := url.PathUnescape(status.Get("Grpc-Message")); err == nil && m != "" {
		r.err = fmt.Errorf("%s: %s", name, brief([]byte(m)))
	}
	delay, told := retryInfo(status.Get("Grpc-Status-Details-Bin"))
	switch name {
	case "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS":
		r.result, r.retryAfter = retryable, delay
	case "UNIMPLEMENTED":
		r.unsupported = true
	case "RESOURCE_EXHAUSTED":
		if told {
			r.result, r.retryAfter = retryable, delay
		}
	}
	return r
}

// retryInfo reads the google.rpc.RetryInfo in the details of a
// google.rpc.Status, as its trailer has it.
func retryInfo(trailer string) (delay time.Duration, ok bool) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(trailer, "="))
	if err != nil {
		return 0, false
	}
	for detail := range fields(b) {
		if detail.number != 3 { // details
			continue
		}
		var typeURL string
		var info []byte
		for f := range fields(detail.bytes) {
			switch f.number {
			case 1:
				typeURL = string(f.bytes)
			case 2:
				info = f.bytes
			}
		}
		if !strings.HasSuffix(typeURL, "/google.rpc.RetryInfo") {
			continue
		}
		ok = true
		for f := range fields(info) {
			if f.number == 1 { // retry_delay
				delay = protoDuration(f.bytes)
			}
		}
	}
	return delay, ok
}

// protoDuration reads a google.protobuf.Duration; one below zero or beyond a
// day counts as a day at most, and zero at least.
func protoDuration(b []byte) time.Duration {
	var seconds, nanos int64
	for f := range fields(b) {
		switch f.number {
		case 1:
			seconds = int64(f.varint)
		case 2:
			nanos = int64(f.varint)
		}
	}
	const day = 24 * 60 * 60
	seconds, nanos = min(max(seconds, 0), day), min(max(nanos, 0), 999_999_999)
	return time.Duration(seconds)*time.Second + time.Duration(nanos)
}
