package capture

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// blockSize holds a GSO packet of 64 KiB with its headers. Larger blocks would
	// hold more of them in the same memory, but fewer blocks are less time.
	blockSize = 256 << 10

	// In network byte order.
	allProtocols = 0x0300 // ETH_P_ALL, the only one that sees sent packets
	noProtocol   = 0xb588 // for experiments (IEEE 802): nothing that is sent has it
)

// ring is an AF_PACKET socket bound to one interface, with its TPACKET_V3 ring
// (Linux 3.2).
type ring struct {
	fd        int
	ifindex   int
	ifname    string
	mem       []byte
	blocks    int
	block     int     // that user space reads or waits for
	remaining uint32  // packets of the block not yet returned
	next      uintptr // offset of the next of them
	holding   bool    // the block is ours
	last      bool    // the kernel adds nothing any more
	drops     uint64
	taken     func(n int) // is told how many bytes a block had that was given back
}

// openRing opens a socket whose ring has the given number of blocks, attaches
// the filter and only then binds it, so that no packet passes unfiltered. The
// kernel keeps a block that is not full for handOver at most.
func openRing(ifindex int, ifname string, blocks int, handOver time.Duration, attach func(fd int) error) (_ *ring, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("opening a packet socket: CAP_NET_RAW is missing: %w", err)
		}
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	r := &ring{fd: fd, ifindex: ifindex, ifname: ifname, blocks: blocks}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("choosing TPACKET_V3: %w", err)
	}
	const frameSize = 2048 // only has to divide the block; V3 packs packets tightly
	request := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: uint32(blocks),
		Frame_size: frameSize, Frame_nr: uint32(blocks * blockSize / frameSize),
		Retire_blk_tov: uint32(handOver.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return nil, fmt.Errorf("making a ring of %d KiB for %s: %w", blocks*blockSize>>10, ifname, err)
	}
	r.mem, err = unix.Mmap(fd, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the ring of %s: %w", ifname, err)
	}
	if err := attach(fd); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: ifindex}); err != nil {
		return nil, fmt.Errorf("binding to %s: %w", ifname, err)
	}
	return r, nil
}

func (r *ring) header() *unix.TpacketHdrV1 {
	const afterVersionAndOffset = 8
	return (*unix.TpacketHdrV1)(unsafe.Pointer(&r.mem[r.block*blockSize+afterVersionAndOffset]))
}

// ready reports whether there is a packet to read.
func (r *ring) ready() bool {
	if r.remaining > 0 {
		return true
	}
	r.release()
	h := r.header()
	ours := atomic.LoadUint32(&h.Block_status)&unix.TP_STATUS_USER != 0
	if !ours && (!r.last || h.Num_pkts == 0) {
		return false
	}
	r.holding = true
	r.remaining = h.Num_pkts
	r.next = uintptr(h.Offset_to_first_pkt)
	if r.remaining == 0 {
		return r.ready()
	}
	return true
}

// release gives the block back to the kernel, when all of it has been read.
func (r *ring) release() {
	if !r.holding {
		return
	}
	h := r.header()
	n := int(h.Blk_len)
	h.Num_pkts = 0 // for finish
	atomic.StoreUint32(&h.Block_status, unix.TP_STATUS_KERNEL)
	r.taken(n)
	r.holding = false
	r.block = (r.block + 1) % r.blocks
}

// finish makes the kernel add no more packets. Those of the block that it has not
// handed over can be read then.
func (r *ring) finish() {
	// Returns when no packet is on its way into the ring any more.
	err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: noProtocol, Ifindex: r.ifindex})
	// An interface that is gone has no packets either.
	r.last = err == nil || errors.Is(err, unix.ENODEV)
}

// read returns the next packet of the block; ready has returned true.
func (r *ring) read() Packet {
	base := r.block * blockSize
	at := base + int(r.next)
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&r.mem[at]))
	link := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&r.mem[at+int(unsafe.Sizeof(*h))]))
	data := at + int(h.Net)
	r.next += uintptr(h.Next_offset)
	r.remaining--
	return Packet{
		At:   int64(h.Sec)*1e9 + int64(h.Nsec),
		Out:  link.Pkttype == unix.PACKET_OUTGOING,
		Data: r.mem[data : data+int(h.Snaplen) : data+int(h.Snaplen)],
		Len:  int(h.Len),
	}
}

// lost returns the packets that found no room in the ring so far.
func (r *ring) lost() uint64 {
	if s, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		r.drops += uint64(s.Drops) // reading resets it
	}
	return r.drops
}

// clearError takes the pending error off the socket: ENETDOWN when the
// interface went down. The socket goes on when it is up again.
func (r *ring) clearError() {
	_, _ = unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
}

func (r *ring) close() {
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
		r.mem = nil
	}
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}
