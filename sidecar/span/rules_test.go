package span

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// rule is a row of the tables in docs/attributes.md: an attribute's type, its
// requirement level by role ("–" where the role does not have it), and when it
// is absent.
type rule struct {
	typ            string
	server, client string
	absent         string
	seen           map[ptrace.SpanKind]bool
}

const (
	required = "required"
	none     = "–"
)

var levels = []string{required, "conditionally required", "recommended", "opt-in", none}

// rules are the tables by heading.
var rules = readRules()

var ruleRow = regexp.MustCompile("^\\| `([^`]+)` \\| (string|int|string\\[\\]) \\| ([^|]+) \\| ([^|]+) \\| [^|]+ \\| ([^|]+) \\|$")

func readRules() map[string]map[string]*rule {
	page, err := os.ReadFile("../../docs/attributes.md")
	if err != nil {
		panic(err)
	}
	tables := make(map[string]map[string]*rule)
	var heading string
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSuffix(line, "\n")
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
		}
		row := ruleRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		if tables[heading] == nil {
			tables[heading] = make(map[string]*rule)
		}
		tables[heading][row[1]] = &rule{row[2], row[3], row[4], row[5], make(map[ptrace.SpanKind]bool)}
	}
	return tables
}

func rulesOf(s ptrace.Span) map[string]*rule {
	if _, ok := s.Attributes().Get("rpc.system.name"); ok {
		return rules["gRPC"]
	}
	return rules["HTTP"]
}

func (r *rule) level(kind ptrace.SpanKind) string {
	if kind == ptrace.SpanKindClient {
		return r.client
	}
	return r.server
}

var typeNames = map[pcommon.ValueType]string{
	pcommon.ValueTypeStr: "string", pcommon.ValueTypeInt: "int", pcommon.ValueTypeSlice: "string[]",
}

// checkRules holds a span against the tables.
func checkRules(t testing.TB, s ptrace.Span) {
	t.Helper()
	attrs, table := s.Attributes(), rulesOf(s)
	for name, r := range table {
		if _, ok := attrs.Get(name); !ok && r.level(s.Kind()) == required && r.absent == "never" {
			t.Errorf("%s span lacks %s", s.Kind(), name)
		}
	}
	for name, v := range attrs.All() {
		for _, prefix := range []string{requestHeaderPrefix, responseHeaderPrefix, requestMetadataPrefix, responseMetadataPrefix} {
			if strings.HasPrefix(name, prefix) {
				name = prefix + "<key>"
			}
		}
		r, ok := table[name]
		if !ok || r.level(s.Kind()) == none {
			t.Errorf("%s span has %s, which the conventions do not give it", s.Kind(), name)
			continue
		}
		if got := typeNames[v.Type()]; got != r.typ {
			t.Errorf("%s is a %s, want a %s", name, got, r.typ)
		}
		if !utf8.ValidString(v.AsString()) {
			t.Errorf("%s is not UTF-8: %q", name, v.AsString())
		}
		r.seen[s.Kind()] = true
	}
	if s.EndTimestamp() < s.StartTimestamp() {
		t.Error("the span ends before it starts")
	}
	if _, ok := attrs.Get("rpc.system.name"); ok {
		checkRPCRules(t, s)
	} else {
		checkHTTPRules(t, s)
	}
}

// checkRuleTables checks, after the conformance cases, that the tables are well
// formed and that some span has each attribute that they list.
func checkRuleTables(t *testing.T) {
	for heading, least := range map[string]int{"HTTP": 25, "gRPC": 19} {
		if n := len(rules[heading]); n < least {
			t.Errorf("docs/attributes.md: %d attributes under %q, want %d", n, heading, least)
		}
		for name, r := range rules[heading] {
			for _, kind := range []ptrace.SpanKind{ptrace.SpanKindServer, ptrace.SpanKindClient} {
				if !slices.Contains(levels, r.level(kind)) {
					t.Errorf("docs/attributes.md: %s has the level %q", name, r.level(kind))
				}
				if r.level(kind) != none && !r.seen[kind] {
					t.Errorf("docs/attributes.md lists %s under %s, but no %s span of the conformance cases has it", name, heading, kind)
				}
			}
		}
	}
}

func checkRPCRules(t testing.TB, s ptrace.Span) {
	t.Helper()
	attrs := s.Attributes()
	want := "grpc"
	if method, ok := attrs.Get("rpc.method"); ok && method.Str() != "_OTHER" {
		want = method.Str()
	}
	if s.Name() != want {
		t.Errorf("name %q, want %q", s.Name(), want)
	}
	code, ok := attrs.Get("rpc.response.status_code")
	errorType, hasError := attrs.Get("error.type")
	if failed := s.Status().Code() == ptrace.StatusCodeError; failed != hasError {
		t.Errorf("status %s with error.type %v", s.Status().Code(), hasError)
	}
	if !ok {
		return
	}
	serverErrors := []string{"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
	failed := code.Str() != "OK"
	if s.Kind() == ptrace.SpanKindServer {
		failed = slices.Contains(serverErrors, code.Str())
	}
	if failed != hasError || hasError && errorType.Str() != code.Str() {
		t.Errorf("%s span with status code %s has error.type %q", s.Kind(), code.Str(), errorType.AsString())
	}
}

func checkHTTPRules(t testing.TB, s ptrace.Span) {
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
}
