package span

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// rule is what the conventions say of an attribute (semantic conventions 1.43,
// HTTP spans): its type, its requirement level by role ("" where the role does
// not have it).
type rule struct {
	typ            pcommon.ValueType
	server, client string
}

const (
	required    = "required"
	conditional = "conditionally required"
	recommended = "recommended"
	opt         = "opt-in"
)

var rules = map[string]rule{
	"http.request.method":          {pcommon.ValueTypeStr, required, required},
	"url.path":                     {pcommon.ValueTypeStr, required, ""},
	"url.scheme":                   {pcommon.ValueTypeStr, required, opt},
	"url.full":                     {pcommon.ValueTypeStr, "", required},
	"server.address":               {pcommon.ValueTypeStr, recommended, required},
	"server.port":                  {pcommon.ValueTypeInt, conditional, required},
	"error.type":                   {pcommon.ValueTypeStr, conditional, conditional},
	"http.request.method_original": {pcommon.ValueTypeStr, conditional, conditional},
	"http.response.status_code":    {pcommon.ValueTypeInt, conditional, conditional},
	"http.route":                   {pcommon.ValueTypeStr, conditional, ""},
	"url.query":                    {pcommon.ValueTypeStr, conditional, ""},
	"client.address":               {pcommon.ValueTypeStr, recommended, ""},
	"network.peer.address":         {pcommon.ValueTypeStr, recommended, recommended},
	"network.peer.port":            {pcommon.ValueTypeInt, recommended, recommended},
	"network.protocol.version":     {pcommon.ValueTypeStr, recommended, recommended},
	"user_agent.original":          {pcommon.ValueTypeStr, recommended, opt},
	"client.port":                  {pcommon.ValueTypeInt, opt, ""},
	"http.request.body.size":       {pcommon.ValueTypeInt, opt, opt},
	"http.response.body.size":      {pcommon.ValueTypeInt, opt, opt},
	"network.local.address":        {pcommon.ValueTypeStr, opt, ""},
	"network.local.port":           {pcommon.ValueTypeInt, opt, ""},
	"network.transport":            {pcommon.ValueTypeStr, opt, opt},
	"spile.outcome":                {pcommon.ValueTypeStr, conditional, conditional},
}

// checkRules holds a span against the rules.
func checkRules(t testing.TB, s ptrace.Span) {
	t.Helper()
	attrs := s.Attributes()
	level := func(r rule) string { return r.server }
	if s.Kind() == ptrace.SpanKindClient {
		level = func(r rule) string { return r.client }
	}
	for name, r := range rules {
		if _, ok := attrs.Get(name); !ok && level(r) == required && name != "server.address" && name != "server.port" {
			t.Errorf("%s span lacks %s", s.Kind(), name)
		}
	}
	for name, v := range attrs.All() {
		r, ok := rules[name]
		if strings.HasPrefix(name, "http.request.header.") || strings.HasPrefix(name, "http.response.header.") {
			r, ok = rule{pcommon.ValueTypeSlice, opt, opt}, true
		}
		if !ok || level(r) == "" {
			t.Errorf("%s span has %s, which the conventions do not give it", s.Kind(), name)
		} else if v.Type() != r.typ {
			t.Errorf("%s is a %s, want a %s", name, v.Type(), r.typ)
		}
		if !utf8.ValidString(v.AsString()) {
			t.Errorf("%s is not UTF-8: %q", name, v.AsString())
		}
	}
	checkStatusRules(t, s)
}

func checkStatusRules(t testing.TB, s ptrace.Span) {
	t.Helper()
	attrs := s.Attributes()
	status, hasStatus := attrs.Get("http.response.status_code")
	errorType, hasError := attrs.Get("error.type")
	if failed := s.Status().Code() == ptrace.StatusCodeError; failed != hasError {
		t.Errorf("status %s with error.type %v", s.Status().Code(), hasError)
	}
	low := int64(500)
	if s.Kind() == ptrace.SpanKindClient {
		low = 400
	}
	if hasStatus && status.Int() >= low && (!hasError || errorType.Str() != strconv.FormatInt(status.Int(), 10)) {
		t.Errorf("error.type %q of status %d", errorType.AsString(), status.Int())
	}
	method, _ := attrs.Get("http.request.method")
	want := method.Str()
	if want == "_OTHER" {
		want = "HTTP"
	}
	if route, ok := attrs.Get("http.route"); ok {
		want += " " + route.Str()
	}
	if s.Name() != want {
		t.Errorf("name %q, want %q", s.Name(), want)
	}
	if s.EndTimestamp() < s.StartTimestamp() {
		t.Error("the span ends before it starts")
	}
}
