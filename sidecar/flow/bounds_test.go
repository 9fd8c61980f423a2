package flow_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// TestBounds attacks a table in the ways that fill it, with a healthy connection
// beside: that one is reported whole, and memory stays within what the table may
// cost. What it may cost leaves room for the rest of the sidecar in 48 MiB.
func TestBounds(t *testing.T) {
	const most = 24 << 20 // bytes of heap in use
	endless := func(start, more string, conns, n int) func(func(capture.Packet)) {
		return func(packet func(capture.Packet)) {
			for i := range conns {
				c := packets.Open(attacker(i), server, 1, 1)
				c.Packets = c.Packets[:0]
				c.Request(start, 0)
				for range n {
					c.Request(more, 0)
				}
				for _, p := range c.Packets {
					packet(p)
				}
			}
		}
	}
	for _, test := range []struct {
		name   string
		attack func(packet func(capture.Packet))
	}{
		{"a million half-open connections", func(packet func(capture.Packet)) {
			for i := range 1_000_000 {
				s := packets.Segment{From: netip.MustParseAddrPort(server), To: netip.MustParseAddrPort(server), Seq: uint32(i), Flags: packets.SYN}
				s.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 40000)
				b := s.Bytes()
				packet(capture.Packet{At: start, Data: b, Len: len(b)})
			}
		}},
		{"100,000 half-sent heads", endless("GET / HTTP/1.1\r\nHost: a.example\r\nX: ", strings.Repeat("x", 500), 100_000, 1)},
		{"endless heads", endless("GET / HTTP/1.1\r\nX: ", strings.Repeat("x", 1400), 2000, 60)},
		{"endless chunk extensions", endless("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;", strings.Repeat("x", 1400), 2000, 60)},
		{"requests without end", endless(get("/"), strings.Repeat(get("/"), 20), 2000, 20)},
		{"segments that wait", func(packet func(capture.Packet)) {
			for i := range 5000 {
				s := packets.Segment{To: netip.MustParseAddrPort(server), From: netip.MustParseAddrPort(attacker(i)), Flags: packets.ACK, Payload: get("/")}
				for n := range 20 {
					s.Seq = uint32(n * 100_000)
					b := s.Bytes()
					packet(capture.Packet{At: start, Data: b, Len: len(b)})
				}
			}
		}},
		{"segments behind a hole, on one connection after another", func(packet func(capture.Packet)) {
			for i := range 5000 {
				s := packets.Segment{To: netip.MustParseAddrPort(server), From: netip.MustParseAddrPort(attacker(i)), Flags: packets.SYN}
				b := s.Bytes()
				packet(capture.Packet{At: start, Data: b, Len: len(b)})
				s.Flags, s.Seq, s.Payload = packets.ACK, 1001, get("/")
				for range 200 {
					b := s.Bytes()
					packet(capture.Packet{At: start, Data: b, Len: len(b)})
					s.Seq += uint32(len(s.Payload))
				}
			}
		}},
		{"HTTP/2 streams", endless("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x00\x01\x01\x04\x00\x00\x00\x01\x82", 9000, 5)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			table := flow.NewTable(flow.Config{Emit: func(x *exchange.Exchange) {
				if x.Peers.Client == netip.MustParseAddrPort(client) {
					got = append(got, line(x))
				}
			}})
			healthy := packets.Open(client, server, 1, 1)
			feed := func() {
				for _, p := range healthy.Packets {
					table.Packet(p)
				}
				healthy.Packets = nil
			}
			feed()
			peak, n, exchanges := uint64(0), 0, 0
			test.attack(func(p capture.Packet) {
				if n++; n%2000 == 0 {
					healthy.Request(get("/"), 0).Response(ok("x"), 0)
					exchanges++
					feed()
				}
				if n%50_000 == 0 {
					peak = max(peak, heap())
				}
				table.Packet(p)
			})
			peak = max(peak, heap())
			if len(got) != exchanges || exchanges == 0 {
				t.Errorf("%d healthy exchanges reported of %d", len(got), exchanges)
			}
			if peak > most {
				t.Errorf("%d KiB of heap in use, may be %d", peak>>10, most>>10)
			}
			t.Logf("%d packets, %d healthy exchanges, %d KiB of heap in use", n, len(got), peak>>10)
			table.Close(start)
			checkAccounts(t, table)
		})
	}
}

const start = int64(1_700_000_000_000_000_000)

func attacker(i int) string { return fmt.Sprintf("10.1.%d.%d:%d", i>>8&0xff, i&0xff, 40000+i>>16) }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
