package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

var (
	little = binary.LittleEndian
	big    = binary.BigEndian
)

// appendOrder is what both byte orders are.
type appendOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// ipv4 is a minimal IPv4 packet: its identification makes it recognisable.
func ipv4(id byte) []byte {
	return []byte{0x45, 0, 0, 20, 0, id, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
}

func ipv6() []byte { return append([]byte{0x60, 0, 0, 0, 0, 0, 59, 64}, make([]byte, 32)...) }

// classic builds pcap files.
type classic struct {
	appendOrder
	b      []byte
	extend int // bytes that a record header has more than usual
}

func newClassic(o appendOrder, magic uint32, link uint32) *classic {
	c := &classic{appendOrder: o}
	c.words(magic)
	c.b = o.AppendUint16(o.AppendUint16(c.b, 2), 4)
	c.words(0, 0, 65535, link)
	return c
}

func (c *classic) words(v ...uint32) {
	for _, v := range v {
		c.b = c.AppendUint32(c.b, v)
	}
}

func (c *classic) record(sec, frac uint32, wire int, data []byte) *classic {
	c.words(sec, frac, uint32(len(data)), uint32(wire))
	c.b = append(append(c.b, make([]byte, c.extend)...), data...)
	return c
}

// ng builds pcapng files.
type ng struct {
	appendOrder
	b []byte
}

func newNg(o appendOrder) *ng { return (&ng{appendOrder: o}).section(o) }

func (g *ng) section(o appendOrder) *ng {
	g.appendOrder = o
	body := o.AppendUint32(nil, 0x1a2b3c4d)
	body = o.AppendUint16(o.AppendUint16(body, 1), 0)
	return g.block(blockSection, o.AppendUint64(body, ^uint64(0)))
}

func (g *ng) block(typ uint32, parts ...[]byte) *ng {
	body := bytes.Join(parts, nil)
	body = append(body, make([]byte, -len(body)&3)...)
	n := uint32(len(body) + blockMinLen)
	g.b = g.AppendUint32(g.AppendUint32(g.b, typ), n)
	g.b = g.AppendUint32(append(g.b, body...), n)
	return g
}

func (g *ng) words(v ...uint32) (b []byte) {
	for _, v := range v {
		b = g.AppendUint32(b, v)
	}
	return b
}

func (g *ng) iface(link uint16, snap uint32, options ...[]byte) *ng {
	head := g.AppendUint16(g.AppendUint16(nil, link), 0)
	return g.block(blockInterface, g.AppendUint32(head, snap), bytes.Join(options, nil))
}

func (g *ng) option(code uint16, value ...byte) []byte {
	b := g.AppendUint16(g.AppendUint16(nil, code), uint16(len(value)))
	return append(append(b, value...), make([]byte, -len(value)&3)...)
}

func (g *ng) enhanced(id uint32, stamp uint64, wire int, data []byte, options ...[]byte) *ng {
	padded := append(bytes.Clone(data), make([]byte, -len(data)&3)...)
	return g.enhancedOf(id, stamp, int64(len(data)), wire, padded, options...)
}

func (g *ng) enhancedOf(id uint32, stamp uint64, captured int64, wire int, data []byte, options ...[]byte) *ng {
	head := g.words(id, uint32(stamp>>32), uint32(stamp), uint32(captured), uint32(wire))
	return g.block(blockEnhancedPacket, head, data, bytes.Join(options, nil))
}

// got is a packet with data of its own.
type got struct {
	At   int64
	Data string
	Len  int
}

// readAll returns the packets of a file and the error it ends with, nil for io.EOF.
func readAll(t testing.TB, r io.Reader) ([]got, FileStats, error) {
	t.Helper()
	f, err := NewFile(r, "x.pcap")
	if err != nil {
		return nil, FileStats{}, err
	}
	var all []got
	for {
		p, err := f.Next()
		if err != nil {
			if _, again := f.Next(); !errors.Is(again, err) {
				t.Errorf("Next returned %v and then %v", err, again)
			}
			checkStats(t, f.Stats(), len(all))
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return all, f.Stats(), err
		}
		if len(p.Data) > p.Len || p.Out || len(p.Data) < 20 {
			t.Fatalf("packet of %d bytes, %d captured, out %v", p.Len, len(p.Data), p.Out)
		}
		all = append(all, got{p.At, string(p.Data), p.Len})
	}
}

func checkStats(t testing.TB, s FileStats, packets int) {
	t.Helper()
	sum := s.Packets
	for reason, n := range s.Skipped {
		if n == 0 {
			t.Errorf("skipped %v counted 0 times", reason)
		}
		sum += n
	}
	if s.Packets != uint64(packets) || s.Records != sum {
		t.Errorf("%d packets returned, counted %+v", packets, s)
	}
}
