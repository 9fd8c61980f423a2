// Package flow puts the TCP segments of captured packets in order: for each
// direction of each connection the bytes as the receiver reads them, and
// explicit gaps where they are missing.
//
// The two directions are ordered against each other as well: bytes are held back
// until those that their sender had acknowledged have been delivered. So the
// result does not depend on the order in which packets were captured.
package flow

import (
	"bytes"
	"net/netip"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
)

// Skipper is told which bytes of a direction are not needed, and whether of large
// packets the start and the end are enough; see bpf.Tap.
type Skipper interface {
	Skip(d *bpf.Direction, from, span uint32, brief bool) bool
	Forget(d *bpf.Direction)
}

// Walker is told where the next HTTP/2 frame of a direction is, finds those that
// follow, and has what was captured beside packets; see bpf.Tap.
type Walker interface {
	Walk(d *bpf.Direction, seq, span uint32, header []byte) bool
	Unwalk(d *bpf.Direction)
	Piece(d *bpf.Direction, from, to uint32) (seq uint32, b []byte, ok bool)
	LeftOut(d *bpf.Direction, seq uint32, header []byte) int
}

// Config says how a Table works. Zero values mean the defaults.
type Config struct {
	Exchange exchange.Limits
	Emit     func(*exchange.Exchange)
	// Skipper may be nil: then everything is captured.
	Skipper Skipper
	// Walker may be nil: then no packet is cut inside.
	Walker Walker
	// Ignore reports that a connection is not to be looked at: it has a port that
	// the user excluded, or is the sidecar's own. May be nil.
	Ignore func(d *bpf.Direction, out bool) bool

	// Lag is how much later than others a packet may come, in nanoseconds: each ring
	// of a live capture hands over in its own time.
	Lag int64

	Connections int // open ones that are followed; 8192
	Late        int // bytes of segments that wait for earlier ones, all together; 4 MiB
}

// Stats counts what a Table saw.
type Stats struct {
	Packets    uint64
	NotTCP     uint64
	Malformed  uint64
	Fragments  uint64
	Ignored    uint64 // of connections that Config.Ignore names
	Stray      uint64 // without data, of no known connection
	Duplicates uint64 // segments whose data had been delivered
	Reordered  uint64 // segments that waited for earlier ones
	Omitted    uint64 // bytes passed over because they were not needed
	Missing    uint64 // bytes that were needed and are missing
	Opened     uint64 // connections
	Evicted    uint64 // connections forgotten because they were idle or too many
	Open       int64  // connections followed now
	LateBytes  int64  // bytes that wait now
}

const (
	second = int64(1e9)

	tickEvery     = second / 10
	idleOpen      = 900 * second
	idleEmbryonic = 30 * second
	idleClosed    = 5 * second
	// How long to wait for missing bytes: a retransmission may take long, but
	// what the receiver has acknowledged is not sent again.
	holeTimeout      = 10 * second
	holeTimeoutAcked = second / 4
	// How long to wait for more of a response that seems to have ended.
	settleTimeout = second / 2

	maxEmbryonic = 1024
	maxClosed    = 1024
)

// Table follows the connections of one capture. It belongs to one goroutine.
type Table struct {
	Stats Stats

	config   Config
	engine   *exchange.Engine
	conns    map[bpf.Direction]*conn
	recent   *conn   // that of the last segment
	lists    [3]list // by state, least recently used first
	stalled  []*conn // those with something that waits
	lastTick int64
	segment  segment
}

// NewTable returns an empty table.
func NewTable(c Config) *Table {
	if c.Connections == 0 {
		c.Connections = 8192
	}
	if c.Late == 0 {
		c.Late = 4 << 20
	}
	t := &Table{
		config: c,
		engine: exchange.NewEngine(c.Exchange, c.Emit),
		conns:  make(map[bpf.Direction]*conn),
	}
	for i := range t.lists {
		t.lists[i].init()
	}
	return t
}

// Exchanges returns what the exchange layer counted.
func (t *Table) Exchanges() *exchange.Stats { return &t.engine.Stats }

// Packet takes the next packet. Exchanges that it completes are emitted before
// it returns.
func (t *Table) Packet(p capture.Packet) {
	t.Stats.Packets++
	s := &t.segment
	switch decode(&p, s) {
	case isNotTCP:
		t.Stats.NotTCP++
		return
	case isMalformed:
		t.Stats.Malformed++
		return
	case isFragment:
		t.Stats.Fragments++
		return
	}
	if p.At-t.lastTick > tickEvery {
		t.Tick(p.At)
	}
	if t.config.Ignore != nil && t.config.Ignore(&s.from, s.out) {
		t.Stats.Ignored++
		return
	}
	c, dir := t.find(&s.from)
	if c == nil || s.flags&flagSYN != 0 {
		key, d := canonical(&s.from)
		c, dir = t.admit(c, &key, d, s), d
	}
	if c != nil {
		t.recent = c
		t.take(c, dir, s)
	}
}

// find returns the connection that a direction is of, if it is known, and which of
// its directions that is. Most often it is the same as the last time.
func (t *Table) find(d *bpf.Direction) (*conn, exchange.Dir) {
	if c := t.recent; c != nil {
		switch *d {
		case c.dirs[0]:
			return c, 0
		case c.dirs[1]:
			return c, 1
		}
	}
	key, dir := canonical(d)
	return t.conns[key], dir
}

// canonical returns the key of a connection, which is its direction 0, and the
// direction that d is.
func canonical(d *bpf.Direction) (bpf.Direction, exchange.Dir) {
	order := bytes.Compare(d.Source[:], d.Destination[:])
	if order < 0 || order == 0 && d.SourcePort <= d.DestinationPort {
		return *d, 0
	}
	return reverse(d), 1
}

func reverse(d *bpf.Direction) bpf.Direction {
	return bpf.Direction{
		Source: d.Destination, Destination: d.Source,
		SourcePort: d.DestinationPort, DestinationPort: d.SourcePort,
	}
}

// admit returns the connection that a segment of none that is known, or a SYN,
// belongs to: c, or a new one, or nil if it is of no interest.
func (t *Table) admit(c *conn, key *bpf.Direction, dir exchange.Dir, s *segment) *conn {
	syn := s.flags&(flagSYN|flagACK) == flagSYN
	if c != nil && syn {
		if c.half[dir].sentSYN(s.seq, c.state == closed) {
			return c
		}
		t.forget(c, exchange.Evicted, s.at) // the ports are used again
		c = nil
	}
	if c != nil {
		return c
	}
	if s.flags&flagRST != 0 || s.length == 0 && s.flags&flagSYN == 0 {
		t.Stats.Stray++
		return nil
	}
	c = &conn{dirs: [2]bpf.Direction{*key, reverse(key)}, v4: s.v4, last: s.at}
	t.conns[*key] = c
	t.Stats.Opened++
	t.Stats.Open++
	t.enlist(c, embryonic)
	if t.lists[embryonic].n > maxEmbryonic {
		t.evict(t.lists[embryonic].oldest(), s.at)
	}
	return c
}

// enlist moves a connection to the end of the list of a state.
func (t *Table) enlist(c *conn, s state) {
	if c.listed() {
		t.lists[c.state].remove(c)
	}
	c.state = s
	t.lists[s].add(c)
}

func (t *Table) remove(c *conn) {
	if t.recent == c {
		t.recent = nil
	}
	t.lists[c.state].remove(c)
	delete(t.conns, c.dirs[0])
	t.Stats.Open--
}

func (t *Table) evict(c *conn, now int64) {
	if c.state == open {
		t.Stats.Evicted++
	}
	t.forget(c, exchange.Evicted, now)
}

// Tick lets time pass: packets that are missing are given up, idle connections
// forgotten. now is in nanoseconds since the Unix epoch. Packet calls it too.
func (t *Table) Tick(now int64) {
	t.lastTick = now
	stalled := t.stalled
	t.stalled = t.stalled[:0]
	for _, c := range stalled {
		if c.stalled = t.expire(c, now); c.stalled {
			t.stalled = append(t.stalled, c)
		}
	}
	clear(stalled[len(t.stalled):])
	for s, idle := range [...]int64{embryonic: idleEmbryonic, open: idleOpen, closed: idleClosed} {
		l := &t.lists[s]
		for l.n > 0 && now-l.oldest().last > idle {
			c := l.oldest()
			if t.takeBackSkips(c) || t.fillBoth(c, now) {
				// The filter was leaving out its packets: see whether there are any.
				c.last = now
				t.enlist(c, open)
				continue
			}
			t.evict(c, now)
		}
	}
}

// Close ends the capture: exchanges in progress are emitted as unfinished. now
// is the time of the last packet, in nanoseconds since the Unix epoch.
func (t *Table) Close(now int64) {
	for _, s := range []state{open, embryonic, closed} {
		for l := &t.lists[s]; l.n > 0; {
			t.forget(l.oldest(), exchange.Unfinished, now)
		}
	}
}

func (c *conn) ends() [2]netip.AddrPort {
	addr := func(b [16]byte) netip.Addr {
		if c.v4 {
			return netip.AddrFrom4([4]byte(b[8:12]))
		}
		return netip.AddrFrom16(b).Unmap()
	}
	return [2]netip.AddrPort{
		netip.AddrPortFrom(addr(c.dirs[0].Source), c.dirs[0].SourcePort),
		netip.AddrPortFrom(addr(c.dirs[0].Destination), c.dirs[0].DestinationPort),
	}
}
