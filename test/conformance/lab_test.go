//go:build conformance && linux

package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/sidecar"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

const (
	clientIP = "10.244.1.1"
	serverIP = "10.244.1.2"
	port     = 8080
)

// lab is two network namespaces joined by a veth pair.
type lab struct {
	client, server *netns.NS
	dir            string
	file           string // that tcpdump writes
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{dir: t.TempDir()}
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []**netns.NS{&l.client, &l.server} {
		var err error
		if *ns, err = netns.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*ns).Close() })
	}
	if err := netns.Pair(l.client, l.server, netip.MustParsePrefix(clientIP+"/24"), netip.MustParsePrefix(serverIP+"/24")); err != nil {
		t.Fatal(err)
	}
	return l
}

// start starts a program in a namespace; it is ended with the test at the latest.
func (l *lab) start(t *testing.T, ns *netns.NS, out io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = l.dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatalf("starting %s: %v", args[0], err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
		}
	})
	return cmd
}

// end ends a program by a signal and waits for it.
func end(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	_ = syscall.Kill(cmd.Process.Pid, s)
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Errorf("%s does not end", cmd.Path)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
}

// serve starts a server; the function it returns ends it and returns its log.
func (l *lab) serve(t *testing.T, s server) func() string {
	t.Helper()
	l.documents(t)
	var out bytes.Buffer
	cmd := l.start(t, l.server, &out, s.command(t, l)...)
	deadline := time.Now().Add(20 * time.Second)
	for {
		// From the server's own side: the loopback is not that of the capture's interface.
		var conn net.Conn
		err := l.server.Do(func() (err error) {
			conn, err = net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			return err
		})
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v\n%s", s.name, err, out.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
	return func() string {
		time.Sleep(300 * time.Millisecond)
		end(t, cmd, s.stop)
		if s.log == "" {
			return out.String()
		}
		b, err := os.ReadFile(filepath.Join(l.dir, s.log))
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		return string(b)
	}
}

// run runs a client to its end.
func (l *lab) run(t *testing.T, c client) {
	t.Helper()
	for _, p := range c.args[:1] {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("REQUIRE_CONFORMANCE") != "" {
				t.Fatalf("%s is missing", p)
			}
			t.Logf("without %s, which is missing", p)
			return
		}
	}
	var out bytes.Buffer
	args := make([]string, len(c.args))
	for i, a := range c.args {
		args[i] = strings.ReplaceAll(a, "URL", fmt.Sprintf("http://%s:%d", serverIP, port))
	}
	cmd := l.start(t, l.client, &out, args...)
	if err := cmd.Wait(); err != nil && !c.fails {
		t.Errorf("%q: %v\n%.2000s", args, err, out.String())
	}
}

// capture starts the tap, and tcpdump beside it, at the server's end. The function
// that it returns ends both.
func (l *lab) capture(t *testing.T) func() ([]exchanged, string) {
	t.Helper()
	l.file = filepath.Join(l.dir, "all.pcap")
	var out bytes.Buffer
	dump := l.start(t, l.server, &out, "tcpdump", "-i", "eth0", "-s", "0", "-B", "32768", "-U", "-Z", "root", "-w", l.file, "tcp")
	var got []exchanged
	live := l.tap(t, l.server, func(x *exchange.Exchange) { got = append(got, describe(x)) })
	for !strings.Contains(out.String(), "listening on") {
		time.Sleep(20 * time.Millisecond)
	}
	return func() ([]exchanged, string) {
		t.Helper()
		counters := live()
		end(t, dump, syscall.SIGINT)
		if !strings.Contains(out.String(), "\n0 packets dropped by kernel") {
			t.Errorf("packets were lost by tcpdump: %s", out.String())
		}
		return got, counters
	}
}

// tap starts the tap in a namespace. The function that it returns ends it, and returns
// its counters.
func (l *lab) tap(t *testing.T, ns *netns.NS, emit func(*exchange.Exchange)) func() string {
	t.Helper()
	var tap *sidecar.Tap
	err := ns.Do(func() (err error) {
		tap, err = sidecar.OpenTap(sidecar.TapConfig{Interfaces: []string{"eth0"}, RingBytes: 32 << 20}, slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	table := flow.NewTable(tap.FlowConfig(emit))
	ended := make(chan error, 1)
	go func() { ended <- flow.Pump(tap, table) }()
	return func() string {
		t.Helper()
		time.Sleep(1500 * time.Millisecond) // the rings, and tcpdump, hand packets over late
		tap.Stop()
		err := <-ended
		lost, counters := tap.Lost(), tap.Counters()
		if err := errors.Join(err, tap.Close()); err != nil {
			t.Fatal(err)
		}
		if lost > 0 {
			t.Errorf("%d packets were lost by the tap", lost)
		}
		checkAccounts(t, table)
		return fmt.Sprintf("%s: %d packets seen, %d captured, %d omitted with %d bytes, %d bytes missing", tap.Rung,
			counters.Seen, table.Stats.Packets, counters.Omitted, counters.OmittedBytes, table.Stats.Missing)
	}
}

func checkAccounts(t *testing.T, table *flow.Table) {
	t.Helper()
	s := table.Exchanges()
	var accounted uint64
	for _, n := range s.Outcomes {
		accounted += n
	}
	for _, n := range s.Dropped {
		accounted += n
	}
	if s.Seen != accounted || s.InFlight != 0 || s.HeldBytes != 0 {
		t.Errorf("the accounts do not balance: %+v", s)
	}
}

// disturbance is what is done to the packets of a file: of so many, one is lost,
// one is there twice; and each is moved by up to so many places.
type disturbance struct {
	seed                     uint64
	lose, duplicate, reorder int
}

func (d *disturbance) apply(all []capture.Packet) []capture.Packet {
	r := rand.New(rand.NewPCG(d.seed, 0))
	var out []capture.Packet
	for _, p := range all {
		if d.lose > 0 && r.IntN(d.lose) == 0 {
			continue
		}
		out = append(out, p)
		if r.IntN(d.duplicate) == 0 {
			out = append(out, p)
		}
	}
	for i := range out {
		j := min(i+r.IntN(d.reorder), len(out)-1)
		if !slices.ContainsFunc(out[i:j+1], isBoundary) {
			out[i], out[j] = out[j], out[i]
		}
	}
	for i := range out {
		out[i].At = out[0].At + int64(i)*1000
	}
	return out
}

// isBoundary reports whether an IPv4 packet has one of the flags SYN and RST: what
// is captured before the one or after the other is not of the connection.
func isBoundary(p capture.Packet) bool {
	const syn, rst = 2, 4
	at := int(p.Data[0]&0xf)*4 + 13
	return len(p.Data) > at && p.Data[at]&(syn|rst) != 0
}

// read returns the exchanges of a file, whose packets may be disturbed.
func read(t *testing.T, path string, d *disturbance) []exchanged {
	t.Helper()
	f, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []exchanged
	table := flow.NewTable(flow.Config{Emit: func(x *exchange.Exchange) { got = append(got, describe(x)) }})
	var all []capture.Packet
	for {
		p, err := f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		all = append(all, p)
	}
	if d != nil {
		all = d.apply(all)
	}
	var last int64
	for _, p := range all {
		table.Packet(p)
		last = max(last, p.At)
	}
	table.Close(last)
	checkAccounts(t, table)
	return got
}
