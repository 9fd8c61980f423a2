package flow_test

import (
	"regexp"
	"testing"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// filter does what the filter in the kernel does: it leaves out packets without
// data and, as far as user space has said so, packets within a body, and cuts large
// ones; the end of what it cuts is a piece.
type filter struct {
	ranges    map[bpf.Direction][2]uint32
	brief     map[bpf.Direction]bool
	pieces    map[bpf.Direction][]walkPiece
	rate      int // one in so many packets is cut because room is short; 0: none
	large     int // bytes of payload above which packets of a brief direction are cut
	omitted   int // bytes
	cut       int // packets
	shortened int // of these, because their direction is brief
}

func newFilter() *filter {
	const large = 16 << 10
	return &filter{ranges: make(map[bpf.Direction][2]uint32), brief: make(map[bpf.Direction]bool), pieces: make(map[bpf.Direction][]walkPiece), large: large}
}

func (f *filter) Skip(d *bpf.Direction, from, span uint32, brief bool) bool {
	f.ranges[*d], f.brief[*d] = [2]uint32{from, min(span, bpf.MaxSpan)}, brief
	return true
}

func (f *filter) Forget(d *bpf.Direction) { delete(f.ranges, *d); delete(f.brief, *d) }

func (f *filter) Walk(*bpf.Direction, uint32, uint32, []byte) bool { return false }
func (f *filter) Unwalk(*bpf.Direction)                            {}
func (f *filter) LeftOut(*bpf.Direction, uint32, []byte) int       { return 0 }

func (f *filter) Piece(d *bpf.Direction, from, to uint32) (seq uint32, b []byte, ok bool) {
	for _, p := range f.pieces[*d] {
		if int32(p.seq+uint32(len(p.data))-from) > 0 && int32(p.seq-to) < 0 && (!ok || int32(p.seq-seq) < 0) {
			seq, b, ok = p.seq, []byte(p.data), true
		}
	}
	return seq, b, ok
}

// pass returns the packet as it is captured, and whether it is.
func (f *filter) pass(w *wire, i int, p capture.Packet) (capture.Packet, bool) {
	s := w.segments[i]
	const syn, fin, rst = packets.SYN, packets.FIN, packets.RST
	if s.Payload == "" && s.Flags&(syn|fin|rst) == 0 {
		return p, false
	}
	d := segmentDirection(s)
	if s.Flags&syn != 0 {
		f.Forget(&d)
		return p, true
	}
	n := uint32(len(s.Payload))
	r := f.ranges[d]
	if at := s.Seq - r[0]; at >= r[1] || uint64(at)+uint64(n) > uint64(r[1]) {
		return f.shorten(w, d, s, p), true
	}
	f.omitted += len(s.Payload)
	if s.Flags&(fin|rst) != 0 {
		p.Data = p.Data[:len(p.Data)-len(s.Payload)]
		return p, true
	}
	return p, false
}

var mayStart = regexp.MustCompile("^[A-Z]{3}")

// shorten cuts a packet if its direction is brief and it is large, or if room is short.
func (f *filter) shorten(w *wire, d bpf.Direction, s sent, p capture.Packet) capture.Packet {
	const piece = 15
	n, keep := len(s.Payload), 0
	switch {
	case n <= piece:
		return p
	case f.brief[d] && n > f.large:
		f.shortened++
		if mayStart.MatchString(s.Payload) {
			keep = f.large
		}
	case f.rate > 0 && w.IntN(f.rate) == 0:
		keep = w.IntN(n)
	default:
		return p
	}
	f.cut++
	f.pieces[d] = append(f.pieces[d], walkPiece{s.Seq + uint32(n-piece), s.Payload[n-piece:]})
	p.Data = p.Data[:len(p.Data)-n+keep]
	return p
}

func segmentDirection(s sent) bpf.Direction {
	d := bpf.Direction{SourcePort: s.From.Port(), DestinationPort: s.To.Port()}
	src, dst := s.From.Addr().As4(), s.To.Addr().As4()
	copy(d.Source[8:], src[:])
	copy(d.Destination[8:], dst[:])
	return d
}

// run returns the exchanges of a wire behind the filter, which is lag packets ahead.
func (f *filter) run(t *testing.T, w *wire, lag int) []string {
	t.Helper()
	var lines []string
	table := flow.NewTable(flow.Config{Skipper: f, Walker: f, Emit: func(x *exchange.Exchange) { lines = append(lines, line(x)) }})
	replay(t, table, w.packets(), lag, func(i int, p capture.Packet) (capture.Packet, bool) { return f.pass(w, i, p) })
	if len(f.ranges) > 0 {
		t.Errorf("the filter still leaves out %v", f.ranges)
	}
	return lines
}

func runFiltered(t *testing.T, w *wire, lag int) []string {
	t.Helper()
	return newFilter().run(t, w, lag)
}
