package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/packets"
)

// mustLoad loads the filter, or skips the test where that is not allowed.
func mustLoad(t testing.TB) *Tap {
	t.Helper()
	tap, err := Load()
	if errors.Is(err, unix.EPERM) && os.Getenv("REQUIRE_BPF") == "" {
		t.Skipf("needs CAP_BPF: %v", err)
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

// captured runs the filter on a packet and returns how many bytes of it the
// socket would get. The kernel lets the packet come in on the loopback interface.
func captured(t *testing.T, tap *Tap, packet []byte) int {
	t.Helper()
	n, err := tap.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var (
	client4 = netip.MustParseAddrPort("10.0.0.1:40000")
	server4 = netip.MustParseAddrPort("10.0.0.2:8080")
	client6 = netip.MustParseAddrPort("[fd00::1]:40000")
	server6 = netip.MustParseAddrPort("[fd00::2]:8080")
)

const all = -1

func TestFilter(t *testing.T) {
	tap := mustLoad(t)
	udp := packets.Segment{From: client4, To: server4, Flags: packets.ACK, Payload: "x"}.Bytes()
	udp[9] = 17
	fragment := packets.Segment{From: client4, To: server4, Flags: packets.ACK, Payload: "x"}.Bytes()
	fragment[7] = 1
	data4 := packets.Segment{From: client4, To: server4, Flags: packets.ACK, Payload: "hello"}.Bytes()
	data6 := packets.Segment{From: client6, To: server6, Flags: packets.ACK, Payload: "hello"}.Bytes()
	options := append(append(append([]byte(nil), data6[:40]...), 6, 0, 1, 4, 0, 0, 0, 0), data6[40:]...)
	options[5] += 8
	options[6] = 60
	fragment6 := append([]byte(nil), options...)
	fragment6[6] = 44
	short := append([]byte(nil), data4...)
	short[32] = 15 << 4 // a TCP header longer than the packet

	for _, test := range []struct {
		name   string
		packet []byte
		want   int
		count  func(Counters) uint64
	}{
		{"IPv4 data", data4, all, func(c Counters) uint64 { return c.Captured }},
		{"IPv6 data", data6, all, func(c Counters) uint64 { return c.Captured }},
		{"IPv6 destination options", options, all, func(c Counters) uint64 { return c.Captured }},
		{"padding of the link", append(append([]byte(nil), data4...), 0, 0, 0), len(data4), func(c Counters) uint64 { return c.Captured }},
		{"SYN", packets.Segment{From: client4, To: server4, Flags: packets.SYN}.Bytes(), all, func(c Counters) uint64 { return c.Captured }},
		{"FIN", packets.Segment{From: client4, To: server4, Flags: packets.FIN | packets.ACK}.Bytes(), all, func(c Counters) uint64 { return c.Captured }},
		{"RST", packets.Segment{From: client6, To: server6, Flags: packets.RST}.Bytes(), all, func(c Counters) uint64 { return c.Captured }},
		{"pure acknowledgement", packets.Segment{From: client4, To: server4, Flags: packets.ACK}.Bytes(), 0, func(c Counters) uint64 { return c.Empty }},
		{"UDP", udp, 0, func(c Counters) uint64 { return c.NotTCP }},
		{"IPv4 fragment", fragment, 0, func(c Counters) uint64 { return c.Fragments }},
		{"IPv6 fragment", fragment6, 0, func(c Counters) uint64 { return c.Fragments }},
		{"TCP header too long", short, 0, func(c Counters) uint64 { return c.Malformed }},
		{"IPv4 header cut", data4[:20], 0, func(c Counters) uint64 { return c.Malformed }},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			if want == all {
				want = len(test.packet)
			}
			before := tap.Counters()
			if got := captured(t, tap, test.packet); got != want {
				t.Errorf("captures %d bytes of %d, want %d", got, len(test.packet), want)
			}
			after := tap.Counters()
			if test.count(after) != test.count(before)+1 || after.Seen != before.Seen+1 {
				t.Errorf("counters %+v, before %+v", after, before)
			}
		})
	}
}

func direction(from, to netip.AddrPort) *Direction {
	d := &Direction{SourcePort: from.Port(), DestinationPort: to.Port()}
	if from.Addr().Is4() {
		a, b := from.Addr().As4(), to.Addr().As4()
		copy(d.Source[8:], a[:])
		copy(d.Destination[8:], b[:])
		return d
	}
	d.Source, d.Destination = from.Addr().As16(), to.Addr().As16()
	return d
}

// TestSkip checks that the filter leaves out what lies within a skipped range,
// also where sequence numbers wrap around, and nothing else.
func TestSkip(t *testing.T) {
	tap := mustLoad(t)
	var from, span uint32 = 0xfffffff0, 100 // variables, so that sums wrap around
	payload := strings.Repeat("x", 10)
	for _, ends := range [][2]netip.AddrPort{{client4, server4}, {client6, server6}} {
		d := direction(ends[0], ends[1])
		if !tap.Skip(d, from, span, false) {
			t.Fatal("no room")
		}
		for _, test := range []struct {
			name  string
			seq   uint32
			flags uint8
			want  int // bytes of payload, -1 for no packet
		}{
			{"before", from - 10, packets.ACK, 10},
			{"across the start", from - 5, packets.ACK, 10},
			{"at the start", from, packets.ACK, -1},
			{"wrapped around", from + 50, packets.ACK, -1},
			{"up to the end", from + span - 10, packets.ACK, -1},
			{"across the end", from + span - 9, packets.ACK, 10},
			{"behind", from + span, packets.ACK, 10},
			{"with FIN", from + 50, packets.FIN | packets.ACK, 0},
		} {
			packet := packets.Segment{From: ends[0], To: ends[1], Seq: test.seq, Flags: test.flags, Payload: payload}.Bytes()
			want := max(len(packet)-10+test.want, 0)
			if test.want < 0 {
				want = 0
			}
			if got := captured(t, tap, packet); got != want {
				t.Errorf("%s, %s: captures %d bytes of %d, want %d", ends[0], test.name, got, len(packet), want)
			}
		}
		other := packets.Segment{From: ends[1], To: ends[0], Seq: from, Flags: packets.ACK, Payload: payload}.Bytes()
		if got := captured(t, tap, other); got != len(other) {
			t.Error("leaves out the other direction")
		}
		inside := packets.Segment{From: ends[0], To: ends[1], Seq: from, Flags: packets.ACK, Payload: payload}.Bytes()
		captured(t, tap, packets.Segment{From: ends[0], To: ends[1], Seq: 7, Flags: packets.SYN}.Bytes())
		if got := captured(t, tap, inside); got != len(inside) {
			t.Error("a new connection on the same ports does not end the skip")
		}
		tap.Skip(d, from, span, false)
		tap.Forget(d)
		if got := captured(t, tap, inside); got != len(inside) {
			t.Error("leaves out what was taken back")
		}
	}
}

// TestRoom fills a ring that user space does not read.
func TestRoom(t *testing.T) {
	tap := mustLoad(t)
	const payload, kept = 3000, 2048 // TAP_CUT
	packet := packets.Segment{From: client4, To: server4, Flags: packets.ACK, Payload: strings.Repeat("x", payload)}.Bytes()
	whole, cut := len(packet), len(packet)-payload+kept
	check := func(when string, want ...int) {
		t.Helper()
		for i, n := range want {
			if got := captured(t, tap, packet); got != n {
				t.Errorf("%s, packet %d: %d bytes captured, want %d", when, i, got, n)
			}
		}
	}
	check("a ring of unknown size", whole, whole, whole)
	tap.Drained()
	tap.Sized(true, 4*5000)
	tap.Sized(false, 4)
	tap.Sized(true, 1<<30) // the smallest counts
	check("a ring that is filling up", whole, whole, cut, cut)
	tap.Taken(true, 6000)
	check("two of the packets have been read", whole, cut)
	tap.Drained()
	check("all have been read", whole, whole, cut)
	if n := tap.Counters().Cut; n != 4 {
		t.Errorf("%d packets counted as cut, want 4", n)
	}
}

func TestPorts(t *testing.T) {
	tap := mustLoad(t)
	data := packets.Segment{From: client4, To: server4, Flags: packets.ACK, Payload: "x"}.Bytes()
	tap.Own(client4.Port(), true)
	if captured(t, tap, data) != 0 || tap.Counters().Own != 1 {
		t.Error("captures the sidecar's own connection")
	}
	tap.Own(client4.Port(), false)
	if captured(t, tap, data) == 0 {
		t.Error("leaves out a port that was given back")
	}
	tap.Exclude(server4.Port())
	if captured(t, tap, data) != 0 || tap.Counters().Excluded != 1 {
		t.Error("captures an excluded port")
	}
}

// TestFullSkips checks that a direction that finds no room is captured.
func TestFullSkips(t *testing.T) {
	tap := mustLoad(t)
	noted := 0
	const tried = 40000
	for i := range tried {
		d := direction(client4, server4)
		d.SourcePort = uint16(i)
		if tap.Skip(d, 0, 1<<20, false) {
			noted++
		}
	}
	if noted <= len(tap.slots)/2 || noted > len(tap.slots) {
		t.Errorf("%d of %d noted in %d slots", noted, tried, len(tap.slots))
	}
}

// TestSmallMemlock loads the filter with the RLIMIT_MEMLOCK of old container
// runtimes. Linux before 5.11 charges maps to it: there the error must say so.
func TestSmallMemlock(t *testing.T) {
	if err := mustLoad(t).Close(); err != nil { // the limit is the user's, over all processes
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -l 64 && exec "$0" -test.run='^TestExactCapabilities$'`, self)
	cmd.Env = append(os.Environ(), inChild+"=1")
	out, err := runWithOnly(cmd, unix.CAP_BPF, unix.CAP_NET_RAW)
	if !strings.Contains(string(out), "attached") && !strings.Contains(string(out), "RLIMIT_MEMLOCK, which is 64 KiB") {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}

// inChild makes TestExactCapabilities do its work instead of running a child.
const inChild = "SPILE_TEST_CHILD"

func attachInChild() {
	tap, err := Load()
	if err == nil {
		var fd int
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0); err == nil {
			err = tap.Attach(fd)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("attached, walking:", tap.Walks() == nil)
	var refused *ebpf.VerifierError
	if errors.As(tap.Walks(), &refused) {
		fmt.Printf("%+v\n", refused)
	}
	os.Exit(0)
}

// TestExactCapabilities loads and attaches the filter in a process that has
// CAP_BPF and CAP_NET_RAW alone, as the sidecar has. Without CAP_PERFMON the
// verifier applies stricter rules.
func TestExactCapabilities(t *testing.T) {
	if os.Getenv(inChild) != "" {
		attachInChild()
	}
	mustLoad(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestExactCapabilities$")
	cmd.Env = append(os.Environ(), inChild+"=1")
	out, err := runWithOnly(cmd, unix.CAP_BPF, unix.CAP_NET_RAW)
	if err != nil || !strings.Contains(string(out), "attached, walking: true") {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestLength checks that a socket may have the filter where optmem_max is 20 KiB, as
// it is before Linux 6.8: 2,550 instructions, less than what the kernel adds to them.
func TestLength(t *testing.T) {
	const most = 2500
	info, err := mustLoad(t).program.Info()
	if err != nil {
		t.Fatal(err)
	}
	instructions, err := info.Instructions()
	if err != nil {
		t.Skipf("this kernel does not tell the instructions: %v", err)
	}
	n := len(instructions)
	for _, i := range instructions {
		if i.OpCode.IsDWordLoad() {
			n++ // it takes the room of two
		}
	}
	t.Logf("%d instructions", n)
	if n > most {
		t.Errorf("the filter has %d instructions, want at most %d", n, most)
	}
}
