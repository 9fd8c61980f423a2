package sidecar_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// BenchmarkPipelineFrames measures a download of 10 MB over HTTP/2, from captured
// packets to an exchange.Exchange.
func BenchmarkPipelineFrames(b *testing.B) {
	n := 0
	d := newDownload(func(*exchange.Exchange) { n++ })
	b.ReportAllocs()
	for b.Loop() {
		d.run()
	}
	if n != b.N {
		b.Errorf("%d exchanges of %d", n, b.N)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*dataPackets*(1+windowUpdates)), "ns/packet")
}

// What a download is made of, as nginx sends it to Go's client.
const (
	dataFrame       = 8 << 10 // bytes of content
	framesPerPacket = 3
	dataPackets     = 10_000_000 / (framesPerPacket * dataFrame)
	windowUpdates   = 3 // packets for each of DATA
)

// download is an HTTP/2 connection with a download after the other, captured as the
// filter that walks frames does: of a packet with DATA the first header is in place,
// the others are pieces.
type download struct {
	table  *flow.Table
	at     int64
	seq    [2]uint32
	stream uint32

	request, response, data, update, end []byte // packets
	piece                                [9]byte
}

func newDownload(emit func(*exchange.Exchange)) *download {
	ends := [2]netip.AddrPort{netip.MustParseAddrPort("10.244.1.7:40000"), netip.MustParseAddrPort("10.244.2.9:8080")}
	segment := func(from int, payload string) []byte {
		return packets.Segment{From: ends[from], To: ends[1-from], Flags: packets.ACK, Payload: payload}.Bytes()
	}
	block := func(fields ...hpack.HeaderField) string {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		e.SetMaxDynamicTableSize(0)
		for _, f := range fields {
			_ = e.WriteField(f)
		}
		return b.String()
	}
	d := &download{}
	d.request = segment(0, frame(1, 5, block(
		hpack.HeaderField{Name: ":method", Value: "GET"}, hpack.HeaderField{Name: ":scheme", Value: "http"},
		hpack.HeaderField{Name: ":authority", Value: "files.shop.svc:8080"}, hpack.HeaderField{Name: ":path", Value: "/download"})))
	d.response = segment(1, frame(1, 4, block(
		hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-type", Value: "application/octet-stream"})))
	data := frame(0, 0, strings.Repeat("x", dataFrame))
	copy(d.piece[:], data)
	d.data = segment(1, strings.Repeat(data, framesPerPacket))
	d.data = d.data[:len(d.data)-len(data)*framesPerPacket+len(d.piece)]
	d.update = segment(0, frame(8, 0, "\x00\x00\x10\x00"))
	d.end = segment(1, frame(0, 1, ""))
	d.table = flow.NewTable(flow.Config{Skipper: noSkips{}, Walker: d, Emit: emit})
	c := packets.Open(ends[0].String(), ends[1].String(), 0, 0)
	c.Request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(4, 0, ""), 0).Response(frame(4, 0, ""), 0)
	for _, p := range c.Packets {
		d.table.Packet(p)
		d.at = p.At
	}
	d.seq = [2]uint32{1 + 24 + 9, 1 + 9}
	return d
}

func frame(kind, flags byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, 0, 0}) + payload
}

func (*download) Walk(*bpf.Direction, uint32, uint32, []byte) bool { return true }
func (*download) LeftOut(*bpf.Direction, uint32, []byte) int       { return 0 }
func (*download) Unwalk(*bpf.Direction)                            {}

// Piece returns the header of the frame that starts at from or behind it.
func (d *download) Piece(_ *bpf.Direction, from, to uint32) (seq uint32, b []byte, ok bool) {
	const size = dataFrame + 9
	seq = d.seq[1] + (from-d.seq[1]+size-1)/size*size
	return seq, d.piece[:], int32(seq-to) < 0
}

// send has a packet captured that has n bytes of payload, and a frame of the
// current stream.
func (d *download) send(from int, packet []byte, n uint32) {
	const headers, seqAt, ackAt, streamAt = 40, 24, 28, 45
	d.at += 10_000
	binary.BigEndian.PutUint32(packet[seqAt:], d.seq[from])
	binary.BigEndian.PutUint32(packet[ackAt:], d.seq[1-from])
	binary.BigEndian.PutUint32(packet[streamAt:], d.stream)
	d.table.Packet(capture.Packet{At: d.at, Data: packet, Len: headers + int(n), Out: from == 1})
	d.seq[from] += n
}

// run makes an exchange.
func (d *download) run() {
	const headers = 40
	size := func(packet []byte) uint32 { return uint32(len(packet) - headers) }
	if d.stream == 0 {
		d.stream = 1
	} else {
		d.stream += 2
	}
	d.send(0, d.request, size(d.request))
	d.send(1, d.response, size(d.response))
	binary.BigEndian.PutUint32(d.piece[5:], d.stream)
	for range dataPackets {
		d.send(1, d.data, framesPerPacket*(dataFrame+9))
		for range windowUpdates {
			d.send(0, d.update, size(d.update))
		}
	}
	d.send(1, d.end, size(d.end))
}
