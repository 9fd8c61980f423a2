package export

import (
	"errors"
	"iter"
	"math"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/spile-dev/spile/sidecar/span"
)

// Field numbers of ExportTraceServiceRequest, which is TracesData on the wire,
// and the messages within.
const (
	fieldResourceSpans = 1
	fieldResource      = 1
	fieldScopeSpans    = 2
	fieldScope         = 1
	fieldSpan          = 2
	fieldSchemaURL     = 3
	fieldScopeName     = 1
	fieldScopeVersion  = 2
)

// envelope wraps encoded spans into requests. Spans of a container other than
// the resource's own get a ResourceSpans of their own, because
// k8s.container.name is an attribute of the resource.
type envelope struct {
	resource pcommon.Resource
	encoded  map[string][]byte // the resource by container, encoded
	scope    []byte
}

func newEnvelope(res pcommon.Resource, version string) *envelope {
	scope := protowire.AppendTag(nil, fieldScopeName, protowire.BytesType)
	scope = protowire.AppendString(scope, span.ScopeName)
	scope = protowire.AppendTag(scope, fieldScopeVersion, protowire.BytesType)
	scope = protowire.AppendString(scope, version)
	return &envelope{res, make(map[string][]byte), scope}
}

func (e *envelope) resourceOf(container string) []byte {
	if b, ok := e.encoded[container]; ok {
		return b
	}
	res := pcommon.NewResource()
	e.resource.CopyTo(res)
	if container != "" {
		res.Attributes().PutStr(span.ContainerKey, container)
	}
	b := span.AppendResource(nil, res)
	e.encoded[container] = b
	return b
}

// appendResourceSpans appends the spans of one container, each already a field
// of ScopeSpans.
func (e *envelope) appendResourceSpans(b []byte, container string, spans []byte) []byte {
	b = e.appendHeader(b, container, len(spans))
	b = append(b, spans...)
	return appendSchema(b)
}

// wrap makes a request of the spans of one container, which begin at an index of
// b, within b. It returns the part of b that is the request.
func (e *envelope) wrap(b []byte, at int, container string) []byte {
	header := e.appendHeader(nil, container, len(b)-at)
	start := at - len(header)
	copy(b[start:], header)
	return appendSchema(b)[start:]
}

// headerRoom is the most that appendHeader appends.
func (e *envelope) headerRoom(container string) int {
	return len(e.resourceOf(container)) + len(e.scope) + 4*(1+protowire.SizeVarint(math.MaxUint32))
}

// appendHeader appends what comes before spans of so many bytes.
func (e *envelope) appendHeader(b []byte, container string, spans int) []byte {
	res := e.resourceOf(container)
	schema := bytesSize(len(span.SchemaURL))
	scopeSpans := bytesSize(len(e.scope)) + spans + schema
	b = protowire.AppendTag(b, fieldResourceSpans, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(bytesSize(len(res))+bytesSize(scopeSpans)+schema))
	b = appendBytes(b, fieldResource, res)
	b = protowire.AppendTag(b, fieldScopeSpans, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(scopeSpans))
	return appendBytes(b, fieldScope, e.scope)
}

// appendSchema ends the ScopeSpans and the ResourceSpans.
func appendSchema(b []byte) []byte {
	for range 2 {
		b = protowire.AppendTag(b, fieldSchemaURL, protowire.BytesType)
		b = protowire.AppendString(b, span.SchemaURL)
	}
	return b
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, v)
}

// bytesSize is the size of a length-delimited field of n bytes with a field
// number below 16.
func bytesSize(n int) int { return 1 + protowire.SizeBytes(n) }

// field is a field of a message: its bytes, or its number if it is a varint.
type field struct {
	number protowire.Number
	bytes  []byte
	varint uint64
}

// malformed is the number of the field that stands for a rest which cannot be
// read.
const malformed = 0

// fields yields the fields of a message.
func fields(b []byte) iter.Seq[field] {
	return func(yield func(field) bool) {
		for len(b) > 0 {
			f, n := consumeField(b)
			if n < 0 {
				yield(field{number: malformed})
				return
			}
			if !yield(f) {
				return
			}
			b = b[n:]
		}
	}
}

// consumeField reads the first field of a message; n is its length, negative
// if it is malformed.
func consumeField(b []byte) (f field, n int) {
	number, typ, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return f, tag
	}
	f.number = number
	switch typ {
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b[tag:])
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(b[tag:])
	default:
		n = protowire.ConsumeFieldValue(number, typ, b[tag:])
	}
	if n < 0 {
		return f, n
	}
	return f, tag + n
}

var errMalformed = errors.New("malformed protobuf message")

// partialSuccess reads an ExportTraceServiceResponse, or that of another signal:
// how many items the backend rejected, and its message.
func partialSuccess(response []byte) (rejected int64, message string, err error) {
	for f := range fields(response) {
		if f.number == malformed {
			return rejected, message, errMalformed
		}
		if f.number != 1 { // partial_success
			continue
		}
		for f := range fields(f.bytes) {
			switch f.number {
			case malformed:
				return rejected, message, errMalformed
			case 1: // rejected_spans
				rejected = int64(f.varint)
			case 2: // error_message
				message = brief(f.bytes)
			}
		}
	}
	return rejected, message, nil
}

// brief makes what a backend said fit for a log line.
func brief(b []byte) string {
	const limit = 256
	s := b[:min(len(b), limit)]
	out := make([]rune, 0, len(s))
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		s = s[n:]
		if r < ' ' {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}
