//go:build e2e

package e2e

import (
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	corev1 "k8s.io/api/core/v1"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

// ofKind returns the spans of a kind, as ptrace names it.
func ofKind(spans []span, kind string) []span {
	return slices.DeleteFunc(slices.Clone(spans), func(s span) bool { return s.Kind().String() != kind })
}

// key identifies the request of a span as traffic.Request.Key does.
func (s span) key() string {
	path := s.attr("url.path")
	if full, err := url.Parse(s.attr("url.full")); err == nil && path == "" {
		path = full.Path
	}
	return traffic.Key(s.attr("http.request.method"), path, s.status())
}

func (s span) status() int {
	status, _ := strconv.Atoi(s.attr("http.response.status_code"))
	return status
}

// checkRequests compares method, path and status of all spans with the plan:
// each request has one span, and there are no others.
func checkRequests(t *testing.T, spans []span, plan []traffic.Request) {
	got := make([]string, len(spans))
	for i, s := range spans {
		got[i] = s.key()
	}
	slices.Sort(got)
	if len(got) != len(plan) {
		t.Errorf("%d spans, want %d", len(got), len(plan))
	}
	if diff := cmp.Diff(traffic.Keys(plan), got); diff != "" && len(plan) > 0 {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// checkStatus: 5xx is an error of the server, 4xx and 5xx are of the client.
func checkStatus(t *testing.T, spans []span) {
	for _, s := range spans {
		limit := 500
		if s.Kind() == ptrace.SpanKindClient {
			limit = 400
		}
		want, errorType := ptrace.StatusCodeUnset, ""
		if s.status() >= limit {
			want, errorType = ptrace.StatusCodeError, strconv.Itoa(s.status())
		}
		if s.Status().Code() != want || s.attr("error.type") != errorType {
			t.Fatalf("%s: status %s, error.type %q, want %s, %q", s.key(), s.Status().Code(), s.attr("error.type"), want, errorType)
		}
		if s.Name() != s.attr("http.request.method") {
			t.Fatalf("%s: span name %q", s.key(), s.Name())
		}
	}
}

func checkPeer(t *testing.T, spans []span, host, peer, peerPort string) {
	for _, s := range spans {
		want := map[string]string{"server.address": host, "server.port": "80", "network.peer.address": peer}
		if s.Kind() == ptrace.SpanKindServer {
			want["client.address"] = peer
		} else {
			want["network.peer.port"] = peerPort
		}
		for name, want := range want {
			if got := s.attr(name); got != want {
				t.Fatalf("%s: %s is %q, want %q", s.key(), name, got, want)
			}
		}
	}
}

// checkResource compares the resource with the pod as the cluster knows it.
func checkResource(t *testing.T, spans []span, workload string, pod corev1.Pod) {
	want := map[string]string{
		"service.name":       workload,
		"service.namespace":  pod.Namespace,
		"k8s.namespace.name": pod.Namespace,
		"k8s.pod.name":       pod.Name,
		"k8s.pod.uid":        string(pod.UID),
		"k8s.node.name":      pod.Spec.NodeName,
	}
	switch owner := pod.OwnerReferences[0]; owner.Kind {
	case "Job":
		want["k8s.job.name"] = workload
	case "ReplicaSet":
		want["k8s.deployment.name"], want["k8s.replicaset.name"] = workload, owner.Name
	}
	for _, s := range spans {
		for name, want := range want {
			if got := value(s.Resource, name); got != want {
				t.Fatalf("%s: %s is %q, want %q", s.key(), name, got, want)
			}
		}
	}
}

// checkTime: spans lie within the test and do not end before they start.
func checkTime(t *testing.T, spans []span, since time.Time) {
	for _, s := range spans {
		start, end := s.StartTimestamp().AsTime(), s.EndTimestamp().AsTime()
		if start.Before(since) || !end.After(start) || end.After(time.Now()) {
			t.Fatalf("%s: from %s to %s in a test that began at %s", s.key(), start, end, since)
		}
	}
}

// checkParents: a request with a traceparent continues that trace, every other
// begins one.
func checkParents(t *testing.T, spans []span, plan []traffic.Request) {
	planned := map[string]traffic.Request{}
	for _, r := range plan {
		planned[r.Key()] = r
	}
	traces := map[string]bool{}
	for _, s := range spans {
		r := planned[s.key()]
		id := s.TraceID().String()
		traces[id] = true
		if parent := s.ParentSpanID().String(); parent != r.ParentID || r.TraceID != "" && id != r.TraceID {
			t.Errorf("%s: trace %s, parent %q, want trace %s, parent %q", r.Key(), id, parent, r.TraceID, r.ParentID)
		}
	}
	if len(traces) != len(spans) {
		t.Errorf("%d traces for %d requests", len(traces), len(spans))
	}
}
