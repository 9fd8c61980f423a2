package bpf

import (
	"encoding/binary"
	"sync/atomic"
)

// cursor is where the filter expects the next frame header of a direction: enum
// tap_cursor in C.
type cursor uint64

const maxFrame = 1<<24 - 1

func newCursor(seq, span uint32) cursor {
	return 1<<63 | cursor(min(span, maxFrame))<<32 | cursor(seq)
}

func (c cursor) valid() bool { return c != 0 }
func (c cursor) seq() uint32 { return uint32(c) }

// walk returns the slot of a direction, or one that it may have, or nil if others
// hold both, and its runs. One that the filter claimed itself may be taken.
func (t *Tap) walk(id uint64) (w *tapTapWalk, runs []run) {
	if len(t.walks) == 0 {
		return nil, nil
	}
	perSlot := len(t.runs) / len(t.walks)
	i := id >> 32 & uint64(len(t.walks)-1)
	a, b := &t.walks[i], &t.walks[i^1]
	runsOf := func(i uint64) []run { return t.runs[int(i)*perSlot:][:perSlot] }
	switch {
	case atomic.LoadUint64(&a.Id) == id:
		return a, runsOf(i)
	case atomic.LoadUint64(&b.Id) == id:
		return b, runsOf(i ^ 1)
	case a.User == 0:
		return a, runsOf(i)
	case b.User == 0:
		return b, runsOf(i ^ 1)
	}
	return nil, nil
}

// Walk tells the filter that an HTTP/2 frame header of the direction is at
// sequence number seq, and that the span bytes before it are not needed. From there
// on it finds the next ones itself. header is that of a DATA frame to which others
// are likely to be similar, or nil. If the filter has got further by itself already,
// it knows better. Walk reports whether there was room to note it.
func (t *Tap) Walk(d *Direction, seq, span uint32, header []byte) bool {
	id := t.id(d)
	w, runs := t.walk(id)
	if w == nil {
		return false
	}
	known := atomic.LoadUint64(&w.Id) == id
	if !known || w.User == 0 {
		forgetRuns(runs)
	}
	atomic.StoreUint32(&w.User, 1)
	if at := cursor(atomic.LoadUint64(&w.Next)); known && at.valid() && !before(at.seq(), seq-span) {
		return true
	}
	if early := atomic.LoadUint64(&w.Early); known && early != 0 && atomic.LoadUint32(&w.EarlySeq) == seq {
		atomic.StoreUint64(&w.Held[0], 0)
		atomic.StoreUint64(&w.Last, 0)
		atomic.StoreUint64(&w.Next, early)
		return true
	}
	t.clear(w)
	if len(header) >= 8 {
		atomic.StoreUint64(&w.Model, binary.LittleEndian.Uint64(header))
	}
	atomic.StoreUint64(&w.Id, id)
	atomic.StoreUint64(&w.Next, uint64(newCursor(seq, span)))
	return true
}

// Unwalk takes back what Walk told of the direction, or what the filter found out
// itself: all of it is captured.
func (t *Tap) Unwalk(d *Direction) {
	id := t.id(d)
	if w, runs := t.walk(id); w != nil && w.Id == id {
		t.pieces.forget(uint32(id))
		t.clear(w)
		forgetRuns(runs)
		atomic.StoreUint64(&w.Id, 0)
		atomic.StoreUint32(&w.User, 0)
	}
}

func (t *Tap) clear(w *tapTapWalk) {
	for _, p := range []*uint64{&w.Next, &w.Hole, &w.Early, &w.Held[0], &w.Held[1], &w.Model, &w.Last} {
		atomic.StoreUint64(p, 0)
	}
}
