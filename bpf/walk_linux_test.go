package bpf

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/packets"
)

// frames writes HTTP/2 frames: a type, D for DATA, E for DATA with END_STREAM, P for
// PADDED DATA, H for HEADERS, W for WINDOW_UPDATE, and a length for each.
func frames(kinds string, lengths ...int) string {
	var b strings.Builder
	for i, k := range kinds {
		n := lengths[i]
		header := map[rune]string{'D': "\x00\x00", 'E': "\x00\x01", 'P': "\x00\x08", 'H': "\x01\x04", 'W': "\x08\x00"}[k]
		b.WriteString(string([]byte{byte(n >> 16), byte(n >> 8), byte(n)}) + header + "\x00\x00\x00\x01" + strings.Repeat("x", n))
	}
	return b.String()
}

// windowUpdate is one for a stream.
func windowUpdate(stream byte) string {
	return "\x00\x00\x04\x08\x00\x00\x00\x00" + string(stream) + "xxxx"
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// walker passes the packets of a direction to the filter.
type walker struct {
	t      *testing.T
	tap    *Tap
	d      *Direction
	ends   [2]netip.AddrPort
	stream string
	base   uint32 // sequence number of its first byte
}

func newWalker(t *testing.T, stream string) *walker {
	tap := mustLoad(t)
	if err := tap.Walks(); err != nil {
		t.Fatalf("%+v", err)
	}
	pin(t, 0) // each CPU counts for itself what it leaves out
	return &walker{t, tap, direction(client4, server4), [2]netip.AddrPort{client4, server4}, stream, 0xfffff000}
}

// pass passes a part of the stream, and returns how many bytes of it are captured in
// place, -1 for no packet.
func (w *walker) pass(from, to int, flags uint8) int {
	w.t.Helper()
	p := packets.Segment{From: w.ends[0], To: w.ends[1], Seq: w.base + uint32(from), Flags: flags | packets.ACK, Payload: w.stream[from:to]}.Bytes()
	n := captured(w.t, w.tap, p)
	if n == 0 {
		return -1
	}
	return n - (len(p) - (to - from))
}

// check passes the stream in packets that end at cuts, and compares how many bytes of
// each are captured in place.
func (w *walker) check(cuts, want []int) {
	w.t.Helper()
	var got []int
	from := 0
	for _, to := range cuts {
		got = append(got, w.pass(from, to, 0))
		from = to
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("captured in place (-want +got):\n%s", diff)
	}
}

// pieces returns what was captured beside a packet.
func (w *walker) pieces(from, to int) (all []string) {
	w.t.Helper()
	for {
		seq, b, ok := w.tap.Piece(w.d, w.base+uint32(from), w.base+uint32(to))
		if !ok {
			return all
		}
		at := int(seq - w.base)
		if got := w.stream[at : at+len(b)]; got != string(b) {
			w.t.Errorf("piece at %d is %q, want %q", at, b, got)
		}
		all = append(all, fmt.Sprintf("%d+%d", at, len(b)))
		from = at + len(b)
	}
}

func TestWalk(t *testing.T) {
	whole := func(n int) []int { return []int{n} }
	for _, test := range []struct {
		name   string
		stream string
		cuts   []int // where packets end
		want   []int // bytes of each that are captured in place
		pieces []string
	}{
		{"DATA in one packet", frames("DD", 1000, 1000), []int{2018}, []int{9}, []string{"1009+9"}},
		{"equal headers are one piece", frames("DDDD", 600, 600, 600, 600), []int{2436}, []int{9}, []string{"609+9", "1218+9", "1827+9"}},
		{"HEADERS first", frames("HDD", 30, 1000, 500), []int{1557}, []int{48}, []string{"1048+9"}},
		{"HEADERS inside", frames("DHD", 1000, 30, 500), []int{1557}, whole(1557), nil},
		{"WINDOW_UPDATE inside", frames("DWWD", 1000, 4, 4, 1000), []int{2044}, []int{9}, []string{"1009+9", "1022+9", "1035+9"}},
		{"PADDED", frames("PD", 1000, 1000), []int{2018}, []int{1018}, nil},
		{"empty DATA ends", frames("DE", 1000, 0), []int{1018}, []int{9}, []string{"1009+9"}},
		{"the inside of a payload", frames("D", 3000), []int{1000, 2000, 2400, 3009}, []int{9, -1, -1, -1}, nil},
		{"the end of a message", frames("E", 3000), []int{1000, 2000, 2400, 3009}, []int{9, -1, -1, 0}, nil},
		{"a payload up to a packet's end", frames("D", 1991), []int{1000, 2000}, []int{9, -1}, nil},
		{"a header in two packets", frames("DD", 1000, 1000), []int{1013, 2018}, []int{9, 5}, []string{"1009+4"}},
		{"a header in two packets, but for a byte", frames("DD", 1000, 1000), []int{1017, 2018}, []int{9, 1}, []string{"1009+8"}},
		{"a header in three packets", frames("DDD", 1000, 1000, 1000), []int{1010, 1014, 2027, 3027}, []int{9, 4, 4, -1}, []string{"1009+1", "2018+9"}},
		{"small packets", frames("DD", 100, 101), []int{109, 219}, []int{109, 110}, nil},
		{"many frames", strings.Repeat(frames("D", 1), 300), []int{3000}, whole(2999), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWalker(t, test.stream)
			if !w.tap.Walk(w.d, w.base, 0, nil) {
				t.Fatal("no room")
			}
			w.check(test.cuts, test.want)
			if diff := cmp.Diff(test.pieces, w.pieces(0, len(test.stream))); diff != "" {
				t.Errorf("pieces (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWalkOrder passes packets in another order than they were sent.
func TestWalkOrder(t *testing.T) {
	t.Run("frames of one length", func(t *testing.T) {
		w := newWalker(t, strings.Repeat(frames("D", 1991), 6))
		w.tap.Walk(w.d, w.base, 0, nil)
		got := []int{w.pass(0, 2500, 0), w.pass(5000, 7500, 0), w.pass(7500, 10000, 0), w.pass(2500, 5000, 0), w.pass(10000, 12000, 0)}
		if diff := cmp.Diff([]int{9, 0, -1, 0, -1}, got); diff != "" {
			t.Errorf("captured in place (-want +got):\n%s", diff)
		}
		for _, to := range []int{2500, 5000, 7500} {
			if diff := cmp.Diff([]string{fmt.Sprintf("%d+9", (to-1)/2000*2000)}, w.pieces(to-2500, to)); diff != "" {
				t.Errorf("pieces (-want +got):\n%s", diff)
			}
		}
	})
	for _, test := range []struct {
		name   string
		stream string
		order  [][2]int // packets, as they pass
		want   []int    // captured in place
	}{
		{
			"what starts a packet is a frame", frames("DDDD", 991, 1491, 1791, 2000),
			[][2]int{{1000, 2500}, {0, 1000}, {2500, 4300}, {4300, 6309}},
			[]int{1500, 9, 9, 9},
		}, {
			"and where it leads to is another", frames("DDDD", 991, 1491, 1791, 2000),
			[][2]int{{1000, 2500}, {2500, 4300}, {4300, 6309}, {0, 1000}},
			[]int{1500, 9, 9, 9},
		}, {
			"sent again", strings.Repeat(frames("D", 991), 6),
			[][2]int{{0, 2000}, {2000, 4000}, {0, 2000}, {1000, 4000}, {4000, 6000}},
			[]int{9, -1, 2000, 3000, -1},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWalker(t, test.stream)
			w.tap.Walk(w.d, w.base, 0, nil)
			var got []int
			for _, p := range test.order {
				got = append(got, w.pass(p[0], p[1], 0))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("captured in place (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRun has frames that are like the one before left out, and asks for them.
func TestRun(t *testing.T) {
	windows := func(n int) string { return strings.Repeat(frames("W", 4), n) }
	type ask struct{ at, of, want int } // how many from there on are like the frame at of
	for _, test := range []struct {
		name   string
		stream string
		cuts   []int
		want   []int // captured in place
		asks   []ask
	}{
		{"WINDOW_UPDATE", windows(5), []int{13, 26, 52, 65}, []int{13, -1, -1, -1}, []ask{{0, 0, 0}, {13, 0, 4}, {14, 0, 0}, {26, 0, 3}, {65, 0, 0}}},
		{"of another stream", windows(1) + windowUpdate(7) + windowUpdate(0), []int{13, 26, 39}, []int{13, -1, -1}, []ask{{13, 0, 2}}},
		{"DATA", frames("DDDDD", 500, 500, 500, 500, 500), []int{509, 1500, 2545}, []int{509, -1, -1}, []ask{{509, 0, 4}, {1018, 0, 3}, {1019, 0, 0}}},
		{"DATA of another length", frames("DDDD", 500, 500, 501, 501), []int{509, 1018, 1528, 2038}, []int{509, -1, 510, -1}, []ask{{509, 0, 1}, {1018, 0, 0}, {1528, 1018, 1}}},
		{"DATA of another stream", frames("D", 500) + strings.Replace(frames("D", 500), "\x01x", "\x02x", 1), []int{509, 1018}, []int{509, 509}, nil},
		{"END_STREAM", frames("DDE", 500, 500, 500), []int{509, 1018, 1527}, []int{509, -1, 509}, []ask{{509, 0, 1}}},
		{"PADDED", frames("PP", 500, 500), []int{509, 1018}, []int{509, 509}, nil},
		{"HEADERS between", frames("WWHWW", 4, 4, 30, 4, 4), []int{13, 26, 65, 78, 91}, []int{13, -1, 39, 13, -1}, []ask{{13, 0, 1}, {78, 65, 1}}},
		{"a packet that ends in a header", frames("DDD", 500, 500, 500), []int{509, 1023, 1527}, []int{509, 9, 504}, nil},
		{"more than one packet for a frame", frames("DDD", 500, 500, 500), []int{509, 700, 1018, 1200, 1527}, []int{509, -1, -1, -1, -1}, []ask{{509, 0, 2}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWalker(t, test.stream)
			w.tap.Walk(w.d, w.base, 0, nil)
			w.check(test.cuts, test.want)
			for _, a := range test.asks {
				if n := w.tap.LeftOut(w.d, w.base+uint32(a.at), []byte(test.stream[a.of:a.of+9])); n != a.want {
					t.Errorf("%d frames like that at %d are left out at %d, want %d", n, a.of, a.at, a.want)
				}
			}
		})
	}
	t.Run("not confirmed", func(t *testing.T) {
		w := newWalker(t, preface+windows(3))
		if got := []int{w.pass(0, 24, 0), w.pass(24, 37, 0), w.pass(37, 50, 0)}; !cmp.Equal(got, []int{24, 13, 13}) {
			t.Errorf("captured %d", got)
		}
	})
	t.Run("by two CPUs in turn", func(t *testing.T) {
		w := newWalker(t, windows(9))
		w.tap.Walk(w.d, w.base, 0, nil)
		got := w.pass(0, 13, 0)
		for i := 1; i < 9; i++ {
			pin(t, i%2)
			got += w.pass(13*i, 13*i+13, 0)
		}
		if got != 13-8 {
			t.Errorf("captured %d, want 13 of the first and of 8 nothing", got)
		}
		for at := 1; at < 9; {
			n := w.tap.LeftOut(w.d, w.base+13*uint32(at), []byte(w.stream[:9]))
			if n == 0 {
				t.Fatalf("nothing is left out behind frame %d", at)
			}
			at += n
		}
	})
	t.Run("no room for one that has ended", func(t *testing.T) {
		w := newWalker(t, windows(2)+frames("HWWD", 30, 4, 4, 0))
		w.tap.Walk(w.d, w.base, 0, nil)
		got := []int{w.pass(0, 13, 0), w.pass(13, 26, 0)}
		fillPieces(t, w.tap)
		// Nothing more is left out until there is.
		got = append(got, w.pass(26, 65, 0), w.pass(65, 78, 0), w.pass(78, 91, 0))
		if diff := cmp.Diff([]int{13, -1, 39, 13, 13}, got); diff != "" {
			t.Errorf("captured in place (-want +got):\n%s", diff)
		}
		if n := w.tap.LeftOut(w.d, w.base+13, []byte(w.stream[:9])); n != 1 {
			t.Errorf("%d frames are left out, want 1", n)
		}
	})
}

// TestPreface checks that the walk of both directions starts with a connection, and
// ends with it.
func TestPreface(t *testing.T) {
	w := newWalker(t, preface+frames("HD", 30, 2000)+frames("D", 2000))
	server := *w
	server.d, server.ends, server.base, server.stream = direction(server4, client4), [2]netip.AddrPort{server4, client4}, 0, frames("HDD", 30, 1000, 1000)
	if got := w.pass(0, 500, 0); got != 500 {
		t.Errorf("of the preface's packet %d bytes are captured, want 500", got)
	}
	if got := w.pass(500, 1500, 0); got != 0 {
		t.Errorf("of a payload %d bytes are captured, want none, but the packet", got)
	}
	w.tap.Walk(w.d, w.base+24, 0, nil)
	if got := w.pass(500, 1500, 0); got != -1 {
		t.Errorf("of a payload %d bytes are captured, and the packet", got)
	}
	if got := server.pass(0, 1500, 0); got != 48 {
		t.Errorf("of the server's first packet %d bytes are captured, want 48", got)
	}
	if got := w.pass(1500, 2072, packets.FIN); got != 0 {
		t.Errorf("of a payload with FIN %d bytes are captured, want none", got)
	}
	w.tap.Unwalk(w.d)
	w.tap.Walk(server.d, 48, 0, nil)
	w.pass(0, 500, 0)
	if got := server.pass(1500, 2000, 0); got != -1 {
		t.Errorf("after what may be a preface %d bytes of a payload that user space knows are captured", got)
	}
	w.tap.Unwalk(w.d)
	if got := w.pass(2072, 3000, 0); got != 928 {
		t.Errorf("after the walk was taken back %d bytes are captured, want 928", got)
	}
	captured(t, w.tap, packets.Segment{From: server4, To: client4, Flags: packets.SYN}.Bytes())
	if got := server.pass(0, 1500, 0); got != 1500 {
		t.Errorf("of a new connection on the same ports %d bytes are captured, want 1500", got)
	}
}

// TestCutEnd checks that of a packet that is cut the end is captured beside it.
func TestCutEnd(t *testing.T) {
	w := newWalker(t, strings.Repeat("x", 2985)+"the last bytes.")
	w.tap.Sized(true, 4*100)
	w.tap.Drained()
	if got := []int{w.pass(0, 1000, 0), w.pass(0, 3000, 0)}; !cmp.Equal(got, []int{1000, 2048}) {
		t.Errorf("captured %d", got)
	}
	if diff := cmp.Diff([]string{"2985+15"}, w.pieces(0, 3000)); diff != "" {
		t.Errorf("pieces (-want +got):\n%s", diff)
	}
}

// pin has the test go on at a CPU, counted among those that it may have.
func pin(t *testing.T, n int) {
	t.Helper()
	var all, one unix.CPUSet
	runtime.LockOSThread() // until the test ends: another would have its CPU too
	if err := unix.SchedGetaffinity(os.Getpid(), &all); err != nil {
		t.Fatal(err)
	}
	n %= all.Count()
	for cpu := 0; ; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if n == 0 {
			one.Set(cpu)
			break
		}
		n--
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
}

// fillPieces leaves no room for pieces.
func fillPieces(t *testing.T, tap *Tap) {
	other := &walker{t, tap, direction(client6, server6), [2]netip.AddrPort{client6, server6}, frames("DED", 600, 600, 600), 0}
	for before := tap.Counters().PiecesFull; tap.Counters().PiecesFull == before; {
		tap.Walk(other.d, 0, 0, nil)
		other.pass(0, len(other.stream), 0)
		slot, _ := tap.walk(tap.id(other.d))
		tap.clear(slot)
	}
}

// TestPieces fills the ring and the store of pieces.
func TestPieces(t *testing.T) {
	w := newWalker(t, frames("DED", 600, 600, 600))
	for i := range 10000 {
		if i == 5000 {
			w.tap.Drained()
		}
		w.tap.Walk(w.d, w.base, 0, nil)
		w.pass(0, len(w.stream), 0)
		slot, _ := w.tap.walk(w.tap.id(w.d))
		w.tap.clear(slot)
	}
	c := w.tap.Counters()
	if c.PiecesFull == 0 || c.Pieces+c.PiecesFull < 10000 {
		t.Errorf("%d pieces, %d found no room", c.Pieces, c.PiecesFull)
	}
	w.tap.Drained()
	if n := w.tap.pieces.n; n > maxPieces || w.tap.pieces.stale.Load() == 0 {
		t.Errorf("%d pieces wait, %d were forgotten", n, w.tap.pieces.stale.Load())
	}
	w.tap.Unwalk(w.d)
	w.tap.Walk(w.d, w.base, 0, nil)
	if got := w.pass(0, len(w.stream), 0); got != 9 {
		t.Errorf("captured %d bytes in place", got)
	}
	if diff := cmp.Diff([]string{"609+9", "1218+9"}, w.pieces(0, len(w.stream))); diff != "" {
		t.Errorf("pieces (-want +got):\n%s", diff)
	}
}
