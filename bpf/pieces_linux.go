package bpf

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// pieceRing is the consumer's side of a BPF ring buffer (Linux 5.8), mapped so
// that reading takes no system call.
type pieceRing struct {
	consumer, producer *uint64
	data               []byte // the ring twice, so that no record is in two parts
}

// ringHeader is the length of a record in bytes, with flags in the upper bits,
// and a field that user space has no use for (struct bpf_ringbuf_hdr).
const (
	ringHeader  = 8
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
)

func (t *Tap) mapPieces(m *ebpf.Map) error {
	page, size := unix.Getpagesize(), int(m.MaxEntries())
	consumer, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping %s: %w", m, err)
	}
	t.mapped = append(t.mapped, consumer)
	producer, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping %s: %w", m, err)
	}
	t.mapped = append(t.mapped, producer)
	t.ring = pieceRing{
		consumer: (*uint64)(unsafe.Pointer(unsafe.SliceData(consumer))),
		producer: (*uint64)(unsafe.Pointer(unsafe.SliceData(producer))),
		data:     producer[page:],
	}
	return nil
}

// next returns the next record, nil if there is none. It is valid until done is
// called with the position behind it.
func (r *pieceRing) next() (record []byte, behind uint64) {
	if r.consumer == nil {
		return nil, 0
	}
	at := *r.consumer
	for at != atomic.LoadUint64(r.producer) {
		start := at & uint64(len(r.data)/2-1)
		head := (*uint32)(unsafe.Pointer(&r.data[start]))
		// Another CPU may be writing it, while the piece that is looked for is behind it.
		header := atomic.LoadUint32(head)
		for range 10000 {
			if header&ringBusy == 0 {
				break
			}
			header = atomic.LoadUint32(head)
		}
		if header&ringBusy != 0 {
			return nil, 0
		}
		n := uint64(header &^ (ringBusy | ringDiscard))
		behind = at + (ringHeader+n+7)&^7
		if header&ringDiscard == 0 {
			return r.data[start+ringHeader : start+ringHeader+n], behind
		}
		atomic.StoreUint64(r.consumer, behind)
		at = behind
	}
	return nil, 0
}

func (r *pieceRing) done(behind uint64) { atomic.StoreUint64(r.consumer, behind) }

// piece is bytes of a direction that were captured beside its packets: tap_piece
// in C. A frame header may come again, after the payload of each frame.
type piece struct {
	seq     uint32
	bytes   [15]byte
	n       uint8
	repeats uint8
	age     uint32 // how many pieces came before
}

// frameSize returns how long a frame of HTTP/2 is, header included, by that.
func frameSize(header []byte) uint32 {
	const headerSize = 9
	return headerSize + uint32(header[0])<<16 + uint32(header[1])<<8 + uint32(header[2])
}

func (p *piece) end() uint32 { return p.seq + uint32(p.n) }

// again makes the piece its next repetition, if there is one.
func (p *piece) again() bool {
	if p.repeats == 0 {
		return false
	}
	p.repeats--
	p.seq += frameSize(p.bytes[:])
	return true
}

// pieces are those that wait for their packets, in the order of their sequence
// numbers. Those that nobody asks for, because their packet was lost or captured
// whole, make room for new ones.
type pieces struct {
	of    map[uint32]*queue // by the lower half of the direction's id
	spare []*queue          // empty, to be used again
	n     int               // of them and of runs
	count uint32            // that came
	stale atomic.Uint64     // that nobody asked for
}

const maxPieces = 4096

// queue is the pieces of a direction, of which the first have been asked for.
type queue struct {
	all  []piece
	past int
	runs []ended // in the order of their sequence numbers
}

func (q *queue) waiting() []piece { return q.all[q.past:] }

// add puts a piece where it belongs, most often last.
func (q *queue) add(p piece) {
	if q.past > len(q.all)/2 {
		q.all, q.past = append(q.all[:0], q.waiting()...), 0
	}
	i := len(q.all)
	for i > q.past && before(p.seq, q.all[i-1].seq) {
		i--
	}
	q.all = slices.Insert(q.all, i, p)
}

// queue returns that of a direction.
func (s *pieces) queue(tag uint32) *queue {
	q := s.of[tag]
	if q != nil {
		return q
	}
	if n := len(s.spare); n > 0 {
		q, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		q = new(queue)
	}
	s.of[tag] = q
	return q
}

// releaseEmpty forgets the queue of a direction if nothing waits in it.
func (s *pieces) releaseEmpty(tag uint32, q *queue) {
	if len(q.waiting()) == 0 && len(q.runs) == 0 {
		s.release(tag, q)
	}
}

// release forgets the queue of a direction.
func (s *pieces) release(tag uint32, q *queue) {
	const most, large = 16, 1024
	delete(s.of, tag)
	if len(s.spare) < most && cap(q.all) <= large {
		q.all, q.past, q.runs = q.all[:0], 0, q.runs[:0]
		s.spare = append(s.spare, q)
	}
}

func before(a, b uint32) bool { return int32(a-b) < 0 }

func (s *pieces) add(record []byte) {
	const size = 24
	if len(record) != size {
		return
	}
	tag := binary.LittleEndian.Uint32(record)
	if s.n >= maxPieces {
		s.expire(maxPieces / 2)
	}
	last, age := record[size-1], s.count
	s.n++
	s.count++
	if last == 0 {
		s.queue(tag).addRun(ended{run(binary.LittleEndian.Uint64(record[8:])), age})
		return
	}
	p := piece{seq: binary.LittleEndian.Uint32(record[4:]), n: last & 0xf, repeats: last >> 4, age: age}
	copy(p.bytes[:], record[8:])
	s.queue(tag).add(p)
}

// expire forgets pieces of which so many came later.
func (s *pieces) expire(later uint32) {
	for tag, q := range s.of {
		waiting := len(q.waiting())
		kept := q.all[:0]
		for _, p := range q.waiting() {
			if s.count-p.age <= later {
				kept = append(kept, p)
			}
		}
		q.all, q.past = kept, 0
		gone := waiting - len(kept) + len(q.runs)
		q.runs = slices.DeleteFunc(q.runs, func(r ended) bool { return s.count-r.age > later })
		gone -= len(q.runs)
		s.n -= gone
		s.stale.Add(uint64(gone))
		s.releaseEmpty(tag, q)
	}
}

// next returns the first piece of a direction that ends behind from, if it starts
// before to. Those that end before are forgotten.
func (s *pieces) next(tag, from, to uint32) (seq uint32, b []byte, ok bool) {
	q := s.of[tag]
	if q == nil {
		return 0, nil, false
	}
	for q.past < len(q.all) {
		p := &q.all[q.past]
		if before(from, p.end()) {
			return p.seq, p.bytes[:p.n], before(p.seq, to)
		}
		if !p.again() {
			q.past++
			s.n--
		}
	}
	s.releaseEmpty(tag, q)
	return 0, nil, false
}

func (s *pieces) forget(tag uint32) {
	if q := s.of[tag]; q != nil {
		n := len(q.waiting()) + len(q.runs)
		s.n -= n
		s.stale.Add(uint64(n))
		s.release(tag, q)
	}
}

// Piece returns the first bytes of a direction, captured beside its packets, that
// end behind sequence number from and start before to. They are valid until the
// next call. Those before from are forgotten.
func (t *Tap) Piece(d *Direction, from, to uint32) (seq uint32, b []byte, ok bool) {
	tag := uint32(t.id(d))
	for {
		if seq, b, ok = t.pieces.next(tag, from, to); ok {
			return seq, b, true
		}
		record, behind := t.ring.next()
		if record == nil {
			return 0, nil, false
		}
		t.pieces.add(record)
		t.ring.done(behind)
	}
}

// drain reads pieces until no more than some bytes of them wait in the ring.
func (t *Tap) drain(left uint64) {
	r := &t.ring
	for r.consumer != nil && atomic.LoadUint64(r.producer)-*r.consumer > left {
		record, behind := r.next()
		if record == nil {
			return
		}
		t.pieces.add(record)
		r.done(behind)
	}
}
