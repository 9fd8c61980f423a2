package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spile-dev/spile/internal/netns"
)

// needRoot skips a test that needs root.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_BPF") != "" {
		t.Fatal("REQUIRE_BPF is set, and this is not root")
	}
	t.Skip("needs root to capture packets and make network namespaces")
}

// server answers with 418; it and requests to it are of one namespace.
func server(t *testing.T, ns *netns.NS) (addr string, request func()) {
	t.Helper()
	var l net.Listener
	listen := func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}
	in := func(fn func() error) {
		t.Helper()
		do := func(fn func() error) error { return fn() }
		if ns != nil {
			do = ns.Do
		}
		if err := do(fn); err != nil {
			t.Fatal(err)
		}
	}
	in(listen)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String(), func() {
		t.Helper()
		in(func() error {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err = io.WriteString(c, "GET /pot HTTP/1.0\r\nHost: kitchen\r\n\r\n"); err != nil {
				return err
			}
			_, err = io.ReadAll(c)
			return err
		})
	}
}

// TestTap taps a server through the loopback interface, in this and in another
// namespace.
func TestTap(t *testing.T) {
	needRoot(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(func() error { return netns.SetUp("lo") }); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "60")
	if err := ns.Do(sleep.Start); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	pid := strconv.Itoa(sleep.Process.Pid)
	for _, c := range []struct {
		name string
		ns   *netns.NS
		args []string
	}{
		{"here", nil, []string{"--interface", "lo"}},
		{"pid", ns, []string{"--pid", pid}},
		{"netns", ns, []string{"--netns", "/proc/" + pid + "/ns/net"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, request := server(t, c.ns)
			_, port, _ := net.SplitHostPort(addr)
			tap := startTap(t, append(c.args, "-o", "json", "--port", port)...)
			request()
			row := tap.row()
			for key, want := range map[string]any{
				"role": "server", "protocol": "HTTP/1.0", "server": addr, "method": "GET", "host": "kitchen",
				"target": "/pot", "status": 418.0, "outcome": "complete", "response_body_size": 15.0,
			} {
				if row[key] != want {
					t.Errorf("%s is %v, want %v", key, row[key], want)
				}
			}
			// Each exchange is reported once, though loopback packets are seen twice.
			request()
			if again := tap.row(); again["client"] == row["client"] {
				t.Errorf("the first exchange is reported again: %v", again)
			}
			if status, stderr := tap.stop(); status != 0 || !strings.Contains(stderr, "\nrequests: ") {
				t.Errorf("exit status %d, standard error %s", status, stderr)
			}
		})
	}
}

// TestTapDuration checks that a tap ends by itself.
func TestTapDuration(t *testing.T) {
	needRoot(t)
	status, stdout, stderr := spile(t, "tap", "--interface", "lo", "--port", "1", "--duration", "50ms")
	if status != 0 || stdout != "" || !strings.HasPrefix(stderr, "tapping lo of this network namespace\npackets: ") {
		t.Errorf("exit status %d, output %q, standard error %q", status, stdout, stderr)
	}
}

func TestTapUnknownInterface(t *testing.T) {
	needRoot(t)
	status, _, stderr := spile(t, "tap", "--interface", "eth77")
	if status != 1 || !strings.Contains(stderr, `no network interface "eth77"; there are `) {
		t.Errorf("exit status %d, standard error %q", status, stderr)
	}
}

// TestTapWithoutCapability checks what a user without privileges is told.
func TestTapWithoutCapability(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "tap")
	cmd.Env = append(os.Environ(), runMain+"=1")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = nobody()
	}
	out, err := cmd.CombinedOutput()
	if line := string(out); err == nil || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "spile tap: ") ||
		!strings.Contains(line, "CAP_NET_RAW") || !strings.Contains(line, "setcap") {
		t.Errorf("error %v, output %s, want one line that names CAP_NET_RAW and how to get it", err, out)
	}
}

// runningTap is a tap that runs beside the test.
type runningTap struct {
	t      *testing.T
	rows   *bufio.Scanner
	cancel context.CancelFunc
	status chan int
	stderr strings.Builder
	read   chan struct{} // closed when all of stderr was read
}

func startTap(t *testing.T, args ...string) *runningTap {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	errs, stderr := io.Pipe()
	r := &runningTap{t: t, rows: bufio.NewScanner(out), cancel: cancel, status: make(chan int, 1), read: make(chan struct{})}
	go func() {
		status := run(ctx, append([]string{"tap"}, args...), func(string) string { return "" }, strings.NewReader(""), stdout, stderr)
		stdout.Close()
		stderr.Close()
		r.status <- status
	}()
	ready := bufio.NewReader(errs)
	for {
		line, err := ready.ReadString('\n')
		if err != nil {
			t.Fatalf("the tap did not start: %s", r.stderr.String())
		}
		r.stderr.WriteString(line)
		if strings.HasPrefix(line, "tapping ") {
			break
		}
	}
	go func() {
		_, _ = io.Copy(&r.stderr, ready)
		close(r.read)
	}()
	return r
}

// row waits for the next row.
func (r *runningTap) row() map[string]any {
	r.t.Helper()
	stuck := time.AfterFunc(30*time.Second, r.cancel)
	defer stuck.Stop()
	if !r.rows.Scan() {
		r.t.Fatal("no row came")
	}
	row := map[string]any{}
	if err := json.Unmarshal(r.rows.Bytes(), &row); err != nil {
		r.t.Fatalf("%v: %s", err, r.rows.Text())
	}
	return row
}

func (r *runningTap) stop() (status int, stderr string) {
	r.cancel()
	status = <-r.status
	<-r.read
	return status, r.stderr.String()
}
