package exchange_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// step is something that happens on a connection.
type step struct {
	dir  exchange.Dir // of the client, 0, or of the server, 1
	data string
	what event
}

type event uint8

const (
	sends event = iota
	ends
	resets
	evicted
	loses // data, on its way to us
)

func c(data string) step { return step{0, data, sends} }
func s(data string) step { return step{1, data, sends} }

var (
	cFIN  = step{dir: 0, what: ends}
	sFIN  = step{dir: 1, what: ends}
	rst   = step{dir: 1, what: resets}
	evict = step{what: evicted}
)

var ends2 = [2]netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("10.0.0.2:80")}

// replay is a connection that is fed by steps. The clock ticks a second per byte.
type replay struct {
	engine *exchange.Engine
	conn   *exchange.Conn
	at     int64
	next   [2]uint32
	ended  [2]bool
	closed bool
	got    []string
	times  [][3]int64
	peak   int64 // of Stats.HeldBytes
}

func newReplay(l exchange.Limits, fromStart bool) *replay {
	r := &replay{next: [2]uint32{1 << 31, 77}}
	r.engine = exchange.NewEngine(l, func(x *exchange.Exchange) {
		r.got = append(r.got, line(x))
		r.times = append(r.times, [3]int64{x.Start, x.FirstByte, x.End})
	})
	r.conn = r.engine.NewConn(ends2, fromStart)
	return r
}

// line is what is compared of an exchange.
func line(x *exchange.Exchange) string {
	return fmt.Sprintf("%s %s %s [%s] -> %d %s, %d up, %d down, %d+%d fields", x.Request.Method, x.Request.Target, x.Protocol,
		x.Request.Host, x.Response.Status, x.Outcome, x.Request.BodySize, x.Response.BodySize,
		len(x.Request.Fields), len(x.Response.Fields))
}

// do takes a step, whose data comes in segments of the given size, 0 for one.
func (r *replay) do(st step, size int) {
	if r.closed {
		return
	}
	switch st.what {
	case sends:
		r.send(st.dir, st.data, size)
	case loses:
		if n := int64(len(st.data)); n == 0 {
			r.conn.Gap(st.dir, 0)
		} else if n -= r.conn.Bridge(st.dir, n); n > 0 {
			r.conn.Gap(st.dir, n)
		}
		r.next[st.dir] += uint32(len(st.data))
	case ends:
		r.at++
		r.conn.Saw(st.dir)
		r.conn.End(st.dir, r.at)
		r.ended[st.dir] = true
		if r.ended[0] && r.ended[1] {
			r.close(exchange.Truncated)
		}
	case resets:
		r.at++
		r.conn.Saw(st.dir)
		r.close(exchange.Reset)
	case evicted:
		r.close(exchange.Evicted)
	}
}

func (r *replay) send(d exchange.Dir, data string, size int) {
	if r.ended[d] || data == "" {
		return
	}
	if size <= 0 {
		size = len(data)
	}
	r.conn.Saw(d)
	for len(data) > 0 {
		n := min(size, len(data))
		r.at++
		buffer := []byte(data[:n])
		r.conn.Data(d, exchange.Segment{At: r.at, Seq: r.next[d], Ack: r.next[1-d], Aligned: true}, buffer)
		clear(buffer) // it must not have been kept
		r.next[d] += uint32(n)
		data = data[n:]
		r.peak = max(r.peak, r.engine.Stats.HeldBytes)
	}
}

func (r *replay) close(why exchange.Outcome) {
	if !r.closed {
		r.closed = true
		r.conn.Close(why, r.at)
	}
}

// run takes all steps, ends the capture and checks the accounts.
func run(t testing.TB, l exchange.Limits, steps []step, size int) *replay {
	t.Helper()
	r := newReplay(l, true)
	for _, st := range steps {
		r.do(st, size)
	}
	r.close(exchange.Unfinished)
	r.check(t)
	return r
}

// check tests the accounts of an engine whose connections are closed.
func (r *replay) check(t testing.TB) {
	t.Helper()
	s := &r.engine.Stats
	var emitted, dropped uint64
	for _, n := range s.Outcomes {
		emitted += n
	}
	for _, n := range s.Dropped {
		dropped += n
	}
	if emitted != uint64(len(r.got)) {
		t.Errorf("%d exchanges emitted, %d counted", len(r.got), emitted)
	}
	if s.Seen != emitted+dropped || s.InFlight != 0 || s.HeldBytes != 0 {
		t.Errorf("seen %d, emitted %d, dropped %d, in flight %d, bytes held %d", s.Seen, emitted, dropped, s.InFlight, s.HeldBytes)
	}
}
