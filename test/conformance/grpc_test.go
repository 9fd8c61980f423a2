//go:build conformance && linux

package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// grpcPeers are programs that serve gRPC, and make calls; of each what it is
// started with before its role.
var grpcPeers = []struct {
	name     string
	programs []string
	command  func(t *testing.T) []string
}{
	{"go", nil, func(*testing.T) []string { return []string{"/proc/self/exe", asGRPC} }},
	{"js", []string{"node"}, func(t *testing.T) []string {
		folder := absolute(t, "testdata/grpc-js")
		if _, err := os.Stat(folder + "/node_modules"); err != nil {
			skip(t, "grpc-js is missing: npm ci --prefix test/conformance/testdata/grpc-js")
		}
		return []string{"node", folder + "/peer.js"}
	}},
	{"python", []string{"/usr/bin/python3"}, func(t *testing.T) []string {
		return []string{"/usr/bin/python3", absolute(t, "testdata/grpc_peer.py")}
	}},
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// grpcCalls are calls of all kinds, repeated.
func grpcCalls(times int) []grpcCall {
	var all []grpcCall
	add := func(c ...grpcCall) { all = append(all, c...) }
	for i := range times {
		for code := range 17 {
			add(grpcCall{Method: "Unary", Meta: map[string]string{"x-code": fmt.Sprint(code)}, Size: 100})
		}
		add(
			grpcCall{Method: "Unary", Size: 10, GZIP: true, Meta: map[string]string{"x-tenant": fmt.Sprint(i)}},
			grpcCall{Method: "Unary", Meta: map[string]string{"x-size": "0"}},
			grpcCall{Method: "Early", Meta: map[string]string{"x-early": "1", "x-code": "7"}, Size: 10},
			grpcCall{Method: "Upload", Messages: 5, Size: 1000},
			grpcCall{Method: "Upload", Messages: 2, Size: 5000, GZIP: true, Meta: map[string]string{"x-code": "9"}},
			grpcCall{Method: "Download", Meta: map[string]string{"x-count": "20", "x-size": "3000"}},
			grpcCall{Method: "Download", Meta: map[string]string{"x-count": "2", "x-code": "13"}},
			grpcCall{Method: "Bidi", Messages: 4, Size: 200},
			grpcCall{Method: "Bidi", Messages: 1, Size: 200, Meta: map[string]string{"x-code": "10"}},
			// Node ends its request before it resets the stream, so the server must take its time.
			grpcCall{Method: "Cancel", Messages: 1, Size: 20, Meta: map[string]string{"x-sleep": "10000"}},
			grpcCall{Method: "Missing", Size: 5},
		)
		if i%8 == 0 {
			add(grpcCall{Method: "Unary", Size: 300000, Meta: map[string]string{"x-size": "500000"}})
		}
		// First of all, and the clients wait then: among the others much of the time could
		// be over before the call is sent.
		all = slices.Insert(all, 0, grpcCall{Method: "Deadline", Timeout: 6000, Size: 5, Meta: map[string]string{"x-sleep": "15000"}})
	}
	return all
}

// TestGRPC has each peer call each: what the client says of every call is what both
// ends' taps report, and so is what the server's log says of those that it answered.
func TestGRPC(t *testing.T) {
	for _, server := range grpcPeers {
		for _, client := range grpcPeers {
			t.Run(client.name+" calls "+server.name, func(t *testing.T) {
				t.Parallel()
				need(t, server.programs...)
				need(t, client.programs...)
				l := newLab(t)
				_, stop := l.serve(t, grpcServer(server.command(t)))
				answered := make(map[string]int)
				for _, streams := range []int{1, 100, 1000} {
					for k, n := range l.compareGRPC(t, client.command(t), streams) {
						answered[k] += n
					}
				}
				logged := grpcLines(stop(), "LOG")
				for _, seen := range []map[string]int{answered, logged} {
					maps.DeleteFunc(seen, func(k string, _ int) bool { // what their client ends, or no handler sees
						return strings.HasPrefix(k, "Cancel ") || strings.HasPrefix(k, "Deadline ") || strings.HasPrefix(k, "Missing ")
					})
				}
				if diff := cmp.Diff(logged, answered); diff != "" {
					t.Errorf("the server's log (-log +reported):\n%s", diff)
				}
			})
		}
	}
}

func grpcServer(command []string) server {
	return server{name: command[0], stop: syscall.SIGKILL, command: func(*testing.T, *lab) []string {
		return append(command, "serve", fmt.Sprintf("0.0.0.0:%d", port))
	}}
}

// grpcLines returns how often each method ended with each code, from lines such as
// "CALL /spile.Test/Unary 0".
func grpcLines(text, word string) map[string]int {
	n := make(map[string]int)
	for _, m := range regexp.MustCompile(`(?m)^`+word+` /spile.Test/(\S+) (\d+)$`).FindAllStringSubmatch(text, -1) {
		n[m[1]+" "+m[2]]++
	}
	return n
}

var grpcNames = strings.Fields("OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED " +
	"RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED")

// grpcReported counts what is reported of calls as grpcLines does.
func grpcReported(into map[string]int) func(*exchange.Exchange) {
	b := span.NewBuilder(span.Default())
	return func(x *exchange.Exchange) {
		b.Describe(x)
		m, _, _ := b.Measurement()
		code := fmt.Sprintf("without a status: %s, %d, %v", x.Outcome, x.Response.Status, x.Reset)
		for i, name := range grpcNames {
			if m.StatusCode == name {
				code = fmt.Sprint(i)
			}
		}
		if x.Protocol != exchange.GRPC || x.Request.Method != "POST" {
			code = x.Protocol.String()
		}
		into[strings.TrimPrefix(x.Request.Target, "/spile.Test/")+" "+code]++
	}
}

// compareGRPC has a client make calls, so many at once, and returns what is
// reported of them at the server.
func (l *lab) compareGRPC(t *testing.T, command []string, streams int) map[string]int {
	t.Helper()
	calls := grpcCalls(1 + streams/20)
	b, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	taps := make(map[string]func() string)
	got := make(map[string]map[string]int)
	for end, ns := range map[string]*netns.NS{"server": l.server, "client": l.client} {
		got[end] = make(map[string]int)
		taps[end] = l.tap(t, ns, "eth0", grpcReported(got[end]))
	}
	var out strings.Builder
	cmd := l.start(t, l.client, &out, append(command, "call", fmt.Sprintf("%s:%d", serverIP, port), l.writeFile(t, "calls.json", string(b)), fmt.Sprint(streams))...)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%q: %v\n%.2000s", command, err, out.String())
	}
	made := grpcLines(out.String(), "CALL")
	// Node says CANCELLED where a server in Go, which resets the stream at the deadline, was first.
	if k := made["Deadline 1"]; k > 0 {
		delete(made, "Deadline 1")
		made["Deadline 4"] += k
	}
	n := 0
	for _, k := range made {
		n += k
	}
	t.Logf("%d calls, %d streams at once", n, streams)
	if n != len(calls) {
		t.Errorf("%d calls made, want %d\n%.2000s", n, len(calls), out.String())
	}
	for end, stop := range taps {
		t.Logf("%s: %s", end, stop())
		if diff := cmp.Diff(made, got[end]); diff != "" {
			t.Errorf("%d streams, tapped at the %s (-calls +reported):\n%s", streams, end, diff)
		}
	}
	return got["server"]
}
