package span

import (
	"encoding/binary"
	"math/bits"
)

// The OTLP encoding of a record: opentelemetry.proto.trace.v1.Span. It is
// written by hand because pdata allocates for every attribute (BenchmarkExchangeToOTLP
// has both); a test holds the two against each other.

// Bits of Span.flags beside the W3C trace flags.
const (
	flagHasIsRemote = 1 << 8
	flagIsRemote    = 1 << 9
)

// spanFlags returns Span.flags: every parent was learned from the wire.
func spanFlags(id *Identity) uint32 {
	flags := uint32(id.Flags) | flagHasIsRemote
	if id.ParentSpanID != [8]byte{} {
		flags |= flagIsRemote
	}
	return flags
}

const statusError = 2

// The wire types of protobuf, beside that of varints, which is 0.
const (
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// Tags: field number << 3 | wire type.
const (
	tagTraceID      = 1<<3 | wireBytes
	tagSpanID       = 2<<3 | wireBytes
	tagTraceState   = 3<<3 | wireBytes
	tagParentSpanID = 4<<3 | wireBytes
	tagName         = 5<<3 | wireBytes
	tagKind         = 6 << 3
	tagStart        = 7<<3 | wireFixed64
	tagEnd          = 8<<3 | wireFixed64
	tagAttribute    = 9<<3 | wireBytes
	tagLeft         = 10 << 3 // dropped_attributes_count
	tagEvent        = 11<<3 | wireBytes
	tagStatus       = 15<<3 | wireBytes
	tagFlags        = 16<<3 | wireFixed32

	tagEventTime = 1<<3 | wireFixed64
	tagEventName = 2<<3 | wireBytes

	tagStatusMessage = 2<<3 | wireBytes
	tagStatusCode    = 3 << 3

	tagKey         = 1<<3 | wireBytes
	tagValue       = 2<<3 | wireBytes
	tagStringValue = 1<<3 | wireBytes
	tagIntValue    = 3 << 3
	tagArrayValue  = 5<<3 | wireBytes
	tagArrayItem   = 1<<3 | wireBytes
)

func appendSpan(b []byte, r *record, id *Identity) []byte {
	b = append(b, tagTraceID, 16)
	b = append(b, id.TraceID[:]...)
	b = append(b, tagSpanID, 8)
	b = append(b, id.SpanID[:]...)
	if id.TraceState != "" {
		b = appendString(b, tagTraceState, id.TraceState)
	}
	if id.ParentSpanID != [8]byte{} {
		b = append(b, tagParentSpanID, 8)
		b = append(b, id.ParentSpanID[:]...)
	}
	b = appendString(b, tagName, r.name)
	b = append(b, tagKind, r.kind, tagStart)
	b = binary.LittleEndian.AppendUint64(b, r.start)
	b = append(b, tagEnd)
	b = binary.LittleEndian.AppendUint64(b, r.end)
	for i := range r.attrs {
		b = appendAttr(b, tagAttribute, &r.attrs[i])
	}
	if r.left != 0 {
		b = append(b, tagLeft)
		b = binary.AppendUvarint(b, uint64(r.left))
	}
	if r.firstMessage != 0 {
		b = append(b, tagEvent, byte(9+stringSize(eventFirstMessage)), tagEventTime)
		b = binary.LittleEndian.AppendUint64(b, r.firstMessage)
		b = appendString(b, tagEventName, eventFirstMessage)
	}
	if r.failed {
		size := 2
		if r.message != "" {
			size += stringSize(r.message)
		}
		b = append(b, tagStatus, byte(size)) // messages are short constants
		if r.message != "" {
			b = appendString(b, tagStatusMessage, r.message)
		}
		b = append(b, tagStatusCode, statusError)
	}
	b = binary.AppendUvarint(b, tagFlags)
	return binary.LittleEndian.AppendUint32(b, spanFlags(id))
}

// appendAttr appends a KeyValue message as the field tag.
func appendAttr(b []byte, tag byte, a *attr) []byte {
	var value int
	switch a.kind {
	case kindText:
		value = stringSize(a.text)
	case kindInt:
		value = 1 + varintSize(uint64(a.num))
	case kindList:
		value = lengthSize(listSize(a.list))
	}
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(stringSize(a.key)+lengthSize(value)))
	b = appendString(b, tagKey, a.key)
	b = append(b, tagValue)
	b = binary.AppendUvarint(b, uint64(value))
	switch a.kind {
	case kindText:
		b = appendString(b, tagStringValue, a.text)
	case kindInt:
		b = append(b, tagIntValue)
		b = binary.AppendUvarint(b, uint64(a.num))
	case kindList:
		b = append(b, tagArrayValue)
		b = binary.AppendUvarint(b, uint64(listSize(a.list)))
		for _, s := range a.list {
			b = append(b, tagArrayItem)
			b = binary.AppendUvarint(b, uint64(stringSize(s)))
			b = appendString(b, tagStringValue, s)
		}
	}
	return b
}

func appendString(b []byte, tag byte, s string) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// listSize is the size of an ArrayValue message.
func listSize(list []string) (n int) {
	for _, s := range list {
		n += lengthSize(stringSize(s))
	}
	return n
}

// stringSize is the size of a string field with a one-byte tag.
func stringSize(s string) int { return lengthSize(len(s)) }

// lengthSize is the size of a length-delimited field of n bytes with a
// one-byte tag.
func lengthSize(n int) int { return 1 + varintSize(uint64(n)) + n }

func varintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
