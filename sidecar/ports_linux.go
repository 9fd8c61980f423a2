package sidecar

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// portSet is a set of TCP ports that any goroutine may use.
type portSet [1 << 16 / 64]atomic.Uint64

func (s *portSet) has(p uint16) bool { return s[p>>6].Load()>>(p&63)&1 != 0 }

func (s *portSet) set(p uint16, on bool) {
	if on {
		s[p>>6].Or(1 << (p & 63))
	} else {
		s[p>>6].And(^uint64(1 << (p & 63)))
	}
}

// parsePorts reads a comma-separated list of TCP ports.
func parsePorts(name, value string) ([]uint16, error) {
	var ports []uint16
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		n, err := strconv.ParseUint(item, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%s=%q: accepted are TCP ports from 1 to 65535, separated by commas", name, value)
		}
		ports = append(ports, uint16(n))
	}
	return ports, nil
}

// dialer makes the sidecar's own connections: each is bound to a local port that
// the tap has been told of before the first packet, so that it never captures
// them. The kernel gives such a port to nobody else.
type dialer struct {
	own func(port uint16, own bool)
}

func (d dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	var mu sync.Mutex
	var ports []uint16
	dialed := false // an attempt that another was faster than may still begin
	nd := net.Dialer{
		Timeout: 10 * time.Second,
		Control: func(network, _ string, c syscall.RawConn) error {
			var port uint16
			var err error
			if e := c.Control(func(fd uintptr) { port, err = bindAnyPort(int(fd), network) }); e != nil {
				return e
			}
			if err != nil {
				return fmt.Errorf("binding a local port: %w", err)
			}
			// A batch of the usual size is then written in one go. The kernel bounds it.
			_ = c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) })
			d.own(port, true)
			mu.Lock()
			defer mu.Unlock()
			if ports = append(ports, port); dialed {
				d.release(port)
			}
			return nil
		},
	}
	conn, err := nd.DialContext(ctx, network, addr)
	mu.Lock()
	defer mu.Unlock()
	dialed = true
	var used uint16
	if err == nil {
		used = conn.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	}
	for _, p := range ports {
		if p != used {
			d.release(p)
		}
	}
	if err != nil {
		return nil, err
	}
	return &ownConn{Conn: conn, release: sync.OnceFunc(func() { d.release(used) })}, nil
}

// release gives a port back when the last packets of its connection are gone.
func (d dialer) release(port uint16) {
	time.AfterFunc(2*time.Second, func() { d.own(port, false) })
}

func bindAnyPort(fd int, network string) (uint16, error) {
	var local unix.Sockaddr = &unix.SockaddrInet4{}
	if strings.HasSuffix(network, "6") {
		local = &unix.SockaddrInet6{}
	}
	if err := unix.Bind(fd, local); err != nil {
		return 0, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port), nil
	case *unix.SockaddrInet6:
		return uint16(a.Port), nil
	}
	return 0, fmt.Errorf("unexpected socket address %T", name)
}

const sendBuffer = 512 << 10

type ownConn struct {
	net.Conn
	release func()
}

// ReadFrom writes what is in memory, as the body of a request is, in one go, not in
// pieces of a buffer.
func (c *ownConn) ReadFrom(r io.Reader) (int64, error) {
	type memory interface {
		io.WriterTo
		Len() int
	}
	l, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(c.Conn, r)
	}
	m, ok := l.R.(memory)
	if !ok || int64(m.Len()) > l.N {
		return io.Copy(c.Conn, r)
	}
	n, err := m.WriteTo(c.Conn)
	l.N -= n
	return n, err
}

func (c *ownConn) Close() error {
	c.release()
	return c.Conn.Close()
}
