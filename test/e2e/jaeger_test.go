//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// jaeger asks the query API of the Jaeger in a namespace, through the API
// server's proxy to its Service.
type jaeger struct {
	namespace string
	since     time.Time
}

// span is a span as Jaeger returns it, with its resource.
type span struct {
	ptrace.Span
	Resource pcommon.Map
}

// attr returns an attribute of the span as a string, empty if there is none.
func (s span) attr(name string) string { return value(s.Attributes(), name) }

func value(m pcommon.Map, name string) string {
	if v, ok := m.Get(name); ok {
		return v.AsString()
	}
	return ""
}

func (j jaeger) get(path string, query url.Values, v any) error {
	raw := fmt.Sprintf("/api/v1/namespaces/%s/services/jaeger:16686/proxy/api/v3/%s?%s", j.namespace, path, query.Encode())
	out, err := command("", "kubectl", "get", "--raw", raw)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("decoding %s: %w", raw, err)
	}
	return nil
}

// services returns the names of the services with spans.
func (j jaeger) services() ([]string, error) {
	var body struct{ Services []string }
	err := j.get("services", nil, &body)
	return body.Services, err
}

// spans returns every span of a service.
func (j jaeger) spans(service string) ([]span, error) {
	const depth = 10_000 // traces; far more than there are
	var body struct{ Result json.RawMessage }
	err := j.get("traces", url.Values{
		"query.service_name":   {service},
		"query.start_time_min": {j.since.UTC().Format(time.RFC3339Nano)},
		"query.start_time_max": {time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)},
		"query.num_traces":     {strconv.Itoa(depth)}, // to Jaeger 2.13
		"query.search_depth":   {strconv.Itoa(depth)}, // later
		"query.raw_traces":     {"true"},
	}, &body)
	if err != nil {
		return nil, err
	}
	traces, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(body.Result)
	if err != nil {
		return nil, fmt.Errorf("decoding the traces of %s: %w", service, err)
	}
	return flatten(traces, service), nil
}

// flatten returns the spans of one service; a trace may hold others.
func flatten(traces ptrace.Traces, service string) (spans []span) {
	for _, rs := range traces.ResourceSpans().All() {
		if value(rs.Resource().Attributes(), "service.name") != service {
			continue
		}
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				spans = append(spans, span{Span: s, Resource: rs.Resource().Attributes()})
			}
		}
	}
	return spans
}

// wait asks until Jaeger has as many spans of each service as want says, for at
// most a minute, and then once more a little later, when whatever is too much
// has arrived as well.
func (j jaeger) wait(t *testing.T, want map[string]int) map[string][]span {
	t.Helper()
	const settle = 4 * time.Second // spans leave the sidecar within 1 s
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if _, missing := j.all(want); missing == "" {
			time.Sleep(settle)
			break
		}
	}
	all, missing := j.all(want)
	if missing != "" {
		t.Error(missing)
	}
	return all
}

// all returns the spans of the services, and what is missing of them.
func (j jaeger) all(want map[string]int) (all map[string][]span, missing string) {
	all = map[string][]span{}
	var faults []string
	for service, n := range want {
		spans, err := j.spans(service)
		if err != nil {
			faults = append(faults, err.Error())
		} else if len(spans) < n {
			faults = append(faults, fmt.Sprintf("%s has %d spans, want %d", service, len(spans), n))
		}
		all[service] = spans
	}
	return all, strings.Join(faults, "; ")
}
