package capture

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

func TestClassic(t *testing.T) {
	one := got{1_500_000_007_000_001_000, string(ipv4(1)), 1500}
	file := func(o appendOrder, magic uint32, frac uint32, extend int) []byte {
		c := newClassic(o, magic, linkRaw)
		c.extend = extend
		return c.record(1_500_000_007, frac, 1500, ipv4(1)).b
	}
	version := func(minor byte) []byte {
		c := newClassic(little, 0xa1b2c3d4, linkRaw)
		c.b[6] = minor
		c.words(1_500_000_007, 1, 1500, 20) // the lengths exchanged
		return append(c.b, ipv4(1)...)
	}
	withFCS := file(little, 0xa1b2c3d4, 1, 0)
	withFCS[23] = 0x24 // four bytes of frame check sequence

	for name, b := range map[string][]byte{
		"microseconds, little endian": file(little, 0xa1b2c3d4, 1, 0),
		"microseconds, big endian":    file(big, 0xa1b2c3d4, 1, 0),
		"nanoseconds, little endian":  file(little, 0xa1b23c4d, 1000, 0),
		"nanoseconds, big endian":     file(big, 0xa1b23c4d, 1000, 0),
		"modified, little endian":     file(little, 0xa1b2cd34, 1, 8),
		"modified, big endian":        file(big, 0xa1b2cd34, 1, 8),
		"version 2.2":                 version(2),
		"version 2.3":                 version(3),
		"length of a checksum":        withFCS,
	} {
		t.Run(name, func(t *testing.T) {
			all, _, err := readAll(t, bytes.NewReader(b))
			if diff := cmp.Diff([]got{one}, all); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestLengths(t *testing.T) {
	snap := ipv4(3)[:20]
	c := newClassic(little, 0xa1b2c3d4, linkEthernet)
	frame := func(b ...byte) []byte { return append(append(make([]byte, 12), 8, 0), b...) }
	c.record(1, 0, 60, frame(append(ipv4(1), make([]byte, 26)...)...)) // Ethernet's padding
	c.record(2, 0, 14+9000, frame(snap...))                            // cut by the snap length
	c.record(3, 0, 40, frame(append(ipv4(4), 1, 2, 3, 4, 5, 6, 7)...)) // captured more than sent
	c.record(4, 0, 0, frame(ipv4(5)...))                               // sent nothing
	c.record(5, 0, 70, frame(ipv4(6)[:19]...))                         // cut in the IP header
	all, stats, err := readAll(t, bytes.NewReader(c.b))
	want := []got{
		{1e9, string(ipv4(1)) + strings.Repeat("\x00", 26), 46},
		{2e9, string(snap), 9000},
		{3e9, string(ipv4(4)) + "\x01\x02\x03\x04\x05\x06", 26},
	}
	if diff := cmp.Diff(want, all); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if diff := cmp.Diff(map[Skip]uint64{SkipShort: 2}, stats.Skipped); diff != "" {
		t.Errorf("skipped (-want +got)\n%s", diff)
	}
}

func TestWrittenByPcapgo(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	ci := gopacket.CaptureInfo{Timestamp: at, CaptureLength: 20, Length: 20}
	write := map[string]func(w io.Writer) error{
		"pcap": func(w io.Writer) error {
			f := pcapgo.NewWriterNanos(w)
			return errors.Join(f.WriteFileHeader(65535, layers.LinkTypeRaw), f.WritePacket(ci, ipv4(1)))
		},
		"pcapng": func(w io.Writer) error {
			f, err := pcapgo.NewNgWriter(w, layers.LinkTypeRaw)
			return errors.Join(err, f.WritePacket(ci, ipv4(1)), f.Flush())
		},
	}
	for name, write := range write {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			all, _, err := readAll(t, &b)
			if diff := cmp.Diff([]got{{at.UnixNano(), string(ipv4(1)), 20}}, all); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestGzip(t *testing.T) {
	c := newClassic(little, 0xa1b2c3d4, linkRaw)
	for i := range 200 {
		c.record(uint32(i), 0, 20, ipv4(byte(i)))
	}
	z := zip(c.b)
	all, _, err := readAll(t, bytes.NewReader(z))
	if len(all) != 200 || err != nil {
		t.Errorf("%d packets, %v", len(all), err)
	}
	all, _, err = readAll(t, bytes.NewReader(z[:len(z)/2]))
	if len(all) == 0 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "reading x.pcap: compressed content cut off behind byte ") {
		t.Errorf("cut: %d packets, %v", len(all), err)
	}
	z[len(z)-6] ^= 1 // in the checksum
	if all, _, err = readAll(t, bytes.NewReader(z)); len(all) != 200 || !errors.Is(err, gzip.ErrChecksum) {
		t.Errorf("damaged: %d packets, %v", len(all), err)
	}
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	header := newClassic(little, 0xa1b2c3d4, linkRaw).b
	v9 := bytes.Clone(header)
	v9[4] = 9
	for _, tc := range []struct{ name, content, want string }{
		{"x.txt", "Hello, world", "not a pcap or pcapng file (starts with 48 65 6c 6c 6f)"},
		{"x.short", "\xd4\xc3", "not a pcap or pcapng file (starts with d4 c3)"},
		{"x.empty", "", "empty file"},
		{"x.zst", "\x28\xb5\x2f\xfd....", "compressed with zstd: decompress it first (only gzip is read as it is)"},
		{"x.gz.gz", string(zip(zip(header))), "compressed with gzip twice: decompress it first (only gzip is read as it is)"},
		{"x.gz", string(zip([]byte("Hello"))), "not a pcap or pcapng file (starts with 48 65 6c 6c 6f)"},
		{"empty.gz", string(zip(nil)), "empty file"},
		{"broken.gz", "\x1f\x8b\x08\xff", "unexpected EOF"},
		{"header", string(header[:10]), "cut off in the file header at byte 0, after 10 of 24 bytes: unexpected EOF"},
		{"nine", string(v9), "pcap version 9.4: only 2.x is read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(dir, tc.name)
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = checkOpen(t, path, tc.want)
		})
	}
	_ = checkOpen(t, dir, "is a directory")
	if err := checkOpen(t, filepath.Join(dir, "none"), "no such file or directory"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not fs.ErrNotExist: %v", err)
	}
}

func checkOpen(t *testing.T, path, want string) error {
	t.Helper()
	f, err := OpenFile(path)
	if err == nil {
		f.Close()
		t.Fatal("no error")
	}
	if want = "reading " + path + ": " + want; err.Error() != want {
		t.Errorf("error\n  %v\nwant\n  %s", err, want)
	}
	return err
}

// A file that ends anywhere gives the whole packets before that place, and an
// error unless the place is between two of them.
func TestCutAnywhere(t *testing.T) {
	c := newClassic(little, 0xa1b2c3d4, linkRaw)
	c.record(1, 0, 20, ipv4(1)).record(2, 0, 60, ipv4(2)).record(3, 0, 40, ipv6())
	g := newNg(big).iface(linkRaw, 0)
	start := len(g.b)
	g.enhanced(0, 1e6, 20, ipv4(1), g.option(2, 1, 2, 3, 4)).enhanced(0, 2e6, 60, ipv4(2)).enhanced(0, 3e6, 40, ipv6())
	for name, file := range map[string]struct {
		b     []byte
		start int
		sizes []int
	}{
		"pcap":   {c.b, pcapHeaderLen, []int{36, 36, 56}},
		"pcapng": {g.b, start, []int{60, 52, 72}},
	} {
		t.Run(name, func(t *testing.T) {
			whole, _, err := readAll(t, bytes.NewReader(file.b))
			if err != nil || len(whole) != 3 {
				t.Fatal(len(whole), err)
			}
			for n := file.start; n < len(file.b); n++ {
				packets, end := 0, file.start
				for end < n && end+file.sizes[packets] <= n {
					end += file.sizes[packets]
					packets++
				}
				all, _, err := readAll(t, iotest.OneByteReader(bytes.NewReader(file.b[:n])))
				if diff := cmp.Diff(whole[:packets], all); diff != "" && packets > 0 {
					t.Fatalf("%d bytes (-want +got)\n%s", n, diff)
				}
				if (err == nil) != (end == n) || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%d bytes: %v", n, err)
				}
			}
		})
	}
	_, _, err := readAll(t, bytes.NewReader(c.b[:24+36+30]))
	if want := "reading x.pcap: cut off in the record at byte 60, after 30 of 36 bytes: unexpected EOF"; err == nil || err.Error() != want {
		t.Errorf("error\n  %v\nwant\n  %s", err, want)
	}
}

func TestHostileRecord(t *testing.T) {
	c := newClassic(little, 0xa1b2c3d4, linkRaw).record(1, 0, 20, ipv4(1))
	c.words(2, 0, 1<<31, 1<<31)
	all, _, err := readAll(t, bytes.NewReader(c.b))
	want := "reading x.pcap: record at byte 60: 2147483648 captured bytes, more than the 262144 of any packet (is the file damaged?)"
	if len(all) != 1 || err == nil || err.Error() != want {
		t.Errorf("%d packets, error\n  %v\nwant\n  %s", len(all), err, want)
	}
}

func TestReadError(t *testing.T) {
	c := newClassic(little, 0xa1b2c3d4, linkRaw).record(1, 0, 20, ipv4(1))
	fault := errors.New("input/output error")
	r := io.MultiReader(bytes.NewReader(c.b), iotest.ErrReader(&fs.PathError{Op: "read", Path: "/x", Err: fault}))
	all, _, err := readAll(t, r)
	if want := "reading x.pcap: behind byte 60: input/output error"; len(all) != 1 || !errors.Is(err, fault) || err.Error() != want {
		t.Errorf("%d packets, %v", len(all), err)
	}
}

func TestClose(t *testing.T) {
	f, err := OpenFile("testdata/lo-nano.pcap")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Next(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Next of a closed file: %v", err)
	}
}

func TestLinkTypesNotRead(t *testing.T) {
	g := newNg(little)
	for link := range uint16(10) {
		g.iface(1000+link, 0)
	}
	for id := range uint32(10) {
		g.enhanced(id, 0, 20, ipv4(1)).enhanced(id, 0, 20, ipv4(1))
	}
	_, stats, err := readAll(t, bytes.NewReader(g.b))
	want := FileStats{
		Records:   20,
		Skipped:   map[Skip]uint64{SkipLinkType: 20},
		LinkTypes: []uint16{1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007},
	}
	if diff := cmp.Diff(want, stats); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

// A packet is returned when it is written, not when the next one is.
func TestPipe(t *testing.T) {
	c := newClassic(little, 0xa1b2c3d4, linkRaw).record(1, 0, 20, ipv4(1))
	g := newNg(little).iface(linkRaw, 0).enhanced(0, 1e6, 20, ipv4(1))
	for name, b := range map[string][]byte{"pcap": c.b, "pcapng": g.b} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		stdin := os.Stdin
		os.Stdin = r
		f, err := OpenFile("-")
		os.Stdin = stdin
		if err != nil {
			t.Fatal(err)
		}
		if p, err := f.Next(); err != nil || p.At != 1e9 || f.Name() != "standard input" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
