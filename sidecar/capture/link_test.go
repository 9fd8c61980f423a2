package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// hexFrame decodes hex; "4" and "6" stand for an IPv4 and an IPv6 packet.
func hexFrame(t *testing.T, s string) []byte {
	t.Helper()
	var b []byte
	for word := range strings.FieldsSeq(s) {
		switch word {
		case "4":
			b = append(b, ipv4(1)...)
		case "6":
			b = append(b, ipv6()...)
		default:
			bytes, err := hex.DecodeString(word)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, bytes...)
		}
	}
	return b
}

func TestLinkTypes(t *testing.T) {
	const (
		macs  = "020000000001020000000002 "
		dot11 = "000000000001 000000000002 000000000003 "
	)
	for _, tc := range []struct {
		name  string
		link  uint16
		frame string // ends with the packet
	}{
		{"Ethernet", linkEthernet, macs + "0800 4"},
		{"Ethernet, IPv6", linkEthernet, macs + "86dd 6"},
		{"VLAN", linkEthernet, macs + "8100 0007 0800 4"},
		{"802.1ad", linkEthernet, macs + "88a8 0064 8100 0007 86dd 6"},
		{"VLAN, stacked of old", linkEthernet, macs + "9100 0064 8100 0007 0800 4"},
		{"802.3 SNAP", linkEthernet, macs + "001c aaaa03 000000 0800 4"},
		{"802.1H", linkEthernet, macs + "001c aaaa03 0000f8 0800 4"},
		{"802.3 IP", linkEthernet, macs + "0017 060603 4"},
		{"VLAN, 802.3 SNAP", linkEthernet, macs + "8100 0007 001c aaaa03 000000 0800 4"},
		{"jumbo LLC", linkEthernet, macs + "8870 aaaa03 000000 86dd 6"},
		{"MPLS", linkEthernet, macs + "8847 00010140 4"},
		{"MPLS, stacked", linkEthernet, macs + "8847 00010040 00020140 6"},
		{"MPLS, upstream", linkEthernet, macs + "8848 00010140 4"},
		{"MPLS, Ethernet pseudowire", linkEthernet, macs + "8847 00010140 00000000 " + macs + "8100 0007 0800 4"},
		{"PPPoE", linkEthernet, macs + "8864 11000001 0016 0021 4"},
		{"VLAN, PPPoE, IPv6", linkEthernet, macs + "8100 0007 8864 11000001 002a 0057 6"},
		{"PPPoE link", linkPPPoE, "11000001 0016 0021 4"},
		{"SLL", linkLinuxSLL, "0000 0001 0006 0200000000010000 0800 4"},
		{"SLL, VLAN", linkLinuxSLL, "0000 0001 0006 0200000000010000 8100 0007 86dd 6"},
		{"SLL, 802.2", linkLinuxSLL, "0000 0001 0006 0200000000010000 0004 aaaa03 000000 0800 4"},
		{"SLL2", linkLinuxSLL2, "0800 0000 00000001 0304 00 06 0000000000000000 4"},
		{"SLL2, IPv6", linkLinuxSLL2, "86dd 0000 00000001 0304 04 06 0000000000000000 6"},
		{"RAW", linkRaw, "4"},
		{"RAW, IPv6", linkRaw, "6"},
		{"DLT_RAW", linkRawDLT, "4"},
		{"DLT_RAW of OpenBSD", linkRawOpenBSD, "6"},
		{"IPV4", linkIPv4, "4"},
		{"IPV6", linkIPv6, "6"},
		{"NULL, little endian", linkNull, "02000000 4"},
		{"NULL, big endian", linkNull, "00000002 4"},
		{"NULL, IPv6 of NetBSD", linkNull, "18000000 6"},
		{"NULL, IPv6 of FreeBSD", linkNull, "1c000000 6"},
		{"NULL, IPv6 of Darwin", linkNull, "0000001e 6"},
		{"NULL, IPv6 of Linux", linkNull, "0a000000 6"},
		{"LOOP", linkLoop, "00000018 6"},
		{"LOOP, wrong order", linkLoop, "02000000 4"},
		{"ENC", linkEnc, "02000000 00001234 00000003 4"},
		{"PPP", linkPPP, "0021 4"},
		{"PPP, framed", linkPPP, "ff03 0057 6"},
		{"PPP, compressed protocol", linkPPP, "ff03 21 4"},
		{"PPP, MPLS", linkPPP, "0281 00010140 4"},
		{"PPP in HDLC framing", linkPPPHDLC, "ff03 0021 4"},
		{"Cisco HDLC as PPP_HDLC", linkPPPHDLC, "0f00 0800 4"},
		{"Cisco HDLC", linkCiscoHDLC, "0f00 86dd 6"},
		{"PPP with direction", linkPPPWithDir, "01 ff03 0021 4"},
		{"RFC 1483", linkATMRFC1483, "aaaa03 000000 0800 4"},
		{"802.11 to access point", linkIEEE80211, "0801 0000 " + dot11 + "1000 aaaa03 000000 0800 4"},
		{"802.11 QoS", linkIEEE80211, "8802 0000 " + dot11 + "1000 0000 aaaa03 000000 0800 4"},
		{"802.11 QoS and HT control", linkIEEE80211, "8882 0000 " + dot11 + "1000 0000 00000000 aaaa03 000000 86dd 6"},
		{"802.11, four addresses", linkIEEE80211, "0803 0000 " + dot11 + "1000 000000000004 aaaa03 000000 0800 4"},
		{"radiotap, nothing present", linkRadiotap, "0000 0800 00000000 0801 0000 " + dot11 + "1000 aaaa03 000000 0800 4"},
		{"radiotap, aligned", linkRadiotap, "0000 1900 03000080 00000000 00000000 0000000000000000 20 8802 0000 " + dot11 + "1000 0000 0000 aaaa03 000000 0800 4"},
		{"radiotap, unaligned by flags", linkRadiotap, "0000 0900 02000000 10 8802 0000 " + dot11 + "1000 0000 aaaa03 000000 0800 4"},
		{"IP in IP", linkRaw, "4500 0000 0000 4000 40 04 0000 0a000001 0a000002 4"},
		{"6in4", linkEthernet, macs + "0800 4500 0000 0000 4000 40 29 0000 0a000001 0a000002 6"},
		{"IPv4 in IPv6", linkRaw, "6000 0000 0000 04 40 " + strings.Repeat("00", 32) + " 4"},
		{"GRE", linkRaw, "4500 0000 0000 4000 40 2f 0000 0a000001 0a000002 0000 0800 4"},
		{"GRE with a key", linkRaw, "4500 0000 0000 4000 40 2f 0000 0a000001 0a000002 b000 86dd 11111111 22222222 33333333 6"},
		{"GRE, Ethernet", linkRaw, "4500 0000 0000 4000 40 2f 0000 0a000001 0a000002 0000 6558 " + macs + "8100 0007 0800 4"},
		{"VXLAN", linkRaw, "4500 0000 0000 4000 40 11 0000 0a000001 0a000002 c000 12b5 0000 0000 08000000 00000700 " + macs + "0800 4"},
		{"Geneve", linkRaw, "4500 0000 0000 4000 40 11 0000 0a000001 0a000002 c000 17c1 0000 0000 01006558 00000700 11111111 " + macs + "0800 4"},
		{"NFLOG", linkNFLOG, "02 00 0005 0800 0100 08000301 0500 0a00 78000000 1800 0900 4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := hexFrame(t, tc.frame)
			want := ipv4(1)
			if strings.HasSuffix(tc.frame, "6") {
				want = ipv6()
			}
			got, skip := ipPacket(tc.link, little, b)
			if skip != 0 || !bytes.Equal(got, want) {
				t.Fatalf("%v, % x", skip, got)
			}
			// Whatever is missing at the end: no other packet, and no panic.
			for n := range b {
				if got, skip := ipPacket(tc.link, little, b[:n]); skip == 0 {
					t.Fatalf("%d of %d bytes: % x", n, len(b), got)
				}
			}
		})
	}
}

func TestNFLOGBigEndian(t *testing.T) {
	got, skip := ipPacket(linkNFLOG, binary.BigEndian, hexFrame(t, "0a 00 0005 0008 0001 86dd0301 002c 0009 6"))
	if skip != 0 || !bytes.Equal(got, ipv6()) {
		t.Errorf("%v, % x", skip, got)
	}
}

func TestSkipped(t *testing.T) {
	const (
		macs  = "020000000001020000000002 "
		dot11 = "000000000001 000000000002 000000000003 "
		snap  = " aaaa03 000000 0800 4"
	)
	for _, tc := range []struct {
		name  string
		link  uint16
		frame string
		want  Skip
	}{
		{"USB", 189, "4", SkipLinkType},
		{"netlink", 253, "4", SkipLinkType},
		{"nothing", linkRaw, "", SkipShort},
		{"IPv4 header in part", linkRaw, "4500", SkipShort},
		{"IPv6 header in part", linkRaw, "60000000 4", SkipShort},
		{"version 5", linkRaw, "5500", SkipNotIP},
		{"ARP", linkEthernet, macs + "0806 0001", SkipNotIP},
		{"ARP in SLL2", linkLinuxSLL2, "0806 0000 00000001 0001 00 06 0000000000000000 0001", SkipNotIP},
		{"CAN in SLL", linkLinuxSLL, "0000 0118 0000 0000000000000000 000c 4", SkipNotIP},
		{"Ethernet header in part", linkEthernet, "0200", SkipShort},
		{"spanning tree", linkEthernet, macs + "0026 424203 00", SkipNotIP},
		{"AppleTalk in SNAP", linkEthernet, macs + "0026 aaaa03 080007 809b 00", SkipNotIP},
		{"IPX in PPP", linkPPP, "ff03 002b 00", SkipNotIP},
		{"PPPoE discovery", linkEthernet, macs + "8863 11090000", SkipNotIP},
		{"PPPoE session not of data", linkPPPoE, "11a70001 0000 0021 4", SkipNotIP},
		{"AppleTalk in NULL", linkNull, "10000000 4", SkipNotIP},
		{"tags without end", linkEthernet, macs + strings.Repeat("8100 0001 ", 2000) + "0800 4", SkipNotIP},
		{"labels without end", linkEthernet, macs + "8847 " + strings.Repeat("00010040 ", 2000) + "00010140 4", SkipNotIP},
		{"MPLS, unknown payload", linkEthernet, macs + "8847 00010140 10", SkipNotIP},
		{"beacon", linkIEEE80211, "8000 0000 " + dot11 + "1000", SkipNotIP},
		{"802.11 null", linkIEEE80211, "4801 0000 " + dot11 + "1000", SkipNotIP},
		{"802.11 encrypted", linkIEEE80211, "0841 0000 " + dot11 + "1000" + snap, SkipOpaque},
		{"802.11 first fragment", linkIEEE80211, "0805 0000 " + dot11 + "1000" + snap, SkipOpaque},
		{"802.11 last fragment", linkIEEE80211, "0801 0000 " + dot11 + "1100" + snap, SkipOpaque},
		{"802.11 aggregated", linkIEEE80211, "8801 0000 " + dot11 + "1000 8000" + snap, SkipOpaque},
		{"radiotap, bad checksum", linkRadiotap, "0000 0900 02000000 50 0801 0000 " + dot11 + "1000" + snap, SkipOpaque},
		{"radiotap, length below its own", linkRadiotap, "0000 0700 00000000 0801", SkipNotIP},
		{"radiotap, presence without end", linkRadiotap, "0000 0c00 00000080 00000080 0801", SkipNotIP},
		{"radiotap, another version", linkRadiotap, "0100 0800 00000000 0801", SkipNotIP},
		{"NFLOG, attribute of no length", linkNFLOG, "02000005 0000 0900 4", SkipNotIP},
		{"NFLOG without payload", linkNFLOG, "02000005 0800 0100 08000301", SkipShort},
		{"NFLOG of a bridge", linkNFLOG, "07010005 1800 0900 4", SkipNotIP},
	} {
		if _, got := ipPacket(tc.link, little, hexFrame(t, tc.frame)); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestSkipNames(t *testing.T) {
	for s := SkipNotIP; s <= SkipTooLong; s++ {
		if strings.HasPrefix(s.String(), "skip_") {
			t.Errorf("%v has no name", s)
		}
	}
	if Skip(0).String() != "skip_0" || Skip(99).String() != "skip_99" {
		t.Error(Skip(0), Skip(99))
	}
}
