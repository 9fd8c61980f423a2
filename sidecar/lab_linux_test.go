package sidecar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/internal/otlpsink"
	"github.com/spile-dev/spile/sidecar"
)

// asSidecar makes the test binary a sidecar: it gives its privileges up for good.
const asSidecar = "SPILE_TEST_AS_SIDECAR"

func TestMain(m *testing.M) {
	if os.Getenv(asSidecar) == "" {
		// As container runtimes set it. Linux before 5.11 charges BPF maps to it.
		unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited)
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := sidecar.ConfigFromEnv(os.Getenv, "test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	sidecar.Run(ctx, c, "test", time.Now(), c.NewLogger(os.Stderr))
}

// pods are two network namespaces joined by a veth pair.
type pods struct{ client, server *netns.NS }

const (
	clientIP, serverIP   = "10.244.0.1", "10.244.0.2"
	clientIP6, serverIP6 = "fd00::1", "fd00::2"
)

func newPods(t *testing.T) pods {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("REQUIRE_BPF") == "" {
		t.Skip("needs root, to make network namespaces")
	}
	var p pods
	for _, ns := range []**netns.NS{&p.client, &p.server} {
		var err error
		if *ns, err = netns.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*ns).Close() })
	}
	err := netns.Pair(p.client, p.server, netip.MustParsePrefix(clientIP+"/24"), netip.MustParsePrefix(serverIP+"/24"))
	err = errors.Join(err, p.client.AddAddr(netip.MustParsePrefix(clientIP6+"/64")), p.server.AddAddr(netip.MustParsePrefix(serverIP6+"/64")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// process is a sidecar at work.
type process struct {
	cmd  *exec.Cmd
	ctx  context.Context // ends with the process
	mu   sync.Mutex
	logs bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.Write(b)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.String()
}

// line returns the first log line with the given message, once there is one.
func (p *process) line(t *testing.T, msg string) map[string]any {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		for l := range strings.Lines(p.log()) {
			var fields map[string]any
			if json.Unmarshal([]byte(l), &fields) == nil && strings.HasPrefix(fields["msg"].(string), msg) {
				return fields
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no log line %q in:\n%s", msg, p.log())
	return nil
}

// start starts a sidecar in a namespace with the given capabilities alone.
func start(t *testing.T, ns *netns.NS, capabilities []uintptr, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), append(env, asSidecar+"=1", "OTEL_SERVICE_NAME=test")...)
	p.cmd.Stderr = p
	err := ns.Do(func() error {
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if !slices.Contains(capabilities, c) && unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) != nil {
				break // this kernel knows no more
			}
		}
		return p.cmd.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, ended := context.WithCancel(context.Background())
	p.ctx = ctx
	go func() { _ = p.cmd.Wait(); ended() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-ctx.Done() })
	return p
}

// stop ends the sidecar and returns its last account of spans.
func (p *process) stop(t *testing.T) map[string]any {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ctx.Done():
	case <-time.After(30 * time.Second):
		t.Fatalf("does not end; log:\n%s", p.log())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit status %d; log:\n%s", code, p.log())
	}
	accounts := p.line(t, "accounts")
	if spans := accounts["spans"].(map[string]any); spans["residual"] != 0.0 {
		t.Errorf("accounts do not balance: %v", accounts)
	}
	return accounts
}

// backend is an OTLP sink in a namespace, and a summary line of each span.
type backend struct {
	*otlpsink.Sink
	port  int
	mu    sync.Mutex
	spans []string
}

func newBackend(t *testing.T, ns *netns.NS) *backend {
	t.Helper()
	b := &backend{}
	b.Sink = otlpsink.New(b.receive)
	l := listen(t, ns, "[::]:0")
	b.port = l.Addr().(*net.TCPAddr).Port
	go func() { _ = b.Serve(l) }()
	t.Cleanup(func() { b.Close() })
	return b
}

func (b *backend) receive(traces ptrace.Traces) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, rs := range traces.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				a := s.Attributes().AsRaw()
				path := a["url.path"]
				if path == nil {
					path = a["url.full"]
				}
				b.spans = append(b.spans, fmt.Sprintf("%s %s %v %v parent=%s peer=%v", s.Kind(),
					a["http.request.method"], path, a["http.response.status_code"], s.ParentSpanID(), a["network.peer.address"]))
			}
		}
	}
}

func (b *backend) counts() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := make(map[string]int)
	for _, s := range b.spans {
		n[s]++
	}
	return n
}

// want waits until the backend has exactly these spans.
func (b *backend) want(t *testing.T, want map[string]int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) && !maps.Equal(want, b.counts()) {
		time.Sleep(20 * time.Millisecond)
	}
	if diff := cmp.Diff(want, b.counts()); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

func listen(t *testing.T, ns *netns.NS, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve answers /status/N with N, /bytes with 4 MB in chunks, with 20 MB if its query
// asks for a length, /fast with 20 MB as fast as they go, in chunks if its query asks
// for them, anything else with 200.
func serve(t *testing.T, ns *netns.NS) {
	t.Helper()
	big := make([]byte, 20_000_000)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, "hello")
	})
	mux.HandleFunc("/status/404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })
	mux.HandleFunc("/status/500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			_, _ = io.Copy(w, slowStart(big))
			return
		}
		// What frames chunks has to be captured, so these come no faster than the
		// sidecar reads them on a busy machine.
		for piece := range slices.Chunk(big[:4<<20], 128<<10) {
			_, _ = w.Write(piece)
			time.Sleep(10 * time.Millisecond)
		}
	})
	mux.HandleFunc("/fast", func(w http.ResponseWriter, r *http.Request) {
		size := len(big)
		if r.URL.Query().Has("chunks") {
			size = 64 << 10
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		for piece := range slices.Chunk(big, size) {
			_, _ = w.Write(piece)
		}
	})
	server := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	l := listen(t, ns, ":8080")
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
}

// slowStart reads from b with a pause after the first megabyte: a body that has
// passed before the sidecar is scheduled cannot be left out.
func slowStart(b []byte) io.Reader {
	pause := readerFunc(func([]byte) (int, error) {
		time.Sleep(200 * time.Millisecond)
		return 0, io.EOF
	})
	return io.MultiReader(bytes.NewReader(b[:1<<20]), pause, bytes.NewReader(b[1<<20:]))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// newH2Client returns a client that speaks HTTP/2 in cleartext.
func newH2Client(t *testing.T, ns *netns.NS) *http.Client {
	c := newClient(t, ns)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	c.Transport.(*http.Transport).Protocols = p
	return c
}

func newClient(t *testing.T, ns *netns.NS) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var conn net.Conn
		err := ns.Do(func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

const (
	traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	parent      = "b7ad6b7169203331"
)

// request makes a request with a body of the given length, -1 for chunks.
func request(t *testing.T, c *http.Client, method, url string, body io.Reader, length int64) {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = length
	r.Header.Set("Traceparent", traceparent)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
}
