package bpf

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/internal/packets"
)

// throughLoopback returns a function that sends a packet, which may be larger than
// what the kernel runs a filter on, and returns how many bytes of it a socket gets.
func throughLoopback(t *testing.T, tap *Tap) func(packet []byte) int {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	var in, out int
	err = ns.Do(func() error {
		err := netns.SetUp("lo")
		for _, fd := range []*int{&in, &out} {
			if err == nil {
				*fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(in); unix.Close(out) })
	const allProtocols, ipv4, loopback = 0x0300, 0x0008, 1 // in network byte order
	if err := tap.Attach(in); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(in, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: loopback}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	return func(packet []byte) int {
		t.Helper()
		if err := unix.Sendto(out, packet, 0, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: loopback, Halen: 6}); err != nil {
			t.Fatal(err)
		}
		n, _, err := unix.Recvfrom(in, make([]byte, 1<<17), 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// TestBrief checks that of large packets of a brief direction no more is captured
// than the head of a message that may start one, and the end.
func TestBrief(t *testing.T) {
	const large, whole = 16 << 10, -1 // TAP_LARGE
	payload := func(start string, n int) string {
		return start + strings.Repeat("x", n-len(start)-len(lastBytes)) + lastBytes
	}
	for _, test := range []struct {
		name    string
		payload string
		flags   uint8
		plain   bool
		want    int // bytes of payload
	}{
		{"content", payload("1000\r\n", 60000), 0, false, 0},
		{"a response", payload("HTTP/1.1 200 OK\r\n\r\n", 60000), 0, false, large},
		{"a request", payload("GET / HTTP/1.1\r\n\r\n", 60000), 0, false, large},
		{"what starts with two letters", payload("GE", 60000), 0, false, 0},
		{"just large", payload("", large+1), 0, false, 0},
		{"not large", payload("", large), 0, false, whole},
		{"small", payload("", 1000), 0, false, whole},
		{"the end of the connection", payload("", 60000), packets.FIN, false, 0},
		{"without pieces", payload("", 60000), 0, true, whole},
	} {
		t.Run(test.name, func(t *testing.T) {
			tap := mustLoad(t)
			if test.plain {
				var err error
				if tap, err = LoadPlain(nil); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { tap.Close() })
			}
			pass := throughLoopback(t, tap)
			d := direction(client4, server4)
			var base uint32 = 0xffffff00
			packet := packets.Segment{From: client4, To: server4, Seq: base, Flags: packets.ACK | test.flags, Payload: test.payload}.Bytes()
			headers := len(packet) - len(test.payload)
			if n := pass(packet); n != len(packet) {
				t.Errorf("captures %d bytes of a packet of %d of a direction that is not brief", n, len(packet))
			}
			tap.Skip(d, 0, 0, true)
			want := test.want
			if want == whole {
				want = len(test.payload)
			}
			if n := pass(packet) - headers; n != want {
				t.Errorf("captures %d bytes of %d, want %d", n, len(test.payload), want)
			}
			end := base + uint32(len(test.payload))
			seq, b, ok := tap.Piece(d, base, end)
			if ok != (test.want != whole) || ok && (string(b) != lastBytes || seq != end-uint32(len(b))) {
				t.Errorf("piece %q at %d, %t", b, seq-base, ok)
			}
			if n := tap.Counters().Cut; (n == 1) != ok {
				t.Errorf("%d packets counted as cut", n)
			}
			captured(t, tap, packets.Segment{From: client4, To: server4, Seq: 7, Flags: packets.SYN}.Bytes())
			if n := pass(packet); n != len(packet) {
				t.Errorf("captures %d bytes of a packet of %d of a new connection", n, len(packet))
			}
		})
	}
}

const lastBytes = "the end\r\n0\r\n\r\n."

// TestSkipBrief checks that a brief direction has no less captured for it than what
// is not needed.
func TestSkipBrief(t *testing.T) {
	tap := mustLoad(t)
	d := direction(client4, server4)
	pass := func(seq uint32) bool {
		return captured(t, tap, packets.Segment{From: client4, To: server4, Seq: seq, Flags: packets.ACK, Payload: "hello"}.Bytes()) > 0
	}
	for _, test := range []struct {
		from, span uint32
		inside     bool
	}{{0, 0, false}, {1000, 0, false}, {1000, 100, true}, {1000, MaxSpan, true}, {1000, 0xffffffff, true}} {
		tap.Skip(d, test.from, test.span, true)
		if pass(1000) == test.inside || !pass(999) || !pass(0x7fffffff) || !pass(0xfffffff0) {
			t.Errorf("%d bytes from %d not needed: captured %t, before %t, far behind %t, %t", test.span, test.from, pass(1000), pass(999), pass(0x7fffffff), pass(0xfffffff0))
		}
	}
}
