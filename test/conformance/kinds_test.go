//go:build conformance && linux

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// TestKinds has WebSocket by both versions, reported as the exchange that opened
// it, and gRPC-Web and Connect, reported as HTTP; gRPC by HTTP/2 alone is RPC.
func TestKinds(t *testing.T) {
	need(t, "node")
	l := newLab(t)
	script := absolute(t, "testdata/kinds.js")
	_, stop := l.serve(t, server{name: "node", stop: syscall.SIGTERM, command: func(*testing.T, *lab) []string {
		return []string{"node", script, "serve", "0.0.0.0", fmt.Sprint(port)}
	}})
	var got []string
	b := span.NewBuilder(span.Default())
	kinds := map[span.Instrument]string{span.HTTPServer: "HTTP span", span.RPCServer: "RPC span"}
	live := l.tap(t, l.server, "eth0", func(x *exchange.Exchange) {
		b.Describe(x)
		m, _, _ := b.Measurement()
		got = append(got, fmt.Sprintf("%s %s %s -> %d %s, %s", x.Protocol, x.Request.Method, x.Request.Target, x.Response.Status, x.Outcome, kinds[m.Instrument]))
	})
	l.run(t, l.client, client{args: []string{"node", script, "ask", serverIP, fmt.Sprint(port)}})
	t.Log(live())
	stop()
	want := strings.Split(strings.TrimSpace(`
HTTP/1.1 GET /chat -> 101 complete, HTTP span
HTTP/1.1 GET /closed -> 403 complete, HTTP span
HTTP/1.1 POST /pkg.S/M?application/connect+proto -> 200 complete, HTTP span
HTTP/1.1 POST /pkg.S/M?application/grpc -> 200 complete, HTTP span
HTTP/1.1 POST /pkg.S/M?application/grpc-web+proto -> 200 complete, HTTP span
HTTP/1.1 POST /pkg.S/M?application/grpc-web-text -> 200 complete, HTTP span
HTTP/1.1 POST /pkg.S/M?application/proto -> 200 complete, HTTP span
HTTP/2 CONNECT /chat -> 200 complete, HTTP span
HTTP/2 CONNECT /closed -> 403 complete, HTTP span
HTTP/2 POST /pkg.S/M?application/connect+proto -> 200 complete, HTTP span
HTTP/2 POST /pkg.S/M?application/grpc-web+proto -> 200 complete, HTTP span
HTTP/2 POST /pkg.S/M?application/grpc-web-text -> 200 complete, HTTP span
HTTP/2 POST /pkg.S/M?application/proto -> 200 complete, HTTP span
gRPC POST /pkg.S/M?application/grpc -> 200 complete, RPC span`), "\n")
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
