package exchange

import (
	"golang.org/x/net/http2/hpack"
)

const (
	defaultTable = 4096     // bytes (RFC 7541, section 4.2)
	largestTable = 64 << 10 // that is followed
	entrySize    = 32       // of an entry without name and value (section 4.1)
)

// fieldDecoder decodes the header blocks of one direction (RFC 7541).
type fieldDecoder struct {
	dec *hpack.Decoder
	// allowed is the largest table that the receiver let the sender have, 0 if it
	// said nothing. It is never lowered: until the sender has acknowledged that, it
	// may go on as before, and the bound is ours.
	allowed uint32
	// partial tells that entries of the table may be older than what was seen.
	partial bool
	table   tableCost

	block decodedBlock
	emit  func(name, value string)
	limit int
}

// decodedBlock is what is known of a header block besides its fields.
type decodedBlock struct {
	ok      bool // it could be decoded
	unknown bool // some of its fields refer to entries that are not known; they were left out
	large   bool // its fields are larger than the limit; some were left out
	pseudo  bool // it has pseudo-header fields (RFC 9113, section 8.3)
	size    int  // bytes of its fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts them
}

// forget makes all entries of the table unknown.
func (f *fieldDecoder) forget() {
	*f = fieldDecoder{allowed: f.allowed, partial: true}
}

// allow takes SETTINGS_HEADER_TABLE_SIZE of the receiver.
func (f *fieldDecoder) allow(size uint32) {
	f.allowed = max(f.allowed, min(size, largestTable))
	if f.dec != nil {
		f.dec.SetAllowedMaxDynamicTableSize(f.largest())
	}
}

// largest is the largest table that the sender may use. If the receiver's settings
// may have been missed, it is all that is followed.
func (f *fieldDecoder) largest() uint32 {
	if f.partial {
		return largestTable
	}
	return max(f.allowed, defaultTable)
}

// costWith is how many bytes the decoder takes once it has decoded the block.
func (f *fieldDecoder) costWith(block []byte) int {
	t := f.table
	if f.dec == nil {
		t = tableCost{max: defaultTable}
		if f.partial {
			t.bytes = t.most()
		}
	}
	t.add(block)
	f.table = t
	return decoderCost + t.bytes
}

// decode hands the fields of a block to emit, as long as their size is not above
// the limit.
func (f *fieldDecoder) decode(block []byte, limit int, emit func(name, value string)) decodedBlock {
	if f.dec == nil {
		f.start()
	}
	f.emit, f.limit, f.block = emit, limit, decodedBlock{}
	err := f.resize(&block)
	if err == nil {
		_, err = f.dec.Write(block)
	}
	if e := f.dec.Close(); err == nil {
		err = e
	}
	if f.block.ok = err == nil; !f.block.ok {
		f.dec = nil // and with it the state of the table
	}
	f.emit = nil
	return f.block
}

// resize takes the updates of the table's size off the start of a block. There may
// be two (RFC 7541, section 4.2), of which hpack takes only one per block.
func (f *fieldDecoder) resize(block *[]byte) error {
	for b := *block; len(b) > 0 && b[0]&0xe0 == 0x20; b = *block {
		_, rest, ok := prefixed(b, 5)
		if !ok {
			return nil // Write tells
		}
		if _, err := f.dec.Write(b[:len(b)-len(rest)]); err != nil {
			return err
		}
		if err := f.dec.Close(); err != nil {
			return err
		}
		*block = rest
	}
	return nil
}

func (f *fieldDecoder) start() {
	f.dec = hpack.NewDecoder(defaultTable, nil)
	f.dec.SetMaxStringLength(largestTable)
	f.dec.SetAllowedMaxDynamicTableSize(f.largest())
	if f.partial {
		// Entries count from the newest, so those that come are where the sender
		// has them as long as older ones take no more room than there: as many
		// as can be, of the smallest size. A field has a name, so these are known.
		f.dec.SetEmitFunc(func(hpack.HeaderField) {})
		for range defaultTable / entrySize {
			_, _ = f.dec.Write([]byte{0x40, 0, 0}) // literal with indexing: no name, no value
		}
		_ = f.dec.Close()
	}
	f.dec.SetEmitFunc(f.take)
}

// take takes a field of the block.
func (f *fieldDecoder) take(field hpack.HeaderField) {
	b := &f.block
	if field.Name == "" {
		b.unknown = b.unknown || f.partial
	}
	b.size += len(field.Name) + len(field.Value) + entrySize
	if b.large = b.size > f.limit; b.large || field.Name == "" {
		return
	}
	b.pseudo = b.pseudo || field.Name[0] == ':'
	f.emit(field.Name, field.Value)
}
