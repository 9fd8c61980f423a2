// Package row shows HTTP exchanges one by one: as JSON lines, as OTLP JSON
// lines, or as a table for people.
package row

import (
	"fmt"
	"io"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/spile-dev/spile/cmd/spile/tty"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// Formats that New accepts.
var Formats = []string{"table", "json", "otlp"}

// Options say how rows look.
type Options struct {
	Headers bool // json and table: header fields too
	Secrets bool // with Headers: values that carry secrets too
	Date    bool // table: the date too
	Palette tty.Palette
	// Spans gives exchanges their ids and, for otlp, makes their spans.
	Spans    *span.Builder
	Resource pcommon.Resource // otlp
	Version  string           // otlp: of this program
}

// Writer writes exchanges, each as soon as it comes.
type Writer interface {
	Write(x *exchange.Exchange) error
}

// New returns the Writer of a format, which must be one of Formats.
func New(format string, w io.Writer, o Options) (Writer, error) {
	switch format {
	case "table":
		return newTable(w, o), nil
	case "json":
		return &jsonWriter{w: w, options: o}, nil
	case "otlp":
		return &otlpWriter{w: w, options: o}, nil
	}
	return nil, fmt.Errorf("unknown output %q (want %s)", format, strings.Join(Formats, ", "))
}

// redacted stands for the value of a field that carries a secret.
const redacted = "REDACTED"

// secretFields carry credentials by their definition, or by custom.
var secretFields = map[string]bool{
	"cookie": true, "set-cookie": true,
	"authentication-info": true, "proxy-authentication-info": true,
	"x-amzn-oidc-data": true, "x-hub-signature-256": true,
}

// secretSuffixes end the names of other fields that do, such as X-Api-Key.
var secretSuffixes = []string{
	"authorization", "api-key", "apikey", "access-key", "auth-key", "secret-key", "subscription-key", "functions-key", "token", "secret",
	"password", "passwd", "credential", "credentials", "signature", "jwt", "assertion", "session", "session-id", "auth",
}

// isSecret tells of a field name in lower case whether its values are kept back.
func isSecret(name string) bool {
	if secretFields[name] {
		return true
	}
	name = strings.ReplaceAll(name, "_", "-")
	for _, suffix := range secretSuffixes {
		if strings.HasSuffix(name, suffix) && name != "access-control-allow-credentials" {
			return true
		}
	}
	return false
}

// value is what is shown of a field's value.
func (o *Options) value(name, value string) string {
	if !o.Secrets && isSecret(name) {
		return redacted
	}
	return value
}
