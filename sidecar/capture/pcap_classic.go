package capture

import (
	"encoding/binary"
	"fmt"
)

// pcap is the classic format, draft-ietf-opsawg-pcap: a header of 24 bytes,
// then records of a header and data without end mark or check.
type pcap struct {
	win     *window
	order   binary.ByteOrder
	kind    *pcapKind
	link    uint16
	swapped bool // a version in which the two lengths may be exchanged
}

type pcapKind struct {
	magic     uint32
	nanos     int64 // per unit of the timestamps' fraction
	recordLen int   // bytes of a record header
}

var pcapKinds = []pcapKind{
	{magic: 0xa1b2c3d4, nanos: 1000, recordLen: 16},
	{magic: 0xa1b23c4d, nanos: 1, recordLen: 16},
	// Alexey Kuznetzov's patched libpcap: interface, protocol and packet type
	// follow the lengths.
	{magic: 0xa1b2cd34, nanos: 1000, recordLen: 24},
}

const pcapHeaderLen = 24

// maxPacket is the largest packet that is read, in bytes. It is libpcap's
// MAXIMUM_SNAPLEN and Wireshark's WTAP_MAX_PACKET_SIZE_STANDARD.
const maxPacket = 256 << 10

// pcapMagic tells the byte order and kind of a classic file by its first four
// bytes; nil if it is none.
func pcapMagic(head []byte) (binary.ByteOrder, *pcapKind) {
	for i := range pcapKinds {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			if order.Uint32(head) == pcapKinds[i].magic {
				return order, &pcapKinds[i]
			}
		}
	}
	return nil, nil
}

func newPcap(w *window, order binary.ByteOrder, kind *pcapKind) (*pcap, error) {
	head, err := w.whole(pcapHeaderLen, "file header")
	if err != nil {
		return nil, err
	}
	major, minor := order.Uint16(head[4:]), order.Uint16(head[6:])
	if major != 2 {
		return nil, fmt.Errorf("pcap version %d.%d: only 2.x is read", major, minor)
	}
	return &pcap{
		win: w, order: order, kind: kind,
		// The upper half has the length of a frame check sequence, which the
		// IP length excludes from a packet anyhow.
		link: uint16(order.Uint32(head[20:])),
		// libpcap's sf-pcap.c: exchanged before 2.3, either way in 2.3.
		swapped: minor <= 3,
	}, nil
}

func (p *pcap) next(r *record) error {
	w := p.win
	if err := w.advance(); err != nil {
		return w.fault(err)
	}
	n := p.kind.recordLen
	head, err := w.head(n, "header of the record")
	if err != nil {
		return err
	}
	captured, wire := p.order.Uint32(head[8:]), p.order.Uint32(head[12:])
	if p.swapped && captured > wire {
		captured, wire = wire, captured
	}
	if captured > maxPacket {
		return fmt.Errorf("record at %s: %d captured bytes, more than the %d of any packet (is the file damaged?)",
			w.place(), captured, maxPacket)
	}
	b, err := w.whole(n+int(captured), "record")
	if err != nil {
		return err
	}
	r.link, r.order = p.link, p.order
	r.at = int64(p.order.Uint32(b))*1e9 + int64(p.order.Uint32(b[4:]))*p.kind.nanos
	r.data, r.wireLen = b[n:], wire
	return nil
}
