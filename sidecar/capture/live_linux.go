package capture

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
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
	// Idle is how long Next waits for a packet before it returns ErrIdle; 0
	// means a second.
	Idle time.Duration
}

const (
	defaultRingBytes  = 4 << 20
	minBlocks         = 4
	maxLiveInterfaces = 8
)

// Live captures the packets of network interfaces. It needs CAP_NET_RAW to be
// opened and nothing afterwards. All methods but Stop belong to one goroutine.
type Live struct {
	rings   []*ring
	polls   []unix.PollFd // the last is the stop descriptor
	current int
	idle    int // milliseconds
	stopped bool
	stop    int // eventfd
	once    sync.Once
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
	l := &Live{stop: -1, idle: int(c.Idle.Milliseconds())}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	if l.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	blocks := max(c.RingBytes/len(interfaces)/blockSize, minBlocks)
	for _, i := range interfaces {
		r, err := openRing(i.Index, i.Name, blocks, c.Attach)
		if err != nil {
			return nil, err
		}
		l.rings = append(l.rings, r)
		l.polls = append(l.polls, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
	}
	l.polls = append(l.polls, unix.PollFd{Fd: int32(l.stop), Events: unix.POLLIN})
	return l, nil
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
		for range l.rings {
			if r := l.rings[l.current]; r.ready() {
				p := r.read()
				// A block at a time from each, so that none starves another.
				if r.remaining == 0 {
					l.current = (l.current + 1) % len(l.rings)
				}
				return p, nil
			}
			l.current = (l.current + 1) % len(l.rings)
		}
		if l.stopped {
			return Packet{}, io.EOF
		}
		if err := l.wait(); err != nil {
			return Packet{}, err
		}
	}
}

func (l *Live) wait() error {
	n, err := unix.Poll(l.polls, l.idle)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("waiting for packets: %w", err)
	case n == 0:
		return ErrIdle
	}
	for i, r := range l.rings {
		if l.polls[i].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
			r.clearError()
		}
	}
	if l.polls[len(l.rings)].Revents != 0 {
		l.stopped = true
		// What was captured until now is in blocks that the kernel has not
		// handed over: it does so after retireMillis.
		time.Sleep(3 * retireMillis * time.Millisecond)
	}
	return nil
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
	l.once.Do(func() { _, _ = unix.Write(l.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
}

// Close ends the capture.
func (l *Live) Close() error {
	l.once.Do(func() {}) // Stop has run, or has nothing to do any more
	for _, r := range l.rings {
		r.close()
	}
	l.rings = nil
	if l.stop >= 0 {
		_ = unix.Close(l.stop)
		l.stop = -1
	}
	return nil
}
