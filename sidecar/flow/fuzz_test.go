package flow_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// payloads are what the segments of FuzzTable carry parts of.
var payloads = []string{
	get("/a"), ok("hello"), "POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "GET ",
}

// FuzzTable gives a table whatever a network could: any flags and sequence and
// acknowledgement numbers, near what is expected or not, packets that are cut off
// or no packets at all, clocks that jump. Nothing may crash, go on for ever or
// grow, and the accounts balance.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00\x12\x01\x00\x00\x00\x00\x00\x00\x10\x00\x01\x00\x01\x00\xff\x00\x10\x01\x01\x00\x40\x11\xff\x00"), false)
	f.Add([]byte("\x10\x00\x00\x00\x00\x00\xff\x00\x10\x01\x30\x00\x40\x01\x30\x00\x11\x00\x30\x00\x00\x00\x00\x00\x14\x01\x30\x00\x40\x00\x00\x00"), true)
	f.Add([]byte("\x10\x00\x00\x00\x00\x02\xff\x00\x10\x01\x30\x00\x40\x03\x30\x00\x10\x00\x30\xc0\x40\x04\xff\x10\x10\x01\x30\xff\x40\x00\xff\xff"), true)
	f.Fuzz(func(t *testing.T, input []byte, filtered bool) {
		emitted := 0
		config := flow.Config{
			Exchange: exchange.Limits{Head: 2000, Buffered: 8000}, Connections: 3, Late: 3000,
			Emit: func(*exchange.Exchange) { emitted++ },
		}
		skips := &counter{make(map[bpf.Direction]bool)}
		if filtered {
			config.Skipper = skips
		}
		table := flow.NewTable(config)
		now := int64(1_700_000_000_000_000_000)
		for ; len(input) >= 8; input = input[8:] {
			p := fuzzPacket(input, &now)
			table.Packet(p)
			if s := &table.Stats; s.LateBytes < 0 || s.LateBytes > 3000 || table.Exchanges().HeldBytes > 8000 || table.Exchanges().HeldBytes < 0 {
				t.Fatalf("%d bytes wait, %d are held", s.LateBytes, table.Exchanges().HeldBytes)
			}
		}
		table.Packet(capture.Packet{At: now, Data: input, Len: len(input)})
		table.Tick(now + 3600e9)
		table.Close(now + 3600e9)
		checkAccounts(t, table)
		if len(skips.noted) > 0 {
			t.Errorf("the filter still leaves out %v", skips.noted)
		}
	})
}

// fuzzPacket makes a packet of eight bytes: flags; connection, direction and
// version; sequence number; acknowledgement number; time, payload; its length and
// what of it was captured.
func fuzzPacket(b []byte, now *int64) capture.Packet {
	addr := []string{"10.0.0.1", "10.0.0.2", "fe80::1", "fe80::2"}
	version := int(b[1] >> 4 & 2)
	ends := [2]netip.AddrPort{
		netip.AddrPortFrom(netip.MustParseAddr(addr[version]), 40000+uint16(b[1]>>1&3)),
		netip.AddrPortFrom(netip.MustParseAddr(addr[version+1]), 80),
	}
	from := int(b[1] & 1)
	payload := payloads[b[5]&7]
	for b[5]&0x40 != 0 && len(payload) < 20000 {
		payload += payload
	}
	payload = payload[:min(len(payload), int(b[6])*64)]
	s := packets.Segment{
		From: ends[from], To: ends[1-from], Flags: b[0], Payload: payload,
		Seq: number(b[2], b[3]), Ack: number(b[4], b[3]>>2),
	}
	*now += int64(b[5]>>3&7) * 100e6
	if b[5]&0x80 != 0 {
		*now -= 1e9
	}
	data := s.Bytes()
	n := len(data)
	if b[7]&1 != 0 { // cut off
		data = data[:min(len(data), int(b[7]))]
	}
	if b[7]&2 != 0 && len(data) > 40 { // broken
		at := int(b[7]) % 40
		data[at] ^= b[6]
	}
	return capture.Packet{At: *now, Data: data, Len: n}
}

// number returns a sequence number that is often near others.
func number(b, far byte) uint32 {
	switch far & 3 {
	case 1:
		return uint32(b) << 8
	case 2:
		return binary.BigEndian.Uint32([]byte{b, 0, 0, b})
	case 3:
		return uint32(-int32(b))
	}
	return uint32(b)
}

// counter is a filter that leaves nothing out, and counts the ranges it is told.
type counter struct{ noted map[bpf.Direction]bool }

func (c *counter) Skip(d *bpf.Direction, _, _ uint32, _ bool) bool { c.noted[*d] = true; return true }
func (c *counter) Forget(d *bpf.Direction)                         { delete(c.noted, *d) }
