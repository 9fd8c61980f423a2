package span

import (
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

func putSpan(dst ptrace.Span, r *record, id *Identity) {
	dst.SetTraceID(id.TraceID)
	dst.SetSpanID(id.SpanID)
	dst.SetParentSpanID(id.ParentSpanID)
	dst.TraceState().FromRaw(id.TraceState)
	dst.SetFlags(spanFlags(id))
	dst.SetName(r.name)
	dst.SetKind(ptrace.SpanKind(r.kind))
	dst.SetStartTimestamp(pcommon.Timestamp(r.start))
	dst.SetEndTimestamp(pcommon.Timestamp(r.end))
	dst.SetDroppedAttributesCount(r.left)
	if r.firstMessage != 0 {
		event := dst.Events().AppendEmpty()
		event.SetName(eventFirstMessage)
		event.SetTimestamp(pcommon.Timestamp(r.firstMessage))
	}
	if r.failed {
		dst.Status().SetCode(ptrace.StatusCodeError)
		dst.Status().SetMessage(r.message)
	}
	attrs := dst.Attributes()
	attrs.EnsureCapacity(len(r.attrs))
	for i := range r.attrs {
		switch a := &r.attrs[i]; a.kind {
		case kindText:
			attrs.PutStr(a.key, a.text)
		case kindInt:
			attrs.PutInt(a.key, a.num)
		case kindList:
			list := attrs.PutEmptySlice(a.key)
			list.EnsureCapacity(len(a.list))
			for _, s := range a.list {
				list.AppendEmpty().SetStr(strings.Clone(s))
			}
		}
	}
}
