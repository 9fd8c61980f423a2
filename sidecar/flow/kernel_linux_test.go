package flow_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// mustLoad loads the filter, or skips the test where that is not allowed.
func mustLoad(t testing.TB) *bpf.Tap {
	t.Helper()
	tap, err := bpf.Load()
	if errors.Is(err, unix.EPERM) && os.Getenv("REQUIRE_BPF") == "" {
		t.Skipf("needs CAP_BPF: %v", err)
	}
	if err == nil {
		err = tap.Walks()
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

// runInKernel returns the exchanges of packets that pass the filter in the kernel,
// which is lag packets ahead.
func runInKernel(t *testing.T, tap *bpf.Tap, all []capture.Packet, lag int) []string {
	t.Helper()
	var lines []string
	table := flow.NewTable(flow.Config{Skipper: tap, Walker: tap, Emit: func(x *exchange.Exchange) { lines = append(lines, h2Line(x)) }})
	replay(t, table, all, lag, inKernel(t, tap))
	slices.Sort(lines)
	return lines
}

// inKernel is the filter in the kernel.
func inKernel(t *testing.T, tap *bpf.Tap) func(int, capture.Packet) (capture.Packet, bool) {
	return func(_ int, p capture.Packet) (capture.Packet, bool) {
		n, err := tap.Run(p.Data)
		if err != nil {
			t.Fatal(err)
		}
		p.Data = p.Data[:min(n, len(p.Data))]
		return p, n > 0
	}
}

// TestCutChunks has packets of content in chunks cut, because nobody reads the ring:
// that the last of them ends the message shows in what is captured beside it.
func TestCutChunks(t *testing.T) {
	tap := mustLoad(t)
	c := &conversation{Rand: rand.New(rand.NewPCG(1, 2)), closed: true}
	c.say(0, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
	c.say(1, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("3e8\r\n"+strings.Repeat("x", 1000)+"\r\n", 20)+"0\r\n\r\n")
	w := newWire(c)
	w.segments = w.segments[:2]
	w.add(0, packets.ACK, 0, len(w.streams[0]), 0)
	for i, n := 0, len(w.streams[1]); i < n; i += 3000 {
		w.add(1, packets.ACK, i, min(i+3000, n), len(w.streams[0]))
	}
	w.segments[len(w.segments)-1].Flags |= packets.FIN
	tap.Sized(true, 4*4000)
	tap.Drained()
	var got []string
	table := flow.NewTable(flow.Config{Skipper: tap, Walker: tap, Emit: func(x *exchange.Exchange) { got = append(got, line(x)) }})
	replay(t, table, w.packets(), 1<<20, inKernel(t, tap))
	want := []string{client + " GET a.example / -> 200 complete, 0 up, -1 down"}
	if diff := cmp.Diff(want, got); diff != "" || tap.Counters().Cut == 0 {
		t.Errorf("%d packets cut; exchanges (-want +got):\n%s", tap.Counters().Cut, diff)
	}
}

// TestHugeBody has a body longer than half the space of sequence numbers left out, in
// frames that are so large that a run of few of them is as well.
func TestHugeBody(t *testing.T) {
	const size, n = 1 << 20, 6 << 10
	tap := mustLoad(t)
	var got []string
	table := flow.NewTable(flow.Config{Skipper: tap, Walker: tap, Emit: func(x *exchange.Exchange) {
		got = append(got, fmt.Sprintf("%d %s, %d down", x.Response.Status, x.Outcome, x.Response.BodySize))
	}})
	take := inKernel(t, tap)
	c := packets.Open(client, server, 0, 0)
	c.Request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01a", 0)
	c.Response("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88", 0)
	seq := uint32(1 + 9 + 10)
	send := func(frame string) { // no more of it than this is looked at
		s := packets.Segment{From: c.Server, To: c.Client, Seq: seq, Ack: 1 + 24 + 9 + 15, Flags: packets.ACK, Payload: frame}
		c.Packets = append(c.Packets, capture.Packet{At: c.At, Data: s.Bytes(), Len: 40 + len(frame)})
		seq += 9 + size
	}
	for range n {
		send("\x10\x00\x00\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 100))
	}
	send("\x00\x00\x00\x00\x01\x00\x00\x00\x01")
	for i, p := range c.Packets {
		if p, ok := take(i, p); ok {
			table.Packet(p)
		}
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("200 complete, %d down", n*size)}, got); diff != "" {
		t.Errorf("exchanges (-want +got):\n%s", diff)
	}
	if captured := table.Stats.Packets; captured > n/10 {
		t.Errorf("%d of %d packets are captured", captured, n)
	}
}

// TestPrefaceInContent has a request with content that looks like the start of HTTP/2,
// to the filter too: exchanges after it are lost, and counted, but not all of them.
func TestPrefaceInContent(t *testing.T) {
	tap := mustLoad(t)
	var got []string
	table := flow.NewTable(flow.Config{Skipper: tap, Walker: tap, Emit: func(x *exchange.Exchange) { got = append(got, line(x)) }})
	c := packets.Open(client, server, 0, 0)
	const post = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 24\r\n\r\n"
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	c.Request(post, 0).Request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0).Response(ok, 0)
	for range 4 {
		c.Request(request, 0).Response(ok, 0)
	}
	replay(t, table, c.Packets, 0, inKernel(t, tap))
	want := []string{client + " POST a.example / -> 200 complete, 24 up, 0 down"}
	for range 2 {
		want = append(want, client+" GET a.example /x -> 200 complete, 0 up, 0 down")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exchanges (-want +got):\n%s", diff)
	}
	if n := table.Exchanges().Seen; n != 5 {
		t.Errorf("%d requests are counted, want 5", n)
	}
}

// FuzzKernel has random connections of HTTP/2 pass the filter in the kernel, which
// walks their frames, and whose contents look like frames: nothing that is needed
// may be missing. If packets are sent again, out of order or lost, the walk may be
// mistaken: then exchanges are missing, but none is wrong.
func FuzzKernel(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed, seed)
	}
	tap := mustLoad(f)
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		client, server := newH2End(r), newH2End(r)
		client.large, server.large = true, a%3 > 0
		c := newH2ConversationBetween(client, server, 1+int(a%30))
		w := newWire(c)
		w.most(3000) // what the kernel runs a filter on
		check := func(how string, got []string) {
			t.Helper()
			if diff := cmp.Diff(c.exchanges, got); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", how, diff)
			}
		}
		before := tap.Counters()
		check("as sent", runInKernel(t, tap, w.packets(), c.IntN(20)))
		check("as sent, long ago", runInKernel(t, tap, w.packets(), 1<<20))
		after := tap.Counters()
		w.retransmit()
		w.duplicate()
		checkAmong(t, c.exchanges, runInKernel(t, tap, w.packets(), c.IntN(200)))
		w.reorder(2+c.IntN(20), 2)
		got := runInKernel(t, tap, w.packets(), c.IntN(200))
		checkAmong(t, c.exchanges, got)
		w.lose(2+c.IntN(30), 2)
		checkAmong(t, c.exchanges, runInKernel(t, tap, w.packets(), c.IntN(200)))
		t.Logf("%d bytes left out, %d pieces; %d of %d exchanges out of order", after.OmittedBytes-before.OmittedBytes, after.Pieces-before.Pieces, len(got), len(c.exchanges))
	})
}
