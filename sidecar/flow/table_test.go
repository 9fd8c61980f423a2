package flow_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

const (
	client = "10.0.0.1:40000"
	server = "10.0.0.2:80"
)

// run returns a line for each exchange that the packets make, and checks the
// accounting.
func run(t testing.TB, all []capture.Packet) []string {
	t.Helper()
	var lines []string
	replay(t, flow.NewTable(flow.Config{Emit: func(x *exchange.Exchange) { lines = append(lines, line(x)) }}), all, 0, everything)
	return lines
}

// replay has a table take what a filter, which is lag packets ahead, captures of
// packets, ends the capture and checks the accounts.
func replay(t testing.TB, table *flow.Table, all []capture.Packet, lag int, filter func(i int, p capture.Packet) (capture.Packet, bool)) {
	t.Helper()
	var ring []capture.Packet
	var last int64
	for i, p := range all {
		last = max(last, p.At)
		if p, ok := filter(i, p); ok {
			ring = append(ring, p)
		}
		if len(ring) > lag {
			table.Packet(ring[0])
			ring = ring[1:]
		}
	}
	for _, p := range ring {
		table.Packet(p)
	}
	table.Close(last)
	checkAccounts(t, table)
}

// everything is what a filter captures that leaves out nothing.
func everything(_ int, p capture.Packet) (capture.Packet, bool) { return p, true }

func line(x *exchange.Exchange) string {
	return fmt.Sprintf("%s %s %s %s -> %d %s, %d up, %d down", x.Peers.Client, x.Request.Method,
		x.Request.Host, x.Request.Target, x.Response.Status, x.Outcome, x.Request.BodySize, x.Response.BodySize)
}

func checkAccounts(t testing.TB, table *flow.Table) {
	t.Helper()
	s := table.Exchanges()
	accounted := uint64(0)
	for _, n := range s.Outcomes {
		accounted += n
	}
	for _, n := range s.Dropped {
		accounted += n
	}
	if s.Seen != accounted || s.InFlight != 0 || s.HeldBytes != 0 {
		t.Errorf("seen %d, accounted for %d, in flight %d, bytes held %d", s.Seen, accounted, s.InFlight, s.HeldBytes)
	}
	if table.Stats.LateBytes != 0 || table.Stats.Open != 0 {
		t.Errorf("after the end %d bytes wait, %d connections are open", table.Stats.LateBytes, table.Stats.Open)
	}
}

func get(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: a.example\r\n\r\n" }

func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestSegmentation(t *testing.T) {
	for _, size := range []int{1, 2, 3, 7, 100, 0} {
		c := packets.Open(client, server, 0xffffff00, 5) // wraps around in the first request's successors
		for i := range 10 {
			c.Request(get(fmt.Sprint("/", i)), size).Response(ok(strings.Repeat("x", i*37)), size)
		}
		c.CloseClient().CloseServer()
		var expected []string
		for i := range 10 {
			expected = append(expected, fmt.Sprintf("%s GET a.example /%d -> 200 complete, 0 up, %d down", client, i, i*37))
		}
		if diff := cmp.Diff(expected, run(t, c.Packets)); diff != "" {
			t.Errorf("segments of %d bytes (-want +got):\n%s", size, diff)
		}
	}
}

// TestAnyOrder shuffles and duplicates packets, those of the handshake excepted.
func TestAnyOrder(t *testing.T) {
	c := packets.Open(client, server, 1, 1)
	for i := range 20 {
		c.Request(get(fmt.Sprint("/", i)), 11).Response(ok(strings.Repeat("GET / HTTP/1.1\r\n\r\n", i)), 50)
	}
	c.CloseClient().CloseServer()
	expected := run(t, c.Packets)
	if len(expected) != 20 {
		t.Fatalf("%d exchanges, want 20", len(expected))
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		all := append([]capture.Packet(nil), c.Packets...)
		for range 30 {
			all = append(all, c.Packets[2+r.IntN(len(c.Packets)-2)])
		}
		const reach = 30
		for i := 2; i < len(all); i++ {
			j := min(i+r.IntN(reach), len(all)-1)
			all[i], all[j] = all[j], all[i]
		}
		if diff := cmp.Diff(expected, run(t, all)); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
}

// TestLoss drops packets: there must be fewer exchanges, never others.
func TestLoss(t *testing.T) {
	c := packets.Open(client, server, 1, 1)
	for i := range 40 {
		c.Request(get(fmt.Sprint("/", i)), 30)
		if i%3 == 0 {
			body := strings.Repeat("5\r\nGET /\r\n", 5)
			c.Response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+body+"0\r\n\r\n", 40)
		} else {
			c.Response(ok(strings.Repeat("HTTP/1.1 200 OK\r\n\r\n", i)), 60)
		}
	}
	c.CloseClient().CloseServer()
	whole := run(t, c.Packets)
	total := 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var some []capture.Packet
		for _, p := range c.Packets {
			if r.IntN(50) > 0 {
				some = append(some, p)
			}
		}
		got := run(t, some)
		checkAmong(t, whole, got)
		total += len(got)
	}
	t.Logf("%.1f of 40 exchanges at 2%% loss", float64(total)/200)
}

// TestChunksAdrift loses a part of content in chunks, of the last response on a
// connection that stays open.
func TestChunksAdrift(t *testing.T) {
	c := packets.Open(client, server, 1, 1).Request(get("/"), 0)
	for _, part := range []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n\r\n"} {
		c.Response(part, 0)
	}
	all := c.Packets
	part := len(all) - 2
	for !strings.HasSuffix(string(all[part].Data), "hello\r\n") {
		part--
	}
	all = slices.Delete(all, part, part+1)
	var lines []string
	var end int64
	table := flow.NewTable(flow.Config{Emit: func(x *exchange.Exchange) { lines, end = append(lines, line(x)), x.End }})
	for _, p := range all {
		table.Packet(p)
	}
	last := all[len(all)-1].At
	for i := range int64(150) { // the hole is waited for 10 s
		if table.Tick(last + i*1e8); i < 4 && len(lines) > 0 {
			t.Errorf("the response ended after %d ms of silence", i*100)
		}
	}
	if want := []string{"10.0.0.1:40000 GET a.example / -> 200 complete, 0 up, -1 down"}; !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	t.Logf("ended %d ns before the last packet", last-end)
	table.Close(last)
	checkAccounts(t, table)
}

// TestCapturedTwice reads a connection twice, one after the other, as from two
// interfaces whose packets a file holds apart.
func TestCapturedTwice(t *testing.T) {
	c := packets.Open(client, server, 1, 1).Request(get("/"), 0).Response(ok("x"), 0).CloseClient().CloseServer()
	if got := run(t, append(c.Packets, c.Packets...)); len(got) != 1 {
		t.Errorf("got %q, want one exchange", got)
	}
}
