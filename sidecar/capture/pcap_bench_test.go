package capture

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
)

const benchPackets = 100_000

// benchFiles has files of Ethernet frames of 200 bytes.
func benchFiles() map[string][]byte {
	data := append(append(append(make([]byte, 12), 8, 0), ipv4(1)...), make([]byte, 166)...)
	c := newClassic(little, 0xa1b2c3d4, linkEthernet)
	g := newNg(little).iface(linkEthernet, 0)
	epb := newNg(little)
	head := len(epb.b)
	epb.enhanced(0, 1_700_000_000_000_000, len(data), data, epb.option(2, 1, 0, 0, 0))
	for i := range benchPackets {
		c.record(uint32(i), 0, len(data), data)
		g.b = append(g.b, epb.b[head:]...)
	}
	return map[string][]byte{"pcap": c.b, "pcapng": g.b}
}

func BenchmarkFile(b *testing.B) {
	for name, file := range benchFiles() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				f, err := NewFile(bytes.NewReader(file), name)
				for err == nil {
					_, err = f.Next()
				}
				if !errors.Is(err, io.EOF) || f.Stats().Packets != benchPackets {
					b.Fatal(err, f.Stats())
				}
			}
			b.ReportMetric(float64(b.N)*benchPackets/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

// BenchmarkPcapgo is the yardstick for BenchmarkFile: gopacket's readers over
// the same files, without taking link headers off.
func BenchmarkPcapgo(b *testing.B) {
	for name, file := range benchFiles() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				if n := readWithPcapgo(b, file); n != benchPackets {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(b.N)*benchPackets/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

func readWithPcapgo(b *testing.B, file []byte) (n int) {
	if r, err := pcapgo.NewReader(bytes.NewReader(file)); err == nil {
		for ; err == nil; n++ {
			_, _, err = r.ZeroCopyReadPacketData()
		}
		return n - 1
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		b.Fatal(err)
	}
	for ; err == nil; n++ {
		_, _, err = r.ZeroCopyReadPacketData()
	}
	return n - 1
}

// No packet costs an allocation.
func TestAllocations(t *testing.T) {
	for name, file := range benchFiles() {
		f, err := NewFile(bytes.NewReader(file), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(10_000, func() { _, _ = f.Next() }); n != 0 {
			t.Errorf("%s: %v allocations for each packet", name, n)
		}
	}
}
