package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/netns"
)

// attack is what somebody sends to make the sidecar take memory.
type attack struct {
	name string
	send func(a *attacker) error
}

var attacks = []attack{
	{"a million half-open connections", func(a *attacker) error {
		for i := range uint32(1_000_000) {
			a.to(i)
			a.segment(flagSYN, nil)
		}
		return a.err
	}},
	{"100000 half-sent heads", func(a *attacker) error {
		head := "GET /never HTTP/1.1\r\nHost: bench\r\nCookie: " + strings.Repeat("x", 1200)
		for i := range uint32(100_000) {
			a.to(i)
			a.segment(flagSYN, nil)
			a.segment(flagACK, []byte(head))
		}
		return a.err
	}},
	{"1000 heads without end", func(a *attacker) error {
		field := []byte("X-Endless: " + strings.Repeat("x", 1300) + "\r\n")
		a.each(1000, 200, []byte("GET /endless HTTP/1.1\r\nHost: bench\r\n"), field)
		return a.err
	}},
	{"1000 chunk extensions without end", func(a *attacker) error {
		a.each(1000, 200, []byte("POST /endless HTTP/1.1\r\nHost: bench\r\nTransfer-Encoding: chunked\r\n\r\n5;a="), []byte(strings.Repeat("x", 1300)))
		return a.err
	}},
	{"a million segments out of order", func(a *attacker) error {
		for i := range uint32(5000) {
			a.to(i)
			a.segment(flagSYN, nil)
			a.seq += 1000 // which never come
			for range 200 {
				a.segment(flagACK, []byte("GET /late HTTP/1.1\r\nHost: bench\r\n\r\n"))
			}
		}
		return a.err
	}},
}

const (
	flagSYN = 0x02
	flagACK = 0x10
)

// attacker makes packets from addresses that nobody has. They are broadcast frames
// with wrong checksums, so that the kernel drops them after the tap has seen them.
type attacker struct {
	fd   int
	peer unix.SockaddrLinklayer
	buf  []byte
	seq  uint32
	sent int
	err  error
}

// newAttacker is for a thread of the client's namespace.
func newAttacker(ns *netns.NS) (*attacker, error) {
	a := &attacker{buf: make([]byte, 40, 1600)}
	err := ns.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		const ipv4 = 0x0008 // ETH_P_IP in network byte order
		a.peer = unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: i.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	b := a.buf
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_TCP
	server := netip.MustParseAddr(serverIP).As4()
	copy(b[16:], server[:])
	binary.BigEndian.PutUint16(b[22:], applicationPort)
	b[32] = 5 << 4
	return a, nil
}

func (a *attacker) close() { _ = unix.Close(a.fd) }

// to chooses the connection that segments are of.
func (a *attacker) to(n uint32) {
	const benchmarking = 198<<24 | 18<<16 // RFC 2544
	binary.BigEndian.PutUint32(a.buf[12:], benchmarking|n>>4&0x1ffff)
	binary.BigEndian.PutUint16(a.buf[20:], uint16(1024+n&0xf))
	a.seq = n * 7919
}

func (a *attacker) segment(flags byte, payload []byte) {
	if a.err != nil {
		return
	}
	b := append(a.buf[:40], payload...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint32(b[24:], a.seq)
	b[33] = flags
	a.seq += uint32(len(payload))
	if flags&flagSYN != 0 {
		a.seq++
	}
	for {
		a.err = unix.Sendto(a.fd, b, 0, &a.peer)
		if !errors.Is(a.err, unix.EINTR) && !errors.Is(a.err, unix.ENOBUFS) {
			break
		}
	}
	a.sent++
}

// each sends a start and then more of the same, on so many connections in turns.
func (a *attacker) each(connections, times uint32, start, more []byte) {
	next := make([]uint32, connections)
	for i := range next {
		a.to(uint32(i))
		a.segment(flagSYN, nil)
		a.segment(flagACK, start)
		next[i] = a.seq
	}
	for range times {
		for i := range next {
			a.to(uint32(i))
			a.seq = next[i]
			a.segment(flagACK, more)
			next[i] = a.seq
		}
	}
}
