package capture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// windowSize bounds the memory of a file: it has room for any record, and for
// a pcapng block with a packet and its options. A compressed file has two.
const windowSize = 2 * maxPacket

// window is the part of the file that is in memory. It stands at a record or
// block until advance goes on to the next, so that errors can give its place.
type window struct {
	*bufio.Reader
	start  int64 // offset in the file of the record or block
	offset int64 // of the next byte; beyond start if part of it was skipped
	length int64 // that advance has to skip
	gzip   bool  // offsets are those of the decompressed content
}

func newWindow(r io.Reader) *window {
	return &window{Reader: bufio.NewReaderSize(r, windowSize)}
}

// advance goes on to the next record or block.
func (w *window) advance() error {
	err := w.skip(w.length)
	w.start, w.length = w.offset, 0
	return err
}

// skip passes over n bytes, which may be more than the window can hold.
func (w *window) skip(n int64) error {
	for n > 0 {
		done, err := w.Discard(int(min(n, windowSize)))
		w.offset += int64(done)
		n -= int64(done)
		if err != nil {
			return err
		}
	}
	return nil
}

// head returns the header of what, which the window stands at, or io.EOF if
// the file ends there. It is valid until the next call of a method.
func (w *window) head(n int, what string) ([]byte, error) {
	b, err := w.Peek(n)
	if errors.Is(err, io.EOF) && len(b) == 0 {
		return nil, io.EOF
	}
	if err != nil {
		return nil, w.cut(err, what, int64(n), int64(len(b)))
	}
	return b, nil
}

// whole returns all n bytes, at most windowSize, of what the window stands at.
// They are valid until advance.
func (w *window) whole(n int, what string) ([]byte, error) {
	b, err := w.Peek(n)
	if err != nil {
		return nil, w.cut(err, what, int64(n), int64(len(b)))
	}
	w.length = int64(n)
	return b, nil
}

// cut is the error of a file that ends, or cannot be read, within what.
func (w *window) cut(err error, what string, want, have int64) error {
	if !errors.Is(err, io.EOF) {
		return w.fault(err)
	}
	return fmt.Errorf("cut off in the %s at %s, after %d of %d bytes: %w",
		what, w.place(), have, want, io.ErrUnexpectedEOF)
}

// fault is an error of reading the file, and not of what was read.
func (w *window) fault(err error) error {
	err = cause(err)
	if w.gzip && errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("compressed content cut off behind %s: %w", w.place(), err)
	}
	if w.start == 0 {
		return err
	}
	return fmt.Errorf("behind %s: %w", w.place(), err)
}

func (w *window) place() string {
	if w.gzip {
		return fmt.Sprintf("byte %d of the decompressed content", w.start)
	}
	return fmt.Sprintf("byte %d", w.start)
}

// cause is err without the operation and path that it repeats.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
