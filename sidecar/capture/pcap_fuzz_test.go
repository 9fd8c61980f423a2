package capture

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// FuzzFile: no content makes the reader panic, run on, return a packet that
// breaks its promises, or take memory beyond its window and interfaces.
func FuzzFile(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.pcap*")
	if err != nil || len(paths) == 0 {
		f.Fatal(paths, err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 2000)])
	}
	for _, link := range []uint16{linkNull, linkEthernet, linkPPPHDLC, linkIEEE80211, linkRadiotap, linkNFLOG, linkLinuxSLL} {
		f.Add(newClassic(big, 0xa1b2cd34, uint32(link)).record(1, 2, 20, ipv4(1)).b)
		f.Add(newNg(little).iface(link, 64).enhanced(0, 1, 40, ipv6()).block(blockSimplePacket, []byte{40, 0, 0, 0}, ipv6()).b)
	}
	f.Add(zip(newClassic(little, 0xa1b2c3d4, linkRaw).record(1, 2, 20, ipv4(1)).b))

	f.Fuzz(func(t *testing.T, b []byte) {
		all, stats, err := readAll(t, bytes.NewReader(b))
		// 12 bytes are the least that a block takes; gzip makes a thousand of one.
		if stats.Records > uint64(len(b))*1100/blockMinLen {
			t.Errorf("%d records in %d bytes", stats.Records, len(b))
		}
		if err != nil && errors.Is(err, io.EOF) {
			t.Errorf("a fault that is the end of the file: %v", err)
		}
		if len(b) > 0 && (len(b) < 2 || b[0] != 0x1f) {
			checkCut(t, b, all)
		}
	})
}

// checkCut: less of the same file gives the same packets, only fewer.
func checkCut(t *testing.T, b []byte, all []got) {
	less, _, _ := readAll(t, bytes.NewReader(b[:len(b)-1-len(b)/3]))
	if len(less) > len(all) {
		t.Fatalf("%d packets of a part, %d of the whole", len(less), len(all))
	}
	for i := range less {
		if less[i] != all[i] {
			t.Fatalf("packet %d of a part: %+v, of the whole: %+v", i, less[i], all[i])
		}
	}
}

// Files that claim much and have little take no more than the window.
func TestBoundedMemory(t *testing.T) {
	record := newClassic(little, 0xa1b2c3d4, linkRaw)
	record.words(1, 0, maxPacket, 1<<32-1)
	blocks := newNg(little).iface(linkRaw, 1<<32-1)
	blocks.b = append(blocks.b, 6, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff)
	blocks.b = append(blocks.b, make([]byte, 4*windowSize)...)
	bomb := zip(blocks.b)
	for name, b := range map[string][]byte{"pcap": record.b, "pcapng": blocks.b, "gzip": bomb} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readAll(t, bytes.NewReader(b))
		runtime.ReadMemStats(&after)
		// gzip has a window of its own, and the compressed content one of ours.
		if n := after.TotalAlloc - before.TotalAlloc; n > 2*windowSize+256<<10 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
