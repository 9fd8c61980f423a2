package capture

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LiveConfig says what a live capture watches.
type LiveConfig struct {
	// Interfaces by name; none means those that are up, of the calling thread's
	// network namespace.
	Interfaces []string
	// RingBytes is shared by the rings of all interfaces; 0 means 4 MiB.
	RingBytes int
	// Attach attaches the filter to a socket.
	Attach func(fd int) error
	// Meter may be nil.
	Meter Meter
	// Idle is how long Next waits for a packet before it returns ErrIdle; 0
	// means a second.
	Idle time.Duration
}

// Meter is told what the filter has to know to see how full the rings are; see
// bpf.Tap.
type Meter interface {
	Sized(loopback bool, size int) // a ring has so many bytes
	Taken(loopback bool, n int)    // so many of them were read
	Drained()                      // nothing waits in any ring
}

type noMeter struct{}

func (noMeter) Sized(bool, int) {}
func (noMeter) Taken(bool, int) {}
func (noMeter) Drained()        {}

const (
	defaultRingBytes  = 4 << 20
	minBlocks         = 4
	maxLiveInterfaces = 8
)

// Live captures the packets of network interfaces. It needs CAP_NET_RAW to be
// opened and nothing afterwards. All methods but Stop belong to one goroutine.
type Live struct {
	rings   []*ring
	current int
	idle    time.Duration
	meter   Meter
	stop    atomic.Bool
	drained bool // after Stop
	// Readable when a ring is. The runtime waits for it: a goroutine that waits
	// in a system call of its own keeps the runtime's monitor awake, which at
	// 2,000 requests a second takes more CPU time than all else.
	epoll *os.File
	wakes syscall.RawConn
}

// OpenLive starts a capture.
func OpenLive(c LiveConfig) (_ *Live, err error) {
	interfaces, err := choose(c.Interfaces)
	if err != nil {
		return nil, err
	}
	if c.RingBytes == 0 {
		c.RingBytes = defaultRingBytes
	}
	if c.Idle == 0 {
		c.Idle = time.Second
	}
	if c.Meter == nil {
		c.Meter = noMeter{}
	}
	l := &Live{idle: c.Idle, meter: c.Meter}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	for _, i := range interfaces {
		loopback := i.Flags&net.FlagLoopback != 0
		size := share(c.RingBytes, loopback, interfaces)
		c.Meter.Sized(loopback, size)
		r, err := openRing(i.Index, i.Name, size/blockSize, c.Attach)
		if err != nil {
			return nil, err
		}
		r.taken = func(n int) { c.Meter.Taken(loopback, n) }
		l.rings = append(l.rings, r)
	}
	return l, l.watch()
}

// share returns the size of the ring of an interface, in bytes. Loopback, which
// most pods hardly use, gets a third of what another interface gets.
func share(total int, loopback bool, interfaces []net.Interface) int {
	shares := 0
	for _, i := range interfaces {
		shares += shareOf(i.Flags&net.FlagLoopback != 0)
	}
	return max(total*shareOf(loopback)/shares, minBlocks*blockSize)
}

func shareOf(loopback bool) int {
	if loopback {
		return 1
	}
	return 3
}

// watch makes the rings wake Next.
func (l *Live) watch() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making an epoll descriptor: %w", err)
	}
	// The runtime's poller takes only descriptors that do not block.
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(fmt.Errorf("setting up the epoll descriptor: %w", err), unix.Close(fd))
	}
	l.epoll = os.NewFile(uintptr(fd), "epoll")
	for _, r := range l.rings {
		if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, r.fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			return fmt.Errorf("watching the ring of %s: %w", r.ifname, err)
		}
	}
	if err := l.epoll.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("watching the rings: %w", err)
	}
	l.wakes, err = l.epoll.SyscallConn()
	return err
}

// choose returns the interfaces to watch. A socket that is bound to an interface
// costs other network namespaces nothing; one bound to all is on a list that,
// on older kernels, every packet of the machine walks. So only a namespace with
// very many interfaces gets the latter.
func choose(names []string) ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing network interfaces: %w", err)
	}
	var chosen []net.Interface
	if len(names) == 0 {
		for _, i := range all {
			if i.Flags&net.FlagUp != 0 {
				chosen = append(chosen, i)
			}
		}
		if len(chosen) > maxLiveInterfaces {
			return []net.Interface{{Index: 0, Name: "all interfaces"}}, nil
		}
		if len(chosen) == 0 {
			return nil, errors.New("no network interface is up")
		}
		return chosen, nil
	}
	byName := make(map[string]net.Interface, len(all))
	known := make([]string, len(all))
	for n, i := range all {
		byName[i.Name], known[n] = i, i.Name
	}
	for _, name := range names {
		i, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("no network interface %q; there are %q", name, known)
		}
		chosen = append(chosen, i)
	}
	return chosen, nil
}

// Interfaces returns the names of those that are watched.
func (l *Live) Interfaces() []string {
	names := make([]string, len(l.rings))
	for i, r := range l.rings {
		names[i] = r.ifname
	}
	return names
}

// Next implements Source. After Stop it returns what the rings still hold, then
// io.EOF.
func (l *Live) Next() (Packet, error) {
	for {
		if r := l.ready(); r != nil {
			p := r.read()
			// A block at a time from each, so that none starves another.
			if r.remaining == 0 {
				l.current = (l.current + 1) % len(l.rings)
			}
			return p, nil
		}
		if l.stop.Load() {
			if l.drained {
				return Packet{}, io.EOF
			}
			// What was captured until now is in blocks that the kernel has not
			// handed over: it does so after retireMillis.
			time.Sleep(3 * retireMillis * time.Millisecond)
			l.drained = true
			continue
		}
		if err := l.wait(); err != nil {
			return Packet{}, err
		}
	}
}

// ready returns a ring that has a packet, the current one rather than another.
func (l *Live) ready() *ring {
	for range l.rings {
		if r := l.rings[l.current]; r.ready() {
			return r
		}
		l.current = (l.current + 1) % len(l.rings)
	}
	return nil
}

func (l *Live) wait() error {
	l.meter.Drained()
	if err := l.epoll.SetReadDeadline(time.Now().Add(l.idle)); err != nil {
		return fmt.Errorf("waiting for packets: %w", err)
	}
	if l.stop.Load() { // whose deadline that may have replaced
		return nil
	}
	woken := false
	err := l.wakes.Read(func(uintptr) bool {
		// Looks again first, now that no wake-up can be missed.
		if woken || l.ready() != nil {
			return true
		}
		woken = true
		return false
	})
	switch {
	case err == nil || l.stop.Load():
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		for _, r := range l.rings {
			r.clearError()
		}
		return ErrIdle
	}
	return fmt.Errorf("waiting for packets: %w", err)
}

// Lost returns how many packets found no room in a ring: user space was too slow.
func (l *Live) Lost() uint64 {
	var n uint64
	for _, r := range l.rings {
		n += r.lost()
	}
	return n
}

// Stop makes Next return io.EOF after what has been captured. It may be called
// from any goroutine, more than once.
func (l *Live) Stop() {
	l.stop.Store(true)
	_ = l.epoll.SetReadDeadline(time.Unix(0, 1))
}

// Close ends the capture.
func (l *Live) Close() error {
	for _, r := range l.rings {
		r.close()
	}
	l.rings = nil
	if l.epoll == nil {
		return nil
	}
	return l.epoll.Close()
}
