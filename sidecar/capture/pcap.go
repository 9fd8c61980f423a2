package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// The reader of capture files is our own and not gopacket's pcapgo, because a
// file must give its packets or a clear error, and pcapgo 1.7.7
//   - returns io.EOF, a whole file, where one is cut off behind a record header;
//   - never holds a pcapng captured length against the length of its block, nor
//     the block's two lengths against each other, and so returns the headers of
//     later blocks as packet data;
//   - scales a binary if_tsresol by a whole number, which at 2^-20 puts a timestamp
//     0.7 ms off, and refuses pcapng 1.2 and the pcap magic 0xa1b2cd34;
//   - keeps name and secrets blocks, reads records of up to 4 GiB into memory, and
//     allocates for each packet that has options.
//
// The tests write their files with it.

// File is the Source of a pcap or pcapng file. It is read front to back and
// once, in memory that does not depend on its content.
type File struct {
	name   string
	closer io.Closer
	win    *window
	format interface{ next(*record) error }
	rec    record
	stats  FileStats
	err    error // sticky
}

var _ Source = (*File)(nil)

// record is a packet as the file has it, from its link header on.
type record struct {
	link    uint16           // LINKTYPE_*, https://www.tcpdump.org/linktypes.html
	order   binary.ByteOrder // of the host that recorded it
	at      int64            // nanoseconds since the Unix epoch
	data    []byte
	wireLen uint32 // bytes on the wire; less than len(data) if the file says so
	skip    Skip   // set if the record was passed over
}

// FileStats counts what a file held up to now. Records = Packets + Σ Skipped.
type FileStats struct {
	// Records is how many whole packet records the file has.
	Records uint64
	// Packets is how many of them Next returned.
	Packets uint64
	// Skipped is how many it did not return, by reason; none of them is 0.
	Skipped map[Skip]uint64
	// LinkTypes has the first of the LINKTYPE_* values, at most eight, that
	// were skipped as SkipLinkType.
	LinkTypes []uint16
}

// OpenFile opens a pcap or pcapng file, which may be compressed with gzip. The
// path "-" is standard input. Its errors name the file; they are those of
// opening and reading it, and of content that is not a capture file.
func OpenFile(path string) (*File, error) {
	if path == "-" {
		return NewFile(os.Stdin, "standard input")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, cause(err))
	}
	file, err := NewFile(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	file.closer = f
	return file, nil
}

// NewFile reads a pcap or pcapng file from r; name stands for it in errors. It
// reads the file's header, and so blocks if r does. Close does not close r.
func NewFile(r io.Reader, name string) (*File, error) {
	f := &File{name: name, win: newWindow(r), stats: FileStats{Skipped: map[Skip]uint64{}}}
	err := f.open()
	if err != nil {
		return nil, f.wrap(err)
	}
	return f, nil
}

// Next returns the next packet that has an IP header, io.EOF at the end of a
// whole file, and otherwise an error that names the file and the place: one
// that wraps io.ErrUnexpectedEOF if the file is cut off. All whole packets
// before that place are returned first. Next returns the same error ever after.
func (f *File) Next() (Packet, error) {
	for f.err == nil {
		f.rec.skip = 0
		if err := f.format.next(&f.rec); err != nil {
			f.err = f.wrap(err)
			break
		}
		f.stats.Records++
		if p, ok := f.packet(); ok {
			f.stats.Packets++
			return p, nil
		}
	}
	return Packet{}, f.err
}

// packet strips the link header off the current record, or counts it as skipped.
func (f *File) packet() (Packet, bool) {
	r := &f.rec
	if r.skip == 0 {
		// Some writers exchange the two lengths or leave one at 0. Nothing can be
		// captured that was not on the wire.
		wireLen := int(min(r.wireLen, math.MaxInt32))
		data := r.data[:min(len(r.data), wireLen)]
		ip, skip := ipPacket(r.link, r.order, data)
		if skip == 0 {
			return Packet{At: r.at, Data: ip, Len: wireLen - (len(data) - len(ip))}, true
		}
		r.skip = skip
	}
	f.stats.Skipped[r.skip]++
	if r.skip == SkipLinkType {
		f.noteLinkType(r.link)
	}
	return Packet{}, false
}

func (f *File) noteLinkType(link uint16) {
	for _, l := range f.stats.LinkTypes {
		if l == link {
			return
		}
	}
	if len(f.stats.LinkTypes) < 8 {
		f.stats.LinkTypes = append(f.stats.LinkTypes, link)
	}
}

// Name is the file's name, as errors have it.
func (f *File) Name() string { return f.name }

// Stats returns the counters. The map and the slice are the File's own.
func (f *File) Stats() FileStats { return f.stats }

// Close closes the file that OpenFile opened. Standard input stays open.
func (f *File) Close() error {
	if f.err == nil {
		f.err = f.wrap(os.ErrClosed)
	}
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// open recognises the format by its first bytes and reads its header.
func (f *File) open() error {
	head, err := f.win.Peek(4)
	if err == nil && head[0] == 0x1f && head[1] == 0x8b {
		if err := f.gunzip(); err != nil {
			return err
		}
		head, err = f.win.Peek(4)
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return f.win.fault(err)
	case len(head) == 0:
		return errors.New("empty file")
	case len(head) < 4:
		return notCapture(head)
	}
	if order, kind := pcapMagic(head); order != nil {
		f.format, err = newPcap(f.win, order, kind)
		return err
	}
	if bytes.Equal(head, sectionMagic) {
		f.format, err = newPcapng(f.win)
		return err
	}
	for _, c := range compressions {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return fmt.Errorf("compressed with %s: decompress it first (only gzip is read as it is)", c.name)
		}
	}
	head, _ = f.win.Peek(5) // as much as tells a reader what it is
	return notCapture(head)
}

// gunzip puts the decompressed content in the place of the file.
func (f *File) gunzip() error {
	z, err := gzip.NewReader(f.win.Reader)
	if err != nil {
		return f.win.fault(err)
	}
	f.win = newWindow(z)
	f.win.gzip = true
	return nil
}

var compressions = []struct{ magic, name string }{
	{"\x1f\x8b", "gzip twice"},
	{"\x28\xb5\x2f\xfd", "zstd"},
	{"\x04\x22\x4d\x18", "lz4"},
	{"\xfd7zX", "xz"},
	{"BZh", "bzip2"},
	{"PK\x03\x04", "zip"},
}

func notCapture(head []byte) error {
	return fmt.Errorf("not a pcap or pcapng file (starts with % x)", head)
}

// wrap names the file in an error other than io.EOF.
func (f *File) wrap(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("reading %s: %w", f.name, err)
}
