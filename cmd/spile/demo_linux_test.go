package main

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/internal/otlpsink"
)

func nobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// TestDemo runs demos, each as a process of its own, with the real sidecar.
func TestDemo(t *testing.T) {
	needRoot(t)
	sidecar := filepath.Join(t.TempDir(), "spile-sidecar")
	build := exec.Command("go", "build", "-o", sidecar, "../spile-sidecar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the sidecar: %v: %s", err, out)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", append([]string{"demo", "--sidecar", sidecar}, args...)...)
		cmd.Env = append(os.Environ(), runMain+"=1")
		return cmd
	}
	t.Run("whole traces", func(t *testing.T) { testWholeTraces(t, command("--duration", "4s")) })
	t.Run("too short", func(t *testing.T) { testTooShort(t, command("--duration", "1ns")) })
	for _, c := range []struct{ part, want string }{
		{"spile-sidecar", "spile demo: the sidecar of "},
		{"demo-pod\x00cart", "spile demo: cart ended by itself (signal: killed)"},
	} {
		part, _, _ := strings.Cut(c.part, "\x00")
		t.Run(part+" dies", func(t *testing.T) { testPartDies(t, command(), c.part, c.want) })
	}
	for signal, status := range map[syscall.Signal]int{syscall.SIGINT: 0, syscall.SIGTERM: 0, syscall.SIGKILL: -1} {
		t.Run(signal.String(), func(t *testing.T) { testSignal(t, command(), signal, status) })
	}
}

// testWholeTraces checks that what the shopper sent is what was seen, here and
// at the backend that the environment names, and that it fits the terminal.
func testWholeTraces(t *testing.T, cmd *exec.Cmd) {
	var forwarded atomic.Int64
	backend := httptest.NewServer(otlpsink.New(func(td ptrace.Traces) { forwarded.Add(int64(td.SpanCount())) }))
	defer backend.Close()
	cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_ENDPOINT="+backend.URL)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	account := regexp.MustCompile(`(\d+) requests by the shopper, (\d+) answered as due. (\d+) traces, (\d+) of them whole, of (\d+) spans.`)
	m := account.FindSubmatch(stdout)
	if m == nil {
		t.Fatalf("no account in the output:\n%s", stdout)
	}
	for _, n := range m[2:5] {
		if !bytes.Equal(n, m[1]) || string(n) == "0" {
			t.Errorf("want all requests answered and all traces whole: %s", m[0])
		}
	}
	if spans, _ := strconv.ParseInt(string(m[5]), 10, 64); spans != forwarded.Load() {
		t.Errorf("%d of %d spans arrived at the backend", forwarded.Load(), spans)
	}
	for line := range strings.Lines(string(stdout)) {
		if n := utf8.RuneCountInString(line) - 1; n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// testTooShort checks what is said if no whole trace was seen.
func testTooShort(t *testing.T, cmd *exec.Cmd) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if strings.Contains(string(stdout), "SERVER") {
		t.Skip("a request was faster than the end")
	}
	if want := "spile demo: no whole trace was seen: the shopper sent no request within 1ns\n"; err == nil || stderr.String() != want {
		t.Errorf("error %v, standard error %q", err, stderr.String())
	}
}

// testPartDies checks that a part that dies is named, and that the others and
// the demo end then.
func testPartDies(t *testing.T, cmd *exec.Cmd, part, want string) {
	children := startDemo(t, cmd)
	var victim int
	for pid, line := range children {
		if strings.Contains(line, part) {
			victim = pid
		}
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("exit status %d (%v), want 1", got, err)
	}
	if got := cmd.Stderr.(*bytes.Buffer).String(); !strings.HasPrefix(got, want) {
		t.Errorf("standard error %q, want %q", got, want)
	}
	awaitEnd(t, children)
}

// testSignal checks that nothing of the demo outlives it, however it ends.
func testSignal(t *testing.T, cmd *exec.Cmd, signal syscall.Signal, status int) {
	children := startDemo(t, cmd)
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("exit status %d (%v: %s), want %d", got, err, cmd.Stderr, status)
	}
	awaitEnd(t, children)
}

func TestDemoNeedsRoot(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "demo", "--sidecar", "/bin/true")
	cmd.Env = append(os.Environ(), runMain+"=1")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = nobody()
	}
	out, err := cmd.CombinedOutput()
	if want := "spile demo: network namespaces and packet capture need root: sudo spile demo\n"; err == nil || string(out) != want {
		t.Errorf("error %v, output %q", err, out)
	}
}

// startDemo starts a demo, waits until it shows rows, and returns the command
// lines of its processes.
func startDemo(t *testing.T, cmd *exec.Cmd) map[int]string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	shown := make(signalWriter, 1)
	cmd.Stdout = shown
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	select {
	case <-shown:
	case <-time.After(30 * time.Second):
		t.Fatalf("the demo shows nothing: %s", stderr.String())
	}
	children := childrenOf(t, cmd.Process.Pid)
	if len(children) != 9 {
		t.Errorf("%d processes, want 4 sidecars, 4 services and a shopper", len(children))
	}
	return children
}

// signalWriter is signalled when the demo shows its first row.
type signalWriter chan struct{}

func (w signalWriter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("SERVER")) {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	return len(b), nil
}

func childrenOf(t *testing.T, pid int) map[int]string {
	t.Helper()
	children := map[int]string{}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that ended
		}
		for _, f := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
			children[child] = string(line)
		}
	}
	return children
}

// awaitEnd waits until none of the processes is left.
func awaitEnd(t *testing.T, children map[int]string) {
	t.Helper()
	for range 3000 {
		left := 0
		for pid, line := range children {
			if now, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && string(now) == line {
				left++
			}
		}
		if left == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("processes of the demo are left")
}
