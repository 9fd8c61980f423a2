package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// httpClient speaks OTLP/HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
type httpClient struct {
	cfg       OTLP
	transport *http.Transport
	userAgent string
	gzip      compressor
}

func (c *httpClient) close() { c.transport.CloseIdleConnections() }

func (c *httpClient) send(ctx context.Context, request []byte) response {
	contentType := "application/x-protobuf"
	if c.cfg.Protocol == ProtocolHTTPJSON {
		var err error
		if request, err = c.cfg.signal.toJSON(request); err != nil {
			return response{result: refused, err: fmt.Errorf("encoding as JSON: %w", err)}
		}
		contentType = "application/json"
	}
	if c.cfg.Compression == CompressionGzip {
		request = c.gzip.compress(request)
	}
	var open atomic.Int32
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.Endpoint.String(), newPayload(request, &open))
	if err != nil {
		return response{result: refused, err: err}
	}
	req.ContentLength = int64(len(request))
	req.GetBody = func() (io.ReadCloser, error) { return newPayload(request, &open), nil }
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", c.userAgent)
	if c.cfg.Compression == CompressionGzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	c.cfg.authorize(req)
	// RoundTrip, not Client.Do: a redirect is not to be followed with spans.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		c.transport.CloseIdleConnections()
		return retry(c.cfg.explain(err))
	}
	body, err := readAnswer(resp.Body)
	if resp.StatusCode/100 == 2 {
		r := c.accepted(resp, body, err)
		r.released = open.Load() == 0
		return r
	}
	return refusal(resp, body)
}

// payload is the body of a request. A transport may read on after it has returned
// an answer, until it closes the body.
type payload struct {
	bytes.Reader
	open *atomic.Int32 // payloads that are not closed
	once sync.Once
}

func newPayload(b []byte, open *atomic.Int32) *payload {
	p := &payload{open: open}
	p.Reset(b)
	open.Add(1)
	return p
}

func (p *payload) Close() error {
	p.once.Do(func() { p.open.Add(-1) })
	return nil
}

// accepted reads the answer to a request that the backend took. What it took is
// not sent again, whatever is wrong with the answer.
func (c *httpClient) accepted(resp *http.Response, body []byte, err error) (r response) {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case err != nil:
		r.message = "reading the answer: " + err.Error()
	case mediaType == "application/json":
		r.rejected, r.message = partialSuccessJSON(body)
	case mediaType == "application/x-protobuf" || mediaType == "application/protobuf":
		if r.rejected, r.message, err = partialSuccess(body); err != nil {
			r.message = "reading the answer: " + err.Error()
		}
	case len(body) > 0:
		r.message = fmt.Sprintf("answered with %q, as no OTLP receiver does", brief([]byte(mediaType)))
	}
	return r
}

// partialSuccessJSON is partialSuccess of a JSON answer; 64-bit numbers are
// strings in it, but receivers also send numbers.
func partialSuccessJSON(body []byte) (rejected int64, message string) {
	var answer struct {
		PartialSuccess struct {
			RejectedSpans      json.RawMessage `json:"rejectedSpans"`
			RejectedDataPoints json.RawMessage `json:"rejectedDataPoints"`
			ErrorMessage       string          `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, "reading the answer: " + err.Error()
	}
	number := answer.PartialSuccess.RejectedSpans
	if number == nil {
		number = answer.PartialSuccess.RejectedDataPoints
	}
	rejected, _ = strconv.ParseInt(string(bytes.Trim(number, `"`)), 10, 64)
	return rejected, brief([]byte(answer.PartialSuccess.ErrorMessage))
}

// refusal tells whether to try again (OTLP, "Retryable Response Codes").
func refusal(resp *http.Response, body []byte) response {
	r := response{result: refused, err: errors.New(resp.Status), unsupported: unsupported(resp.StatusCode)}
	if message := statusMessage(resp, body); message != "" {
		r.err = fmt.Errorf("%s: %s", resp.Status, message)
	}
	if location := resp.Header.Get("Location"); resp.StatusCode/100 == 3 {
		r.err = fmt.Errorf("%s to %s: redirects are not followed", resp.Status, brief([]byte(location)))
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		r.result = retryable
		r.retryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return r
}

// statusMessage returns what the answer says of the refusal: the message of a
// google.rpc.Status, or a line of text.
func statusMessage(resp *http.Response, body []byte) (message string) {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch mediaType {
	case "application/x-protobuf", "application/protobuf":
		for f := range fields(body) {
			if f.number == 2 {
				message = brief(f.bytes)
			}
		}
	case "application/json":
		var status struct{ Message string }
		if json.Unmarshal(body, &status) == nil {
			message = brief([]byte(status.Message))
		}
	case "text/plain":
		message = brief(bytes.TrimSpace(body))
	}
	return message
}

// retryAfter parses Retry-After: seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
