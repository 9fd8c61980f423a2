package row

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spile-dev/spile/cmd/spile/tty"
	"github.com/spile-dev/spile/sidecar/exchange"
)

// timeFormat is RFC 3339 with all nine digits of the nanoseconds.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// object is the JSON object of an exchange. A value that is not known is left
// out. Strings of the wire that are not UTF-8 have U+FFFD for what is not.
type object struct {
	Time             string              `json:"time"`
	Role             string              `json:"role"`
	Protocol         string              `json:"protocol,omitempty"`
	Client           string              `json:"client,omitempty"`
	Server           string              `json:"server,omitempty"`
	Method           string              `json:"method,omitempty"`
	Host             string              `json:"host,omitempty"`
	Target           string              `json:"target,omitempty"`
	Status           int                 `json:"status"`
	GRPCStatus       *int                `json:"grpc_status,omitempty"`
	Outcome          string              `json:"outcome"`
	LatencyNS        *int64              `json:"latency_ns,omitempty"`
	TTFBNS           *int64              `json:"ttfb_ns,omitempty"`
	RequestBodySize  *int64              `json:"request_body_size,omitempty"`
	ResponseBodySize *int64              `json:"response_body_size,omitempty"`
	RequestHeaders   map[string][]string `json:"request_headers,omitempty"`
	ResponseHeaders  map[string][]string `json:"response_headers,omitempty"`
	TraceID          string              `json:"trace_id,omitempty"`
	SpanID           string              `json:"span_id,omitempty"`
	ParentSpanID     string              `json:"parent_span_id,omitempty"`
}

// jsonWriter writes an object per line.
type jsonWriter struct {
	w       io.Writer
	options Options
	line    bytes.Buffer
}

func (j *jsonWriter) Write(x *exchange.Exchange) error {
	j.line.Reset()
	e := json.NewEncoder(&j.line)
	e.SetEscapeHTML(false)
	if err := e.Encode(j.object(x)); err != nil {
		return err
	}
	_, err := j.w.Write(tty.EscapeJSON(j.line.Bytes()))
	return err
}

func (j *jsonWriter) object(x *exchange.Exchange) *object {
	o := &object{
		Time:            time.Unix(0, x.Start).UTC().Format(timeFormat),
		Role:            x.Role.String(),
		Protocol:        x.Protocol.String(),
		Client:          addrPort(x.Peers.Client),
		Server:          addrPort(x.Peers.Server),
		Method:          x.Request.Method,
		Host:            x.Request.Host,
		Target:          x.Request.Target,
		Status:          x.Response.Status,
		Outcome:         x.Outcome.String(),
		RequestBodySize: known(&x.Request.BodySize),
	}
	if x.FirstByte != 0 {
		latency, ttfb := x.Latency(), x.FirstByte-x.Start
		o.LatencyNS, o.TTFBNS = &latency, &ttfb
		o.ResponseBodySize = known(&x.Response.BodySize)
	}
	if code, ok := x.GRPCStatus(); ok && x.Protocol == exchange.GRPC {
		o.GRPCStatus = &code
	}
	if j.options.Headers {
		o.RequestHeaders = j.headers(x.Request.Fields)
		o.ResponseHeaders = j.headers(x.Response.Fields)
	}
	if j.options.Spans != nil {
		id := j.options.identity(x)
		o.TraceID, o.SpanID, o.ParentSpanID = hexID(id.TraceID[:]), hexID(id.SpanID[:]), hexID(id.ParentSpanID[:])
	}
	return o
}

func known(size *int64) *int64 {
	if *size == exchange.UnknownSize {
		return nil
	}
	return size
}

// headers has the values of each field by its name in lower case, in the order
// of the wire.
func (j *jsonWriter) headers(fields exchange.Fields) map[string][]string {
	m := make(map[string][]string, len(fields))
	for _, f := range fields {
		name := strings.ToLower(f.Name)
		m[name] = append(m[name], j.options.value(name, f.Value))
	}
	return m
}

func addrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// hexID writes an id, the empty string if it is all zeros.
func hexID(id []byte) string {
	for _, b := range id {
		if b != 0 {
			return hex.EncodeToString(id)
		}
	}
	return ""
}
