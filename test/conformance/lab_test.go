//go:build conformance && linux

package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/sidecar"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

const (
	clientIP = "10.244.1.1"
	serverIP = "10.244.1.2"
	port     = 8080

	clientIP6 = "fd00:1::1"
	serverIP6 = "fd00:1::2"
)

// lab is two network namespaces joined by a veth pair.
type lab struct {
	client, server *netns.NS
	addr, addr6    string // of the server
	dir            string
	file           string // that tcpdump writes
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{addr: serverIP, addr6: serverIP6, dir: t.TempDir()}
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
	prefix := netip.MustParsePrefix
	err := netns.Pair(l.client, l.server, prefix(clientIP+"/24"), prefix(serverIP+"/24"))
	if err := errors.Join(err, l.client.AddAddr(prefix(clientIP6+"/64")), l.server.AddAddr(prefix(serverIP6+"/64"))); err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("CONFORMANCE_KEEP"); dir != "" {
		t.Cleanup(func() {
			if b, err := os.ReadFile(l.file); t.Failed() && err == nil {
				name := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".pcap")
				t.Logf("%s: %v", name, errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(name, b, 0o644)))
			}
		})
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
	case <-time.After(time.Minute):
		t.Errorf("%s does not end", cmd.Path)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
}

// serve starts a server. Of the functions it returns the first returns the log so
// far, the second ends the server and returns its log.
func (l *lab) serve(t *testing.T, s server) (log, stop func() string) {
	t.Helper()
	l.documents(t)
	var out output
	cmd := l.start(t, l.server, &out, s.command(t, l)...)
	deadline := time.Now().Add(3 * time.Minute)
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
	log = func() string {
		if s.log == "" {
			return out.String()
		}
		b, err := os.ReadFile(filepath.Join(l.dir, s.log))
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		return string(b)
	}
	return log, func() string {
		time.Sleep(300 * time.Millisecond)
		end(t, cmd, s.stop)
		return log()
	}
}

// output is what a program wrote so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// run runs a client to its end, in the namespace ns.
func (l *lab) run(t *testing.T, ns *netns.NS, c client) {
	t.Helper()
	if _, err := exec.LookPath(c.args[0]); err != nil {
		if os.Getenv("REQUIRE_CONFORMANCE") != "" {
			t.Fatalf("%s is missing", c.args[0])
		}
		t.Logf("without %s, which is missing", c.args[0])
		return
	}
	addr, addr6 := fmt.Sprintf("%s:%d", l.addr, port), fmt.Sprintf("[%s]:%d", l.addr6, port)
	names := strings.NewReplacer("URL6", "http://"+addr6, "URL", "http://"+addr, "ADDR6", addr6, "ADDR", addr)
	args := make([]string, len(c.args))
	for i, a := range c.args {
		args[i] = names.Replace(a)
	}
	var out bytes.Buffer
	cmd := l.start(t, ns, &out, args...)
	if err := cmd.Wait(); err != nil && !c.fails {
		t.Errorf("%q: %v\n%.2000s", args, err, out.String())
	}
}

// capture starts the tap, and tcpdump beside it, at the server's end, on an
// interface. The function that it returns ends both.
func (l *lab) capture(t *testing.T, ifname string) func() ([]exchanged, string) {
	t.Helper()
	l.file = filepath.Join(l.dir, "all.pcap")
	var out output
	dump := l.start(t, l.server, &out, "tcpdump", "-i", ifname, "-s", "0", "-B", "32768", "-U", "-Z", "root", "-w", l.file, "tcp")
	var got []exchanged
	live := l.tap(t, l.server, ifname, func(x *exchange.Exchange) { got = append(got, describe(x)) })
	for !strings.Contains(out.String(), "listening on") {
		time.Sleep(20 * time.Millisecond)
	}
	return func() ([]exchanged, string) {
		t.Helper()
		time.Sleep(1200 * time.Millisecond) // tcpdump takes packets over late
		counters := live()
		end(t, dump, syscall.SIGINT)
		if !strings.Contains(out.String(), "\n0 packets dropped by kernel") {
			t.Errorf("packets were lost by tcpdump: %s", out.String())
		}
		return got, counters
	}
}

// tap starts the tap in a namespace, on an interface. The function that it returns
// ends it, and returns its counters.
func (l *lab) tap(t *testing.T, ns *netns.NS, ifname string, emit func(*exchange.Exchange)) func() string {
	t.Helper()
	var tap *sidecar.Tap
	err := ns.Do(func() (err error) {
		// The filter cuts what is large when the ring fills up, as it may when programs
		// take all of the machine's time.
		tap, err = sidecar.OpenTap(sidecar.TapConfig{Interfaces: []string{ifname}, RingBytes: 128 << 20}, slog.New(slog.DiscardHandler))
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
		time.Sleep(200 * time.Millisecond) // ends of connections
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

// writeFile writes a file below the lab's folder and returns its path.
func (l *lab) writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
