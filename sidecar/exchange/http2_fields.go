package exchange

import (
	"golang.org/x/net/http2/hpack"
)

// What a decoder is taken to cost, in bytes: few connections fill their table,
// but one that begins with unknown entries is full from the start.
const (
	decoderCost        = 2 << 10
	partialDecoderCost = 16 << 10
)

const (
	defaultTable = 4096     // bytes (RFC 7541, section 4.2)
	largestTable = 64 << 10 // that is followed
)

// fieldDecoder decodes the header blocks of one direction (RFC 7541).
type fieldDecoder struct {
	dec     *hpack.Decoder
	allowed uint32
	// partial tells that entries of the table may be older than what was seen.
	partial bool

	emit    func(name, value string)
	unknown bool // the block refers to such an entry
}

// forget makes all entries of the table unknown.
func (f *fieldDecoder) forget() { f.dec, f.partial = nil, true }

// cost is what it takes to start decoding, 0 once that is done.
func (f *fieldDecoder) cost() int {
	switch {
	case f.dec != nil:
		return 0
	case f.partial:
		return partialDecoderCost
	}
	return decoderCost
}

// allow takes SETTINGS_HEADER_TABLE_SIZE of the receiver.
func (f *fieldDecoder) allow(size uint32) {
	f.allowed = min(size, largestTable)
	if f.dec != nil {
		f.dec.SetAllowedMaxDynamicTableSize(f.allowed)
	}
}

// decode hands the fields of a block to emit. It reports whether the block could
// be decoded, and whether some of its fields are unknown and were left out.
func (f *fieldDecoder) decode(block []byte, emit func(name, value string)) (unknown, ok bool) {
	if f.dec == nil {
		f.start()
	}
	f.emit, f.unknown = emit, false
	_, err := f.dec.Write(block)
	if e := f.dec.Close(); err == nil {
		err = e
	}
	if err != nil {
		f.dec = nil // and with it the state of the table
	}
	return f.unknown, err == nil
}

func (f *fieldDecoder) start() {
	f.dec = hpack.NewDecoder(defaultTable, nil)
	f.dec.SetMaxStringLength(largestTable)
	f.dec.SetAllowedMaxDynamicTableSize(max(f.allowed, defaultTable))
	if f.partial {
		// Entries count from the newest, so those that come are where the sender
		// has them as long as older ones take no more room than there: as many
		// as can be, of the smallest size. A field has a name, so these are known.
		const entrySize = 32
		f.dec.SetEmitFunc(func(hpack.HeaderField) {})
		for range defaultTable / entrySize {
			_, _ = f.dec.Write([]byte{0x40, 0, 0}) // literal with indexing: no name, no value
		}
		_ = f.dec.Close()
	}
	f.dec.SetEmitFunc(func(field hpack.HeaderField) {
		if field.Name == "" {
			f.unknown = true
			return
		}
		f.emit(field.Name, field.Value)
	})
}
