//go:build e2e

package e2e

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"google.golang.org/grpc/codes"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

// testGRPC has a Job call a gRPC service, both with a sidecar: each call has one
// span of either kind, by the conventions for RPC.
func (c cluster) testGRPC(t *testing.T, j jaeger) {
	const calls = 200
	plan := traffic.Calls(calls)
	caller := c.runJob(t, "grpc.yaml", shop, "caller", map[string]any{"Calls": calls, "Port": traffic.GRPCPort})
	spans := j.wait(t, map[string]int{"quotes": calls, "caller": calls})
	service := serviceIP(t, shop, "quotes")
	for _, test := range []struct{ workload, kind, peer string }{
		{"quotes", "Server", caller.Status.PodIP}, {"caller", "Client", service},
	} {
		t.Run(test.workload+" "+test.kind, func(t *testing.T) {
			of := ofKind(spans[test.workload], test.kind)
			if len(of) != len(spans[test.workload]) {
				t.Errorf("%d spans, %d of them %s", len(spans[test.workload]), len(of), test.kind)
			}
			checkCalls(t, of, plan, test.kind == "Server")
			for _, s := range of {
				want := map[string]string{
					"rpc.system.name": "grpc", "server.address": "quotes", "server.port": strconv.Itoa(traffic.GRPCPort), "network.peer.address": test.peer,
					"network.protocol.name": "http", "network.protocol.version": "2", "network.transport": "tcp", "http.request.method": "", "url.path": "",
				}
				for name, want := range want {
					if got := s.attr(name); got != want {
						t.Fatalf("%s: %s is %q, want %q", s.Name(), name, got, want)
					}
				}
			}
		})
	}
}

// checkCalls compares method, code, status, first message and trace of the spans
// with the plan.
func checkCalls(t *testing.T, spans []span, plan []traffic.Call, server bool) {
	t.Helper()
	const isError = 1<<codes.Unknown | 1<<codes.DeadlineExceeded | 1<<codes.Unimplemented | 1<<codes.Internal | 1<<codes.Unavailable | 1<<codes.DataLoss
	want, got := map[string]int{}, map[string]int{}
	for _, c := range plan {
		name, method, original := c.Method, c.Method, ""
		if server && c.Method == traffic.GRPCMissing {
			name, method, original = "grpc", "_OTHER", c.Method
		}
		code, status, errorType, events := codeNames[c.Code], ptrace.StatusCodeUnset, "", c.Code == 0
		if c.Code != 0 && (!server || isError>>c.Code&1 != 0) {
			status, errorType = ptrace.StatusCodeError, code
		}
		want[fmt.Sprint(name, " ", method, " ", original, " ", code, " ", status, " ", errorType, " message ", events, " ", c.TraceID, c.ParentID)]++
	}
	for _, s := range spans {
		message := s.Events().Len() == 1 && s.Events().At(0).Name() == "spile.first_response_message"
		trace := ""
		if !s.ParentSpanID().IsEmpty() {
			trace = s.TraceID().String() + s.ParentSpanID().String()
		}
		got[fmt.Sprint(s.Name(), " ", s.attr("rpc.method"), " ", s.attr("rpc.method_original"), " ", s.attr("rpc.response.status_code"), " ",
			s.Status().Code(), " ", s.attr("error.type"), " message ", message, " ", trace)]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// codeNames are the status codes that the plan has, as the conventions write them.
var codeNames = map[int]string{0: "OK", 5: "NOT_FOUND", 12: "UNIMPLEMENTED", 13: "INTERNAL"}
