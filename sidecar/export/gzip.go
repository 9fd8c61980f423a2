package export

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"
)

// compressor makes gzip data; its state, of some 100 kB, is made when it is
// first needed and kept.
type compressor struct{ w *gzip.Writer }

// compress returns b as gzip data in memory of its own: a transport may still
// read a request's body after it has answered for it.
func (c *compressor) compress(b []byte) []byte {
	var out bytes.Buffer
	if c.w == nil {
		c.w, _ = gzip.NewWriterLevel(&out, gzip.BestSpeed) // a valid level
	} else {
		c.w.Reset(&out)
	}
	_, _ = c.w.Write(b) // a bytes.Buffer takes everything
	_ = c.w.Close()
	return slices.Clip(slices.Clone(out.Bytes()))
}

// decompress returns gzip data as it was, of limit bytes at most.
func decompress(b []byte, limit int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(out) > limit {
		err = errTooLong
	}
	return out, err
}
