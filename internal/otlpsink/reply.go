package otlpsink

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Reply is an answer; the zero one accepts.
type Reply struct {
	Status     int           // HTTP status, 0 for 200; gRPC too if Code is 0
	Code       int           // gRPC status code, over gRPC
	RetryAfter time.Duration // Retry-After, or google.rpc.RetryInfo; at least 1 s over HTTP
	Rejected   int64         // partial success
	Message    string        // of a partial success, or of the failure

	Hang  bool // answer nothing until the client gives up
	Reset bool // end the connection (HTTP/1) or stream (HTTP/2) without an answer
	Take  bool // hand the spans over although the answer says or is otherwise

	ContentType string // in place of the request's
	Body        []byte // in place of the response message
}

// Unavailable is the answer of a backend that is starting or overloaded.
func Unavailable() Reply { return Reply{Status: http.StatusServiceUnavailable, Code: 14} }

func (r *Reply) accepts() bool {
	return r.Take || r.Code == 0 && r.Status/100 <= 2 && !r.Hang && !r.Reset
}

// misbehave plays the answers that are none; it reports whether it did.
func (r *Reply) misbehave(w http.ResponseWriter, req *http.Request) bool {
	switch {
	case r.Hang:
		<-req.Context().Done()
		panic(http.ErrAbortHandler)
	case r.Reset:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // then it is closed in order, which will do
			}
			conn.Close()
			return true
		}
		panic(http.ErrAbortHandler)
	}
	return false
}

func (r *Reply) http(w http.ResponseWriter, contentType string) {
	body := r.Body
	status := max(r.Status, http.StatusOK)
	if body == nil {
		body = r.message(contentType, status)
	}
	if r.ContentType != "" {
		contentType = r.ContentType
	}
	w.Header().Set("Content-Type", contentType)
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(max(int(r.RetryAfter/time.Second), 1)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

// message returns an ExportTraceServiceResponse, or a google.rpc.Status.
func (r *Reply) message(contentType string, status int) []byte {
	if contentType == contentTypeJSON {
		var v any = map[string]any{"partialSuccess": map[string]string{
			"rejectedSpans": strconv.FormatInt(r.Rejected, 10), "errorMessage": r.Message,
		}}
		if status != http.StatusOK {
			v = map[string]any{"code": r.Code, "message": r.Message}
		}
		b, _ := json.Marshal(v) // of maps of strings and numbers
		return b
	}
	if status != http.StatusOK {
		return r.rpcStatus()
	}
	return r.response()
}

func (r *Reply) response() []byte {
	if r.Rejected == 0 && r.Message == "" {
		return nil
	}
	p := protowire.AppendTag(nil, 1, protowire.VarintType)
	p = protowire.AppendVarint(p, uint64(r.Rejected))
	p = protowire.AppendTag(p, 2, protowire.BytesType)
	p = protowire.AppendString(p, r.Message)
	return appendMessage(nil, 1, p)
}

func (r *Reply) rpcStatus() []byte {
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(r.Code))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendString(b, r.Message)
	if r.RetryAfter > 0 {
		d := protowire.AppendTag(nil, 1, protowire.VarintType)
		d = protowire.AppendVarint(d, uint64(r.RetryAfter/time.Second))
		d = protowire.AppendTag(d, 2, protowire.VarintType)
		d = protowire.AppendVarint(d, uint64(r.RetryAfter%time.Second))
		detail := protowire.AppendTag(nil, 1, protowire.BytesType)
		detail = protowire.AppendString(detail, "type.googleapis.com/google.rpc.RetryInfo")
		detail = appendMessage(detail, 2, appendMessage(nil, 1, d))
		b = appendMessage(b, 3, detail)
	}
	return b
}

func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, message)
}

func (r *Reply) grpc(w http.ResponseWriter) {
	if r.Status != 0 && r.Code == 0 {
		w.WriteHeader(r.Status)
		_, _ = w.Write(r.Body)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	if r.ContentType != "" {
		h.Set("Content-Type", r.ContentType)
	}
	if r.Code == 0 {
		message := r.Body
		if message == nil {
			message = r.response()
		}
		frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
		_, _ = w.Write(append(frame, message...))
	}
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(r.Code))
	if r.Code != 0 {
		h.Set(http.TrailerPrefix+"Grpc-Message", url.PathEscape(r.Message))
		h.Set(http.TrailerPrefix+"Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(r.rpcStatus()))
	}
}
