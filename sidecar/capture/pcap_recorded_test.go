package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRecorded holds recorded captures against what tshark reads in them
// (testdata/describe.sh).
func TestRecorded(t *testing.T) {
	skipped := map[string]map[Skip]uint64{"interfaces.pcapng": {SkipNotIP: 4}} // ARP
	paths, err := filepath.Glob("testdata/*.pcap*")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(path, filepath.Ext(path)) + ".tshark")
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var got strings.Builder
			for {
				p, err := f.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				describe(&got, p)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("(-tshark +got)\n%s", diff)
			}
			if diff := cmp.Diff(skipped[filepath.Base(path)], f.Stats().Skipped, cmpEmpty); diff != "" {
				t.Errorf("skipped (-want +got)\n%s", diff)
			}
		})
	}
}

var cmpEmpty = cmp.Transformer("empty", func(m map[Skip]uint64) string { return fmt.Sprint(m) })

// describe writes a packet's line of a .tshark file.
func describe(w io.Writer, p Packet) {
	var src, dst netip.Addr
	b, length := p.Data, 0
	proto, payload := byte(0), []byte(nil)
	if b[0]>>4 == 4 {
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		length = int(binary.BigEndian.Uint16(b[2:]))
		proto, payload = b[9], b[int(b[0]&15)*4:]
	} else {
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		length = int(binary.BigEndian.Uint16(b[4:])) + 40
		proto, payload = b[6], b[40:]
	}
	sport, dport, seq, ack := "", "", "", ""
	if proto == 6 {
		sport = fmt.Sprint(binary.BigEndian.Uint16(payload))
		dport = fmt.Sprint(binary.BigEndian.Uint16(payload[2:]))
		seq = fmt.Sprint(binary.BigEndian.Uint32(payload[4:]))
		ack = fmt.Sprint(binary.BigEndian.Uint32(payload[8:]))
	}
	if p.Len != length {
		fmt.Fprintf(w, "length on the wire %d: ", p.Len)
	}
	fmt.Fprintf(w, "%d.%09d\t%v %s\t%v %s\t%d\t%s\t%s\t%d\n", p.At/1e9, p.At%1e9, src, sport, dst, dport, length, seq, ack, len(b))
}
