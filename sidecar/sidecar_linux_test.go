package sidecar_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var ebpfCapabilities = []uintptr{unix.CAP_BPF, unix.CAP_NET_RAW}

// TestTwoPods sends requests from one pod to another, each with a sidecar, by
// IPv4 and IPv6, over both protocols of OTLP, on both rungs. The server's sidecar
// exports within its pod, the client's to the other pod; neither may see its own.
func TestTwoPods(t *testing.T) {
	for _, test := range []struct {
		name, client, server, protocol, rung string
		capabilities                         []uintptr
	}{
		{"IPv4", clientIP, serverIP, "http/protobuf", "ebpf", ebpfCapabilities},
		{"IPv6", "[" + clientIP6 + "]", "[" + serverIP6 + "]", "grpc", "ebpf", ebpfCapabilities},
		{"classic", clientIP, serverIP, "http/protobuf", "classic", []uintptr{unix.CAP_NET_RAW}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPods(t)
			b := newBackend(t, p.server)
			serve(t, p.server)
			env := func(host string) []string {
				return []string{"OTEL_EXPORTER_OTLP_PROTOCOL=" + test.protocol, fmt.Sprintf("OTEL_EXPORTER_OTLP_ENDPOINT=http://%s:%d", host, b.port)}
			}
			// What other pods export to a backend in this pod is traffic like any other.
			server := start(t, p.server, test.capabilities, append(env("127.0.0.1"), "SPILE_EXCLUDE_PATHS=/v1/traces,/opentelemetry.proto.collector.trace.v1.TraceService/Export")...)
			client := start(t, p.client, test.capabilities, env(test.server)...)
			for _, s := range []*process{server, client} {
				if rung := s.line(t, "capturing")["rung"]; rung != test.rung {
					t.Fatalf("rung %v, want %s; log:\n%s", rung, test.rung, s.log())
				}
			}
			c := newClient(t, p.client)
			base := "http://" + test.server + ":8080"
			want := make(map[string]int)
			expect := func(method, path string, status int) {
				ip := strings.NewReplacer("[", "", "]", "")
				want[fmt.Sprintf("Server %s %s %d parent=%s peer=%s", method, path, status, parent, ip.Replace(test.client))]++
				want[fmt.Sprintf("Client %s %s%s %d parent=%s peer=%s", method, base, path, status, parent, ip.Replace(test.server))]++
			}
			for i := range 50 {
				request(t, c, "GET", fmt.Sprint(base, "/", i), nil, 0)
				expect("GET", fmt.Sprint("/", i), 200)
			}
			for _, status := range []int{404, 500} {
				request(t, c, "POST", fmt.Sprint(base, "/status/", status), bytes.NewReader(make([]byte, 100_000)), 100_000)
				expect("POST", fmt.Sprint("/status/", status), status)
			}
			b.want(t, want)
			for _, s := range []*process{server, client} {
				s.stop(t)
			}
			b.want(t, want)
		})
	}
}

// TestLoopback sends requests within a pod: each is one SERVER span.
func TestLoopback(t *testing.T) {
	p := newPods(t)
	b := newBackend(t, p.client)
	serve(t, p.server)
	s := start(t, p.server, ebpfCapabilities, fmt.Sprintf("OTEL_EXPORTER_OTLP_ENDPOINT=http://%s:%d", clientIP, b.port))
	s.line(t, "capturing")
	c := newClient(t, p.server)
	want := make(map[string]int)
	for _, host := range []string{"127.0.0.1", serverIP} {
		for range 20 {
			request(t, c, "GET", "http://"+host+":8080/", nil, 0)
			want[fmt.Sprintf("Server GET / 200 parent=%s peer=%s", parent, host)]++
		}
	}
	b.want(t, want)
	s.stop(t)
	b.want(t, want)
}

// watchServer returns a sidecar that watches a server, and a client in another pod.
func watchServer(t *testing.T) (*process, *http.Client) {
	p := newPods(t)
	serve(t, p.server)
	s := start(t, p.server, ebpfCapabilities, "OTEL_TRACES_EXPORTER=none")
	s.line(t, "capturing")
	return s, newClient(t, p.client)
}

// base is where serve listens.
const base = "http://" + serverIP + ":8080"

// TestBodies checks that the filter leaves out nearly all of large bodies.
func TestBodies(t *testing.T) {
	s, c := watchServer(t)
	big := make([]byte, 20_000_000)
	for range 3 {
		request(t, c, "GET", base+"/bytes?length", nil, 0)
		request(t, c, "GET", base+"/bytes", nil, 0)
		request(t, c, "POST", base+"/upload", slowStart(big), int64(len(big)))
	}
	accounts := s.stop(t)
	exchanges, packets := accounts["exchanges"].(map[string]any), accounts["packets"].(map[string]any)
	if exchanges["complete"] != 9.0 {
		t.Errorf("9 exchanges made, reported %v", exchanges)
	}
	if omitted, _ := packets["omitted_bytes"].(float64); omitted < 80_000_000 {
		t.Errorf("of 120 MB of bodies with a length %.0f MB were left out: %v", omitted/1e6, accounts)
	}
	t.Log(accounts)
}

// TestChunks checks that content in chunks is reported and, if it comes faster than it
// can be read, left out.
func TestChunks(t *testing.T) {
	s, c := watchServer(t)
	big := make([]byte, 20_000_000)
	const rounds = 10
	for range rounds {
		request(t, c, "GET", base+"/fast?chunks", nil, 0)
		request(t, c, "POST", base+"/upload", readerFunc(bytes.NewReader(big).Read), -1)
	}
	c.CloseIdleConnections()
	accounts := s.stop(t)
	exchanges, packets := accounts["exchanges"].(map[string]any), accounts["packets"].(map[string]any)
	if exchanges["complete"] != 2.0*rounds {
		t.Errorf("%d exchanges made, reported %v", 2*rounds, exchanges)
	}
	gaps, _ := exchanges["gaps"].(float64)
	if omitted, _ := packets["omitted_bytes"].(float64); gaps >= rounds && omitted < rounds*10_000_000 {
		t.Errorf("of %d MB in chunks %.0f MB were left out: %v", 2*rounds*20, omitted/1e6, accounts)
	}
	t.Log(accounts)
}

// TestFrames checks that bodies over HTTP/2 are reported and nearly all of them left
// out, as fast as they come: the first of a connection, and several at once. On a
// busy machine the sidecar may have its turn too late, so that one round of some
// has to show it.
func TestFrames(t *testing.T) {
	p := newPods(t)
	serve(t, p.server)
	const rounds = 5
	for i := range rounds {
		made, accounts := framesRound(t, p)
		exchanges, packets := accounts["exchanges"].(map[string]any), accounts["packets"].(map[string]any)
		omitted, _ := packets["omitted_bytes"].(float64)
		t.Logf("%d exchanges made: %v; %v", made, exchanges, packets)
		complete, _ := exchanges["complete"].(float64)
		if seen, _ := exchanges["seen"].(float64); seen > float64(made) || complete > seen || accounts["spans"].(map[string]any)["residual"] != 0.0 {
			t.Errorf("%d exchanges made: %v", made, accounts)
		}
		if complete == float64(made) && omitted > float64(made)*20_000_000*0.95 {
			return
		}
		if i == rounds-1 {
			t.Errorf("in none of %d rounds all exchanges were reported and their bodies left out", rounds)
		}
	}
}

func framesRound(t *testing.T, p pods) (made int, accounts map[string]any) {
	s := start(t, p.server, ebpfCapabilities, "OTEL_TRACES_EXPORTER=none")
	s.line(t, "capturing")
	big := make([]byte, 20_000_000)
	one, two := newClient(t, p.client), newH2Client(t, p.client)
	down := func() { request(t, two, "GET", base+"/fast", nil, 0) }
	up := func() { request(t, two, "POST", base+"/upload", bytes.NewReader(big), int64(len(big))) }
	for range 3 {
		down()
		up()
		request(t, one, "GET", base+"/bytes?length", nil, 0)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(down)
		wg.Go(up)
	}
	wg.Wait()
	one.CloseIdleConnections()
	two.CloseIdleConnections()
	return 15, s.stop(t)
}

// TestPrivileges checks that a sidecar that captures has no capability left.
func TestPrivileges(t *testing.T) {
	p := newPods(t)
	s := start(t, p.server, ebpfCapabilities, "OTEL_TRACES_EXPORTER=none")
	s.line(t, "capturing")
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", s.cmd.Process.Pid, task.Name()))
		if err != nil {
			continue // a thread that has ended
		}
		for _, want := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			if !strings.Contains(string(status), want+":\t0000000000000000\n") {
				t.Errorf("thread %s has capabilities:\n%s", task.Name(), status)
			}
		}
		if !strings.Contains(string(status), "NoNewPrivs:\t1\n") {
			t.Errorf("thread %s can gain privileges", task.Name())
		}
	}
}

// TestIdle checks that a sidecar that cannot capture says so in one line, stays,
// and ends well.
func TestIdle(t *testing.T) {
	p := newPods(t)
	for _, test := range []struct {
		name, env, want string
	}{
		{"no capabilities", "X=", "CAP_NET_RAW is missing"},
		{"host network", "SPILE_POD_IP=10.0.0.1", "host's network"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, p.server, nil, "OTEL_TRACES_EXPORTER=none", test.env, "SPILE_HOST_IP=10.0.0.1")
			l := s.line(t, "not capturing")
			if why := fmt.Sprint(l["error"]); l["rung"] != "off" || !strings.Contains(why, test.want) {
				t.Errorf("says %v, want %q", l, test.want)
			}
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
			<-s.ctx.Done()
			if code := s.cmd.ProcessState.ExitCode(); code != 0 || strings.Count(s.log(), "\n") != 1 {
				t.Errorf("exit status %d, log:\n%s", code, s.log())
			}
		})
	}
}
