package capture

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSections(t *testing.T) {
	g := newNg(little)
	g.iface(linkRaw, 0).iface(linkEthernet, 96, g.option(optionTSResol, 9), g.option(optionEnd))
	g.block(0x0bad, make([]byte, 40)) // unknown
	g.enhanced(0, 1_000_001, 20, ipv4(1))
	g.enhanced(1, 2_000_000_002, 1514, append(append(make([]byte, 12), 8, 0), ipv4(2)...), g.option(2, 0, 0, 0, 1))
	g.block(5, make([]byte, 12)) // interface statistics
	// The numbers of interfaces begin anew, as do byte order and link types.
	g.section(big).iface(linkLinuxSLL2, 0, g.option(optionTSOffset, 0, 0, 0, 0, 0, 0, 0, 100), g.option(2, 'l', 'o'))
	g.enhanced(0, 3_000_003, 60, append(append([]byte{0x86, 0xdd}, make([]byte, 18)...), ipv6()...))
	g.block(blockPacket, g.words(0x0000_0007, 0, 4_000_004, 60, 60), append([]byte{8, 0}, make([]byte, 18)...), ipv6())
	// A simple packet has no time and shares the last.
	g.block(blockSimplePacket, g.words(40), append([]byte{8, 0}, make([]byte, 18)...), ipv4(5))
	g.section(little).iface(linkRaw, 20)
	g.block(blockSimplePacket, g.words(900), ipv4(6))

	all, stats, err := readAll(t, bytes.NewReader(g.b))
	want := []got{
		{1_000_001_000, string(ipv4(1)), 20},
		{2_000_000_002, string(ipv4(2)), 1500},
		{103_000_003_000, string(ipv6()), 40},
		{104_000_004_000, string(ipv6()), 40},
		{104_000_004_000, string(ipv4(5)), 20},
		{104_000_004_000, string(ipv4(6)), 900},
	}
	if diff := cmp.Diff(want, all); diff != "" || err != nil {
		t.Errorf("%v, %+v (-want +got)\n%s", err, stats, diff)
	}
}

func TestDamagedBlocks(t *testing.T) {
	flip := func(b []byte, at int, v byte) []byte { b = bytes.Clone(b); b[at] = v; return b }
	base := func() *ng { return newNg(little).iface(linkRaw, 0).enhanced(0, 1e6, 20, ipv4(1)) }
	end := len(base().b) // the place of the block at fault
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"length below the least", append(base().b, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0), "length 8, less than that of the smallest block, 12"},
		{"lengths disagree", flip(base().block(9, make([]byte, 8)).b, end+16, 77), "length 20 at its start, 77 at its end"},
		{"unknown interface", base().enhanced(1, 1e6, 20, ipv4(2)).b, "packet from interface 1, the section has described 1"},
		{"last interface there could be", base().enhanced(math.MaxUint32, 1e6, 20, ipv4(2)).b, "packet from interface 4294967295, the section has described 1"},
		{"captured more than the block", base().enhancedOf(0, 1e6, 24, 24, ipv4(2)).b, "24 captured bytes in a packet block with room for 20"},
		{"captured 4 GiB", base().enhancedOf(0, 1e6, math.MaxUint32, 20, ipv4(2)).b, "4294967295 captured bytes in a packet block with room for 20"},
		{"simple packet of more than the block", base().block(blockSimplePacket, little.AppendUint32(nil, 99), ipv4(2)).b, "99 captured bytes in a packet block with room for 20"},
		{"packet without its fields", base().block(blockEnhancedPacket, make([]byte, 16)).b, "packet of 16 bytes, at least 20 expected"},
		{"simple packet before an interface", base().section(little).block(blockSimplePacket, little.AppendUint32(nil, 20), ipv4(2)).b, "packet from interface 0, the section has described 0"},
		{"section without its fields", base().block(blockSection, little.AppendUint32(nil, 0x1a2b3c4d)).b, "section header of 4 bytes, at least 16 expected"},
		{"byte order", base().block(blockSection, make([]byte, 16)).b, "section header with the byte-order magic 00 00 00 00"},
		{"interface without its fields", base().block(blockInterface, make([]byte, 4)).b, "interface description of 4 bytes, at least 8 expected"},
		{"option beyond its block", base().iface(1, 0, []byte{2, 0, 9, 0}).b, "option 2 of 9 bytes in an interface description with room for 0"},
		{"resolution", base().iface(1, 0, newNg(little).option(optionTSResol, 20)).b, "if_tsresol 0x14: up to 10^-19 and 2^-63 seconds are read"},
		{"description beyond the window", base().iface(1, 0, make([]byte, windowSize)).b, "524308 bytes of description, at most 524288 are read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all, _, err := readAll(t, bytes.NewReader(tc.b))
			if len(all) != 1 || err == nil || !strings.HasPrefix(err.Error(), "reading x.pcap: block at byte ") || !strings.HasSuffix(err.Error(), ": "+tc.want) {
				t.Errorf("%d packets, error\n  %v\nwant\n  %s", len(all), err, tc.want)
			}
		})
	}
	other := newNg(little)
	other.b[12] = 2
	if _, err := NewFile(bytes.NewReader(other.b), "x"); err == nil || err.Error() != "reading x: section at byte 0: pcapng version 2.0: only 1.0 and 1.2 are read" {
		t.Error(err)
	}
}

// Blocks larger than the window are passed over, and a packet counted.
func TestLargeBlocks(t *testing.T) {
	g := newNg(little).iface(linkRaw, 0)
	g.block(10, make([]byte, 3*windowSize)) // decryption secrets
	g.enhanced(0, 1e6, 20, ipv4(1))
	large := len(g.b)
	g.enhanced(0, 1e6, windowSize, make([]byte, windowSize))
	g.enhanced(0, 2e6, 20, ipv4(2))
	all, stats, err := readAll(t, bytes.NewReader(g.b))
	if diff := cmp.Diff([]got{{1e9, string(ipv4(1)), 20}, {2e9, string(ipv4(2)), 20}}, all); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if diff := cmp.Diff(map[Skip]uint64{SkipTooLong: 1}, stats.Skipped); diff != "" {
		t.Errorf("skipped (-want +got)\n%s", diff)
	}

	_, _, err = readAll(t, bytes.NewReader(g.b[:large+windowSize]))
	if want := fmt.Sprintf("reading x.pcap: cut off in the block at byte %d, after 524288 of 524320 bytes: unexpected EOF", large); err == nil || err.Error() != want {
		t.Errorf("error\n  %v\nwant\n  %s", err, want)
	}
	g.b[large+4]++
	_, _, err = readAll(t, bytes.NewReader(g.b))
	if want := fmt.Sprintf("block at byte %d: length 524321 at its start", large); err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
}

func TestManyInterfaces(t *testing.T) {
	g := newNg(little)
	for range maxSectionInterfaces {
		g.iface(linkRaw, 0)
	}
	g.enhanced(maxSectionInterfaces-1, 0, 20, ipv4(1)).iface(linkRaw, 0)
	all, _, err := readAll(t, bytes.NewReader(g.b))
	if len(all) != 1 || err == nil || !strings.HasSuffix(err.Error(), "more than 65536 interfaces in a section") {
		t.Errorf("%d packets, %v", len(all), err)
	}
}

func TestUnixNano(t *testing.T) {
	const end = (math.MaxInt64/int64(1e9) - 24*60*60) * 1e9
	for _, tc := range []struct {
		resol  byte
		offset int64
		stamp  uint64
		want   int64
	}{
		{6, 0, 1_700_000_000_123_456, 1_700_000_000_123_456_000},
		{9, 0, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789},
		{0, 0, 1_700_000_000, 1_700_000_000_000_000_000},
		{3, 1_700_000_000, 42, 1_700_000_000_042_000_000},
		{6, -10, 12_000_000, 2_000_000_000},
		{6, -10, 9_000_000, 0},
		{12, 0, 7_000_000_000_999, 7_000_000_000},
		{19, 0, 12_345_678_901_234_567_890, 1_234_567_890},
		{0x80 | 20, 0, 1<<20 | (1<<20 - 1), 1_999_999_046},
		{0x80 | 32, 0, 3<<32 | 1<<31, 3_500_000_000},
		{0x80 | 63, 0, 1<<63 | 1<<62, 1_500_000_000},
		{0x80, 0, 5, 5_000_000_000},
		{0, 0, math.MaxUint64, end},
		{6, math.MaxInt64, 1, end},
		{6, math.MinInt64, 1, 0},
		{0, math.MinInt64, math.MaxUint64, end},
	} {
		i := ngInterface{units: unitsPerSecond(tc.resol), offset: tc.offset}
		if got := i.unixNano(tc.stamp); got != tc.want {
			t.Errorf("if_tsresol %#x, if_tsoffset %d, timestamp %d: %d, want %d", tc.resol, tc.offset, tc.stamp, got, tc.want)
		}
	}
	for _, resol := range []byte{20, 127, 0x80 | 64, 0xff} {
		if u := unitsPerSecond(resol); u != 0 {
			t.Errorf("if_tsresol %#x: %d units", resol, u)
		}
	}
}
