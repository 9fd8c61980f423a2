package bpf

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
)

// frameKey is the same for all frames that may be in a run, 0 if there may be none
// of them: frame_key in C.
func frameKey(header []byte) uint64 {
	const windowUpdate = 0x08040000
	lo := binary.LittleEndian.Uint64(header)
	switch {
	case lo&0xffffffffff == windowUpdate:
		return 0xff<<32 | windowUpdate
	case lo&0xffff000000 == 0 && lo&0xffffff != 0:
		return lo | uint64(header[8])<<24
	}
	return 0
}

// run is frames that were left out whole: enum tap_run in C.
type run uint64

func (r run) start() uint32  { return uint32(r >> 32) }
func (r run) frames() uint32 { return uint32(r >> 16 & 0xffff) }

// from returns how many of its frames there are from a sequence number on, if a frame
// starts there and the one before had the header.
func (r run) from(seq uint32, header []byte) int {
	key := frameKey(header)
	if r == 0 || key == 0 || uint16(r) != uint16(key*0x9E3779B97F4A7C15>>48) || before(seq, r.start()) {
		return 0
	}
	stride := frameSize(header)
	done := (seq - r.start()) / stride
	if (seq-r.start())%stride != 0 || done >= r.frames() {
		return 0
	}
	return int(r.frames() - done)
}

// LeftOut returns how many frames, from sequence number seq of a direction on, the
// filter left out because they are like the one before, which has the header.
func (t *Tap) LeftOut(d *Direction, seq uint32, header []byte) int {
	id := t.id(d)
	n := 0
	// The filter sends a run before it starts another: what is not here any more then
	// is there.
	if w, runs := t.walk(id); w != nil && atomic.LoadUint64(&w.Id) == id {
		for i := range runs {
			n = max(n, run(atomic.LoadUint64((*uint64)(&runs[i]))).from(seq, header))
		}
	}
	t.drain(0)
	return max(n, t.pieces.run(uint32(id), seq, header))
}

func forgetRuns(runs []run) {
	for i := range runs {
		atomic.StoreUint64((*uint64)(&runs[i]), 0)
	}
}

// ended is a run that the filter has ended.
type ended struct {
	run
	age uint32 // as that of a piece
}

// run returns how many frames of a direction were left out from a sequence number on;
// see run.from. Runs that end before are forgotten.
func (s *pieces) run(tag, from uint32, header []byte) (n int) {
	q := s.of[tag]
	if q == nil {
		return 0
	}
	past := 0
	for past < len(q.runs) && !before(from, q.runs[past].start()) {
		if n = q.runs[past].from(from, header); n > 0 {
			break
		}
		past++
	}
	q.runs = slices.Delete(q.runs, 0, past)
	s.n -= past
	s.releaseEmpty(tag, q)
	return n
}

// addRun puts a run where it belongs, most often last.
func (q *queue) addRun(r ended) {
	i := len(q.runs)
	for i > 0 && before(r.start(), q.runs[i-1].start()) {
		i--
	}
	q.runs = slices.Insert(q.runs, i, r)
}
