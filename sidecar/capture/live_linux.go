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
	// Idle is how long Next waits for a packet before it returns ErrIdle, longer
	// each time until one comes, up to MaxIdle; 0 means a second.
	Idle time.Duration
	// HandOver bounds how long a packet waits in the ring before Next returns it; 0
	// means 50 ms. When there is little traffic, handing over costs more than all else.
	HandOver time.Duration
}

// MaxIdle is the longest time that Next waits, unless Wake is called.
const MaxIdle = 32 * time.Second

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
	defaultHandOver   = 50 * time.Millisecond
	minBlocks         = 4
	maxLiveInterfaces = 8
)

// Live captures the packets of network interfaces. It needs CAP_NET_RAW to be
// opened and nothing afterwards. All methods but Stop and Wake belong to one goroutine.
type Live struct {
	rings    []*ring
	current  int
	idle     time.Duration // configured
	waits    time.Duration // before the next ErrIdle
	deadline time.Time     // until when epoll is waited for
	packets  bool          // since the deadline was set
	meter    Meter
	stop     atomic.Bool
	wake     atomic.Bool
	finished bool // after Stop
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
	if c.HandOver == 0 {
		c.HandOver = defaultHandOver
	}
	if c.Meter == nil {
		c.Meter = noMeter{}
	}
	l := &Live{idle: c.Idle, waits: c.Idle, meter: c.Meter}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	for _, i := range interfaces {
		loopback := i.Flags&net.FlagLoopback != 0
		size := share(c.RingBytes, loopback, interfaces)
		c.Meter.Sized(loopback, size)
		r, err := openRing(i.Index, i.Name, size/blockSize, c.HandOver, c.Attach)
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
			if l.finished {
				return Packet{}, io.EOF
			}
			for _, r := range l.rings {
				r.finish()
			}
			l.finished = true
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
	// Setting the deadline costs more than coming back once without need.
	if l.deadline.IsZero() {
		l.deadline, l.packets = time.Now().Add(l.waits), false
		if err := l.epoll.SetReadDeadline(l.deadline); err != nil {
			return fmt.Errorf("waiting for packets: %w", err)
		}
	}
	if l.stop.Load() { // whose deadline that may have replaced
		return nil
	}
	woken := l.wake.Load()
	err := l.wakes.Read(func(uintptr) bool {
		// Looks again first, now that no wake-up can be missed.
		if woken || l.ready() != nil {
			return true
		}
		woken = true
		return false
	})
	switch {
	case l.stop.Load():
		return nil
	case l.wake.Swap(false):
		l.deadline = time.Time{}
		return ErrWoken
	case err == nil:
		l.packets = true
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return l.expired()
	}
	return fmt.Errorf("waiting for packets: %w", err)
}

// expired deals with the end of the time that wait waits.
func (l *Live) expired() error {
	early := time.Now().Before(l.deadline) // for a Wake that was answered before
	l.deadline = time.Time{}
	switch {
	case early:
		return nil
	case l.packets:
		l.waits = l.idle
		return nil
	}
	l.waits = min(2*l.waits, MaxIdle)
	for _, r := range l.rings {
		r.clearError()
	}
	return ErrIdle
}

// Lost returns how many packets found no room in a ring: user space was too slow.
func (l *Live) Lost() uint64 {
	var n uint64
	for _, r := range l.rings {
		n += r.lost()
	}
	return n
}

// Wake makes Next return soon, with ErrWoken if there is no packet. It may be called
// from any goroutine.
func (l *Live) Wake() {
	l.wake.Store(true)
	_ = l.epoll.SetReadDeadline(time.Unix(0, 1))
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
