package span

// record is a span before it is encoded: plain data, reused from span to span.
type record struct {
	name         string
	kind         uint8
	start, end   uint64 // ns since the Unix epoch
	failed       bool   // status Error
	message      string // status description
	firstMessage uint64 // when the first response message came, 0 if none did; ns since the Unix epoch
	attrs        []attr
	left         uint32   // attributes that were one too many
	values       []string // backs the lists of attrs

	measure  Measurement
	measured bool
}

// attr is an attribute; which of its values counts is told by kind.
type attr struct {
	key  string
	kind attrKind
	text string
	num  int64
	list []string
}

type attrKind uint8

const (
	kindText attrKind = iota
	kindInt
	kindList
)

// Span kinds as opentelemetry.proto.trace.v1.Span.SpanKind numbers them.
const (
	spanKindServer = 2
	spanKindClient = 3
)

func (r *record) reset() {
	*r = record{attrs: r.attrs[:0], values: r.values[:0]}
}

func (r *record) text(key, value string) {
	r.attrs = append(r.attrs, attr{key: key, kind: kindText, text: value})
}

func (r *record) int(key string, value int64) {
	r.attrs = append(r.attrs, attr{key: key, kind: kindInt, num: value})
}

// list adds an attribute of several strings: those of values from index from.
func (r *record) list(key string, from int) {
	r.attrs = append(r.attrs, attr{key: key, kind: kindList, list: r.values[from:len(r.values):len(r.values)]})
}

// fail makes the status Error, for a reason of low cardinality.
func (r *record) fail(errorType, message string) {
	r.failed, r.message, r.measure.ErrorType = true, message, errorType
	r.text(keyErrorType, errorType)
}
