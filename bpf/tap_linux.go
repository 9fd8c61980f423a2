package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Tap is the eBPF filter, loaded. Its methods other than Close, and Attach, make
// no system call: they work after every capability has been dropped.
type Tap struct {
	program  *ebpf.Program
	closers  []func() error
	refused  error // why the filter does not walk frames, nil if it does
	seed     uint64
	slots    []tapTapSkip
	ports    []uint64
	rooms    []tapTapRoom
	counters []tapTapCounters
	walks    []tapTapWalk
	runs     []run // of each slot of walks
	ring     pieceRing
	pieces   pieces
	mapped   [][]byte
}

// Load loads the filter. It needs CAP_BPF, Linux 5.8 for that capability, and
// before Linux 5.11 a RLIMIT_MEMLOCK of 256 KiB, over all processes of the user; of
// 512 KiB, and a verifier that takes it, to walk HTTP/2 frames. The error says which
// of these is missing.
func Load() (*Tap, error) {
	t, err := load((*Tap).loadWalking)
	if err == nil {
		return t, nil
	}
	return LoadPlain(err)
}

// LoadPlain loads the filter that does not walk HTTP/2 frames, because of an error.
func LoadPlain(because error) (*Tap, error) {
	t, err := load((*Tap).loadPlain)
	if err == nil {
		t.refused = because
	}
	return t, err
}

func load(program func(*Tap, *ebpf.CollectionSpec) error) (*Tap, error) {
	spec, err := loadTap()
	if err != nil {
		return nil, fmt.Errorf("reading the filter's object: %w", err)
	}
	t := &Tap{seed: rand.Uint64(), pieces: pieces{of: make(map[uint32]*queue)}}
	if err := spec.Variables[tapVarHashSeed].Set(t.seed); err != nil {
		return nil, fmt.Errorf("seeding the filter: %w", err)
	}
	raiseMemlock()
	if err := program(t, spec); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// loadWalking loads the filter that walks HTTP/2 frames.
func (t *Tap) loadWalking(spec *ebpf.CollectionSpec) error {
	var o struct {
		tapMaps
		Program *ebpf.Program `ebpf:"tap_walking"`
	}
	if err := spec.LoadAndAssign(&o, nil); err != nil {
		return explain(err, 512<<10)
	}
	t.program, t.closers = o.Program, []func() error{o.tapMaps.Close, o.Program.Close}
	err := t.mapAll(&o.tapMaps)
	if err == nil {
		t.walks, err = mapArray[tapTapWalk](t, o.Walks)
	}
	if err == nil {
		t.runs, err = mapArray[run](t, o.Runs)
	}
	if err == nil {
		err = t.mapPieces(o.Pieces)
	}
	return err
}

// loadPlain loads the filter that does not.
func (t *Tap) loadPlain(spec *ebpf.CollectionSpec) error {
	var o struct {
		Counters *ebpf.Map     `ebpf:"counters"`
		Ports    *ebpf.Map     `ebpf:"ports"`
		Rooms    *ebpf.Map     `ebpf:"rooms"`
		Skips    *ebpf.Map     `ebpf:"skips"`
		Program  *ebpf.Program `ebpf:"tap"`
	}
	if err := spec.LoadAndAssign(&o, nil); err != nil {
		return explain(err, 256<<10)
	}
	t.program, t.closers = o.Program, []func() error{o.Counters.Close, o.Ports.Close, o.Rooms.Close, o.Skips.Close, o.Program.Close}
	return t.mapAll(&tapMaps{Counters: o.Counters, Ports: o.Ports, Rooms: o.Rooms, Skips: o.Skips})
}

// Walks returns nil if the filter walks HTTP/2 frames, else why it does not.
func (t *Tap) Walks() error { return t.refused }

// raiseMemlock lifts the limit with CAP_SYS_RESOURCE, otherwise it raises the
// soft limit to the hard one.
func raiseMemlock() {
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited) == nil {
		return
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) == nil && l.Cur < l.Max {
		l.Cur = l.Max
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &l)
	}
}

// explain names what is missing, so that it can be given.
func explain(err error, memlock uint64) error {
	var verifier *ebpf.VerifierError
	var l unix.Rlimit
	switch {
	case errors.As(err, &verifier):
		return fmt.Errorf("loading the filter: %w", err)
	case errors.Is(err, unix.EPERM) && unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) == nil && l.Max < memlock && hasCapBPF():
		return fmt.Errorf("loading the filter: Linux before 5.11 needs %d KiB of RLIMIT_MEMLOCK, which is %d KiB for all of the user's processes: %w", memlock>>10, l.Max>>10, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("loading the filter: CAP_BPF is missing, or a seccomp profile or user namespace forbids bpf(): %w", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("loading the filter: the memory limit leaves no room for its maps: %w", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("loading the filter: the kernel has no bpf(): %w", err)
	}
	return fmt.Errorf("loading the filter: %w", err)
}

func hasCapBPF() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	const inSecondWord = unix.CAP_BPF - 32
	return data[1].Effective&(1<<inSecondWord) != 0
}

func (t *Tap) mapAll(m *tapMaps) error {
	skips, err := mapArray[tapTapSkip](t, m.Skips)
	if err != nil {
		return err
	}
	ports, err := mapArray[uint64](t, m.Ports)
	if err != nil {
		return err
	}
	rooms, err := mapArray[tapTapRoom](t, m.Rooms)
	if err != nil {
		return err
	}
	counters, err := mapArray[tapTapCounters](t, m.Counters)
	if err != nil {
		return err
	}
	t.slots, t.ports, t.rooms, t.counters = skips, ports, rooms, counters
	return nil
}

func mapArray[T any](t *Tap, m *ebpf.Map) ([]T, error) {
	var zero T
	n := int(m.MaxEntries())
	page := unix.Getpagesize()
	size := (n*int(unsafe.Sizeof(zero)) + page - 1) &^ (page - 1)
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", m, err)
	}
	t.mapped = append(t.mapped, b)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// Attach makes the filter that of the socket and locks it (SO_LOCK_FILTER).
func (t *Tap) Attach(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, t.program.FD()); err != nil {
		return fmt.Errorf("attaching the filter: %w", err)
	}
	return lock(fd)
}

func lock(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		return fmt.Errorf("locking the filter: %w", err)
	}
	return nil
}

// Close unloads the filter; sockets that it is attached to keep it.
func (t *Tap) Close() error {
	for _, b := range t.mapped {
		_ = unix.Munmap(b)
	}
	var err error
	for _, c := range t.closers {
		err = errors.Join(err, c())
	}
	t.mapped, t.closers = nil, nil
	t.slots, t.ports, t.rooms, t.counters, t.walks, t.ring = nil, nil, nil, nil, nil, pieceRing{}
	return err
}

// id is the hash by which the filter knows a direction: direction_id in C.
func (t *Tap) id(d *Direction) uint64 {
	mix := func(h, w uint64) uint64 {
		h = (h ^ w) * 0x9E3779B97F4A7C15
		return h ^ h>>32
	}
	h := mix(t.seed, binary.LittleEndian.Uint64(d.Source[:8]))
	h = mix(h, binary.LittleEndian.Uint64(d.Source[8:]))
	h = mix(h, binary.LittleEndian.Uint64(d.Destination[:8]))
	h = mix(h, binary.LittleEndian.Uint64(d.Destination[8:]))
	h = mix(h, uint64(bits.ReverseBytes16(d.SourcePort))<<16|uint64(bits.ReverseBytes16(d.DestinationPort)))
	return max(h, 1)
}

// slot returns where a direction lies, or a free slot, or nil if others hold both.
func (t *Tap) slot(id uint64) *tapTapSkip {
	i := id & uint64(len(t.slots)-1)
	a, b := &t.slots[i], &t.slots[i^1]
	switch {
	case a.Id == id || b.Id == id:
		if a.Id == id {
			return a
		}
		return b
	case a.Id == 0:
		return a
	case b.Id == 0:
		return b
	}
	return nil
}

// Skip tells the filter that the bytes from sequence number from on, span of
// them, at most MaxSpan, are not needed: it leaves out packets that lie within.
// If the direction is brief, of other large packets it captures the start, and the
// end as a piece; if it has no pieces, all. Skip replaces what was said of the
// direction before. It reports whether there was room to note it; without,
// everything is captured.
func (t *Tap) Skip(d *Direction, from, span uint32, brief bool) bool {
	id := t.id(d)
	s := t.slot(id)
	if s == nil {
		return false
	}
	if s.Id != id {
		setRange(s, 0, 0)
		atomic.StoreUint64(&s.Id, id)
	}
	span = min(span, MaxSpan)
	if brief {
		span |= tapBrief
	}
	setRange(s, from, span)
	return true
}

// Forget frees what Skip noted of the direction.
func (t *Tap) Forget(d *Direction) {
	id := t.id(d)
	if s := t.slot(id); s != nil && s.Id == id {
		setRange(s, 0, 0)
		atomic.StoreUint64(&s.Id, 0)
	}
}

const tapBrief = 1 << 31 // TAP_BRIEF in C

// setRange stores both numbers at once, as the filter reads them.
func setRange(s *tapTapSkip, from, span uint32) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.From)), uint64(span)<<32|uint64(from))
}

// Own tells the filter, before the connection is made, that a local TCP port is
// of the sidecar's own connection, or that it no longer is.
func (t *Tap) Own(port uint16, own bool) { setBit(&t.ports[port>>6], port, own) }

// Exclude tells the filter to leave out connections with this port at either end.
func (t *Tap) Exclude(port uint16) { setBit(&t.ports[len(t.ports)/2+int(port>>6)], port, true) }

func setBit(word *uint64, port uint16, on bool) {
	if on {
		atomic.OrUint64(word, 1<<(port&63))
	} else {
		atomic.AndUint64(word, ^uint64(1<<(port&63)))
	}
}

// Sized tells the filter, before it is attached, how many bytes a ring has, of
// loopback or of another interface. When a quarter of that waits to be read, the
// filter cuts packets, so that those that follow find room. Of several rings the
// smallest counts.
func (t *Tap) Sized(loopback bool, size int) {
	r := t.room(loopback)
	if limit := uint64(size / 4); r.Limit == 0 || limit < r.Limit {
		atomic.StoreUint64(&r.Limit, limit)
	}
}

// Taken tells the filter that so many bytes of a ring have been read.
func (t *Tap) Taken(loopback bool, n int) {
	atomic.AddUint64(&t.room(loopback).Taken, uint64(n))
	t.drain(uint64(len(t.ring.data) / 4)) // half of it: the data is there twice
}

// Drained tells the filter that nothing waits in the rings: what was given and
// not taken had found no room.
func (t *Tap) Drained() {
	for i := range t.rooms {
		atomic.StoreUint64(&t.rooms[i].Taken, atomic.LoadUint64(&t.rooms[i].Given))
	}
	t.drain(0)
}

func (t *Tap) room(loopback bool) *tapTapRoom {
	if loopback {
		return &t.rooms[0]
	}
	return &t.rooms[1]
}

// Counters returns the sums over all CPUs.
func (t *Tap) Counters() Counters {
	sum := Counters{PiecesStale: t.pieces.stale.Load()}
	for i := range t.counters {
		c := &t.counters[i]
		sum.Seen += atomic.LoadUint64(&c.Seen)
		sum.NotTCP += atomic.LoadUint64(&c.NotTcp)
		sum.Malformed += atomic.LoadUint64(&c.Malformed)
		sum.Fragments += atomic.LoadUint64(&c.Fragments)
		sum.Own += atomic.LoadUint64(&c.Own)
		sum.Excluded += atomic.LoadUint64(&c.Excluded)
		sum.Empty += atomic.LoadUint64(&c.Empty)
		sum.Omitted += atomic.LoadUint64(&c.Omitted)
		sum.OmittedBytes += atomic.LoadUint64(&c.OmittedBytes)
		sum.Captured += atomic.LoadUint64(&c.Captured)
		sum.Cut += atomic.LoadUint64(&c.Cut)
		sum.LoopbackCopy += atomic.LoadUint64(&c.LoopbackCopy)
		sum.Walked += atomic.LoadUint64(&c.Walked)
		sum.Unsynced += atomic.LoadUint64(&c.Unsynced)
		sum.Pieces += atomic.LoadUint64(&c.Pieces)
		sum.PiecesFull += atomic.LoadUint64(&c.PiecesFull)
	}
	return sum
}
