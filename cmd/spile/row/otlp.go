package row

import (
	"io"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/cmd/spile/tty"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// otlpWriter writes each exchange as a TracesData message in OTLP's JSON
// encoding, one per line (the file exporter's format of the OpenTelemetry
// specification).
type otlpWriter struct {
	w         io.Writer
	options   Options
	marshaler ptrace.JSONMarshaler
}

func (o *otlpWriter) Write(x *exchange.Exchange) error {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	o.options.Resource.CopyTo(rs.Resource())
	rs.SetSchemaUrl(span.SchemaURL)
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName(span.ScopeName)
	ss.Scope().SetVersion(o.options.Version)
	ss.SetSchemaUrl(span.SchemaURL)
	o.options.Spans.Put(x, o.options.identity(x), ss.Spans().AppendEmpty())
	line, err := o.marshaler.MarshalTraces(td)
	if err != nil {
		return err
	}
	_, err = o.w.Write(append(tty.EscapeJSON(line), '\n'))
	return err
}
