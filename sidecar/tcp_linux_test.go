package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestTCP has the kernel do with connections what it seldom does: taps at both ends
// report what happened.
func TestTCP(t *testing.T) {
	p := newPods(t)
	l := tcpLab{t: t, pods: p, want: make(map[string]int)}
	l.serve()
	atServer, atClient := watch(t, p.server), watch(t, p.client)
	for _, run := range []func(*tcpLab){
		(*tcpLab).fastOpen, (*tcpLab).portsUsedAgain, (*tcpLab).addresses, (*tcpLab).halfClose, (*tcpLab).bothClose,
		(*tcpLab).resets, (*tcpLab).wrapAround, (*tcpLab).bytewise,
	} {
		run(&l)
	}
	time.Sleep(100 * time.Millisecond) // ends of connections
	for end, w := range map[string]*watched{"server": atServer, "client": atClient} {
		if diff := cmp.Diff(l.want, w.stop(t)); diff != "" {
			t.Errorf("at the %s (-want +reported):\n%s", end, diff)
		}
		for target, want := range map[string]string{"/link-local": "fe80::1", "/mapped": clientIP} {
			if got := w.last[target].client; got != netip.MustParseAddr(want) {
				t.Errorf("at the %s the client of %s is %s, want %s", end, target, got, want)
			}
		}
		for i := range 3 {
			if a, b := w.last[fmt.Sprintf("/wraps/%d/0", i)].seq, w.last[fmt.Sprintf("/wraps/%d/3", i)].seq; a < b {
				t.Errorf("at the %s sequence numbers did not wrap around between %d and %d", end, a, b)
			}
		}
		t.Logf("at the %s: %s", end, w)
	}
}

type tcpLab struct {
	pods
	t    *testing.T
	want map[string]int
}

const (
	tcpAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	tcpHead   = len(tcpAnswer) - len("hello")
	tcpPort   = 8080
)

func tcpGet(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: a.example\r\n\r\n" }

// expect expects that the request is answered, whole.
func (l *tcpLab) expect(method, target string, up int64) {
	l.want[logLine("HTTP/1.1", method, target, 200, up, 5, "complete")]++
}

// serve answers requests. Targets say what is done with the connection: /close is
// closed, /hold is not answered; of /reset?n and /part?n so many bytes of the answer
// are sent before a reset, or are all that is; /bytes is answered byte by byte.
func (l *tcpLab) serve() {
	c := net.ListenConfig{Control: control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
	})}
	var listener net.Listener
	err := l.server.Do(func() (err error) {
		// Data in SYN in both directions, without a cookie.
		if err = os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("1543"), 0); err == nil {
			listener, err = c.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", tcpPort))
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answerTCP(conn.(*net.TCPConn))
		}
	}()
}

func control(set func(fd int) error) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = set(int(fd)) }), err)
	}
}

func answerTCP(conn *net.TCPConn) {
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		n := len(tcpAnswer)
		_, _ = fmt.Sscanf(request.URL.RawQuery, "%d", &n)
		step := n
		switch request.URL.Path {
		case "/hold":
			continue
		case "/bytes":
			step = 1
		}
		for part := range slices.Chunk([]byte(tcpAnswer[:n]), max(step, 1)) {
			_, _ = conn.Write(part)
		}
		switch request.URL.Path {
		case "/close":
			return
		case "/reset":
			_ = conn.SetLinger(0)
			return
		}
	}
}

// dial connects to the server. What set does, if it is not nil, comes before.
func (l *tcpLab) dial(address string, local net.Addr, set func(fd int) error) *net.TCPConn {
	l.t.Helper()
	d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: local}
	if set != nil {
		d.Control = control(set)
	}
	var conn net.Conn
	err := l.client.Do(func() (err error) {
		// The last connection from this port may not have got the acknowledgement of its FIN.
		for range 100 {
			conn, err = d.Dial("tcp", net.JoinHostPort(address, fmt.Sprint(tcpPort)))
			if !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EADDRINUSE) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

// send writes and reads n bytes of what comes back.
func (l *tcpLab) send(conn *net.TCPConn, text string, n int) {
	l.t.Helper()
	_, err := io.WriteString(conn, text)
	_, errRead := io.ReadFull(conn, make([]byte, n))
	if err := errors.Join(err, errRead); err != nil {
		l.t.Errorf("%.40q: %v", text, err)
	}
}

// readToEnd reads n bytes and then the server's FIN.
func (l *tcpLab) readToEnd(conn *net.TCPConn, n int) {
	l.t.Helper()
	if b, err := io.ReadAll(conn); err != nil || len(b) != n {
		l.t.Errorf("%d bytes, want %d: %v", len(b), n, err)
	}
}

func (l *tcpLab) fastOpen() {
	err := l.client.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("1543"), 0) })
	if err != nil {
		l.t.Fatal(err)
	}
	for i, address := range []string{serverIP, serverIP6} {
		conn := l.dial(address, nil, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		})
		target := fmt.Sprint("/fast-open/", i)
		l.send(conn, tcpGet(target), len(tcpAnswer))
		l.expect("GET", target, 0)
		const synData = 32 // TCPI_OPT_SYN_DATA
		var info *unix.TCPInfo
		set := control(func(fd int) (err error) {
			info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			return err
		})
		raw, err := conn.SyscallConn()
		if err := errors.Join(err, set("", "", raw)); err != nil || info.Options&synData == 0 {
			l.t.Errorf("the request was not in SYN: %v", err)
		}
		conn.Close()
	}
}

// portsUsedAgain has connections one after the other on the same addresses and
// ports, ended by the client's RST, or by the server, which keeps them in TIME-WAIT.
func (l *tcpLab) portsUsedAgain() {
	reuse := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }
	for i := range 10 {
		conn := l.dial(serverIP, &net.TCPAddr{Port: 33333}, reuse)
		target := fmt.Sprint("/ports-again/", i)
		l.send(conn, tcpGet(target), len(tcpAnswer))
		l.expect("GET", target, 0)
		if i%2 == 0 {
			_ = conn.SetLinger(0)
		} else {
			_, _ = io.WriteString(conn, tcpGet("/close"))
			l.readToEnd(conn, len(tcpAnswer))
			l.expect("GET", "/close", 0)
		}
		conn.Close()
	}
}

func (l *tcpLab) addresses() {
	zone := 0
	err := errors.Join(
		l.client.AddAddr(netip.MustParsePrefix("fe80::1/64")), l.server.AddAddr(netip.MustParsePrefix("fe80::2/64")),
		l.client.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			if err == nil {
				zone = i.Index
			}
			return err
		}))
	if err != nil {
		l.t.Fatal(err)
	}
	conn := l.dial(fmt.Sprintf("fe80::2%%%d", zone), &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: fmt.Sprint(zone)}, nil)
	l.send(conn, tcpGet("/link-local"), len(tcpAnswer))
	l.expect("GET", "/link-local", 0)
	conn.Close()

	// A socket of IPv6 for an address of IPv4, which Go never makes.
	fd := -1
	err = l.client.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet6{Port: tcpPort, Addr: netip.MustParseAddr("::ffff:" + serverIP).As16()})
		}
		return err
	})
	if err == nil {
		_, err = unix.Write(fd, []byte(tcpGet("/mapped")))
	}
	if err == nil {
		_, err = unix.Read(fd, make([]byte, 100))
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		l.t.Errorf("by an IPv4-mapped address: %v", err)
	}
	l.expect("GET", "/mapped", 0)
}

func (l *tcpLab) halfClose() {
	conn := l.dial(serverIP, nil, nil)
	_, err := io.WriteString(conn, tcpGet("/half-close/1")+tcpGet("/half-close/2"))
	if err := errors.Join(err, conn.CloseWrite()); err != nil {
		l.t.Error(err)
	}
	l.readToEnd(conn, 2*len(tcpAnswer))
	l.expect("GET", "/half-close/1", 0)
	l.expect("GET", "/half-close/2", 0)
	conn.Close()
}

// bothClose has ends that do not wait for each other's FIN: these may cross.
func (l *tcpLab) bothClose() {
	for range 20 {
		conn := l.dial(serverIP6, nil, nil)
		l.send(conn, tcpGet("/close"), len(tcpAnswer))
		l.expect("GET", "/close", 0)
		conn.Close()
	}
}

// resets has either end reset at any point of a request and of a response.
func (l *tcpLab) resets() {
	request := tcpGet("/hold")
	for n := range len(request) + 1 {
		conn := l.dial(serverIP, nil, nil)
		l.send(conn, request[:n], 0)
		_ = conn.SetLinger(0)
		conn.Close()
	}
	l.want[logLine("HTTP/1.1", "GET", "/hold", 0, 0, 0, "reset")]++
	for n := range len(tcpAnswer) {
		for _, by := range []string{"/reset", "/part"} { // the server, the client
			conn := l.dial(serverIP, nil, nil)
			target := fmt.Sprint(by, "?", n)
			l.send(conn, tcpGet(target), n)
			if by == "/part" {
				_ = conn.SetLinger(0)
			} else if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				l.t.Errorf("%s is not reset: %v", target, err)
			}
			conn.Close()
			status := 0
			if n >= tcpHead {
				status = 200
			}
			l.want[logLine("HTTP/1.1", "GET", target, status, 0, int64(max(n-tcpHead, 0)), "reset")]++
		}
	}
}

// wrapAround has a client whose sequence numbers wrap around in its first, second or
// third request, an upload.
func (l *tcpLab) wrapAround() {
	const size = 100000
	for i := range uint32(3) {
		conn := l.dial(serverIP, nil, func(fd int) error {
			const sendQueue, offWithoutProbe = 2, -1 // TCP_SEND_QUEUE, TCP_REPAIR_OFF_NO_WP
			set := func(name, value int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, value) }
			// As int32: what an ISN shortly before 2^32 is.
			return errors.Join(set(unix.TCP_REPAIR, 1), set(unix.TCP_REPAIR_QUEUE, sendQueue),
				set(unix.TCP_QUEUE_SEQ, -int(i*size+size/2)), set(unix.TCP_REPAIR, offWithoutProbe))
		})
		for k := range 4 {
			target := fmt.Sprintf("/wraps/%d/%d", i, k)
			head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n", target, size)
			l.send(conn, head+strings.Repeat("GET /fake HTTP/1.1\r\n\r\n", size/22+1)[:size], len(tcpAnswer))
			l.expect("POST", target, size)
		}
		conn.Close()
	}
}

func (l *tcpLab) bytewise() {
	conn := l.dial(serverIP, nil, nil)
	for range 3 {
		for _, b := range []byte(tcpGet("/bytes")) {
			l.send(conn, string(b), 0)
		}
		l.send(conn, "", len(tcpAnswer))
		l.expect("GET", "/bytes", 0)
	}
	conn.Close()
}
