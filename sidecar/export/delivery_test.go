package export

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var delivery = flag.Duration("delivery", 0, "how long TestDeliveryFigures keeps the backend down; 0 skips it")

// asBackend makes the test binary a backend on the address that it names.
const (
	asBackend    = "SPILE_TEST_BACKEND"
	backendDelay = "SPILE_TEST_BACKEND_DELAY"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(asBackend); addr != "" {
		runBackend(addr)
		return
	}
	os.Exit(m.Run())
}

// taken is what a backend says at its end.
type taken struct{ Distinct, Again int }

// runBackend serves until standard input ends.
func runBackend(addr string) {
	b := newBackend()
	b.keep = false
	b.delay, _ = time.ParseDuration(os.Getenv(backendDelay))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		panic(err)
	}
	go func() { _ = b.Serve(l) }()
	_, _ = os.Stdout.WriteString("ready\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	b.Close()
	distinct, again := b.count()
	_ = json.NewEncoder(os.Stdout).Encode(taken{distinct, again})
}

// backendProcess is a backend whose memory is not the exporter's.
type backendProcess struct {
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Reader
}

func startBackendProcess(t *testing.T, addr string, delay time.Duration) *backendProcess {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asBackend+"="+addr, backendDelay+"="+delay.String())
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	p := &backendProcess{cmd, w, bufio.NewReader(out)}
	if _, err := p.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *backendProcess) stop(t *testing.T) (result taken) {
	t.Helper()
	p.in.Close()
	if err := json.NewDecoder(p.out).Decode(&result); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait()
	return result
}

// TestDeliveryFigures measures, in real time, what the figures of
// docs/decisions/delivery.md say:
//
//	go test ./sidecar/export -run TestDeliveryFigures -v -delivery 300s -timeout 20m
func TestDeliveryFigures(t *testing.T) {
	if *delivery == 0 {
		t.Skip("it takes its time; -delivery 300s runs it")
	}
	const rate = 100 // spans a second
	t.Run("outage", func(t *testing.T) {
		p, addr := figurePipeline(t)
		load(p, rate, *delivery)
		b := startBackendProcess(t, addr, 0)
		recovered := time.Now()
		for p.Stats().Queued > rate {
			p.emit(1)
			time.Sleep(time.Second / rate)
		}
		t.Logf("fresh %s after recovery", time.Since(recovered).Round(10*time.Millisecond))
		report(t, p, b)
	})
	t.Run("slow backend", func(t *testing.T) {
		p, addr := figurePipeline(t)
		b := startBackendProcess(t, addr, 3*time.Second)
		load(p, rate, *delivery/10)
		report(t, p, b)
	})
	t.Run("termination", func(t *testing.T) {
		p, addr := figurePipeline(t)
		b := startBackendProcess(t, addr, 100*time.Millisecond)
		p.emit(5000)
		report(t, p, b)
	})
	t.Run("termination during an outage", func(t *testing.T) {
		p, _ := figurePipeline(t)
		p.emit(5000)
		report(t, p, nil)
	})
}

func figurePipeline(t *testing.T) (*pipeline, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	return newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+addr), addr
}

func load(p *pipeline, rate int, d time.Duration) {
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-ticker.C {
		p.emit(1)
	}
}

// report ends the exporter and says what became of the spans.
func report(t *testing.T, p *pipeline, b *backendProcess) {
	t.Helper()
	start := time.Now()
	err := p.Shutdown(context.Background())
	took := time.Since(start)
	var got taken
	if b != nil {
		got = b.stop(t)
	}
	s := p.Stats()
	t.Logf("made %d, exported %d, dropped %v, residual %d; backend has %d and %d again; shutdown %s (%v); peak RSS %s",
		s.Seen, s.Exported, s.Dropped, s.Residual(), got.Distinct, got.Again, took.Round(time.Millisecond), err, peakRSS())
	if s.Residual() != 0 || uint64(got.Distinct) < s.Exported {
		t.Errorf("accounts do not hold")
	}
}

func peakRSS() string {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
