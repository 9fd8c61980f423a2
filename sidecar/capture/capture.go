// Package capture is where packets come from: the ring of a live tap, or a
// capture file. What follows it is the same for both.
package capture

import "errors"

var (
	// ErrIdle is returned by a live Source when no packet came for a while.
	ErrIdle = errors.New("no packet")
	// ErrWoken is returned by a live Source that was woken; see Live.Wake.
	ErrWoken = errors.New("woken")
)

// Packet is an IP packet, from its IP header on.
type Packet struct {
	// At is when it was captured, in nanoseconds since the Unix epoch.
	At int64
	// Out tells that the watched network namespace sent it. It is never set
	// for loopback traffic and for packets of a file.
	Out bool
	// Data is what was captured, valid until the next call of Next.
	Data []byte
	// Len is the length on the wire in bytes; len(Data) <= Len.
	Len int
}

// Source yields packets in the order of their capture.
type Source interface {
	// Next returns the next packet. It returns ErrIdle when none came for a
	// while, so that the caller can attend to its clocks, ErrWoken if there is none
	// now, and io.EOF at the end.
	Next() (Packet, error)
	Close() error
}
