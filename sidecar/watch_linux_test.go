package sidecar_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/sidecar"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// logLine is what is said of an exchange, by a log and by watched.
func logLine(version, method, target string, status int, up, down int64, outcome string) string {
	return fmt.Sprintf("%s %s %s -> %d, %d up, %d down, %s", version, method, target, status, up, down, outcome)
}

// watched is what a tap, or a file, gives.
type watched struct {
	table     *flow.Table
	exchanges map[string]int
	last      map[string]origin // by request-target
	tap       *sidecar.Tap
	ended     chan error
}

// origin is where a request came from.
type origin struct {
	client netip.Addr
	seq    uint32
}

func newWatched(c flow.Config) *watched {
	w := &watched{exchanges: make(map[string]int), last: make(map[string]origin), ended: make(chan error, 1)}
	c.Emit = func(x *exchange.Exchange) {
		w.last[strings.Clone(x.Request.Target)] = origin{x.Peers.Client.Addr(), x.Wire.RequestSeq}
		w.exchanges[logLine(x.Protocol.String(), x.Request.Method, x.Request.Target, x.Response.Status, x.Request.BodySize, x.Response.BodySize, x.Outcome.String())]++
	}
	w.table = flow.NewTable(c)
	return w
}

func (w *watched) String() string {
	s := w.table.Stats
	return fmt.Sprintf("%d packets, %d out of order, %d twice, %d bytes omitted, %d missing", s.Packets, s.Reordered, s.Duplicates, s.Omitted, s.Missing)
}

// watch starts a tap on eth0 of a namespace.
func watch(t *testing.T, ns *netns.NS) *watched {
	t.Helper()
	var tap *sidecar.Tap
	err := ns.Do(func() (err error) {
		tap, err = sidecar.OpenTap(sidecar.TapConfig{Interfaces: []string{"eth0"}, RingBytes: 16 << 20}, slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newWatched(tap.FlowConfig(nil))
	w.tap = tap
	go func() { w.ended <- flow.Pump(tap, w.table) }()
	return w
}

func (w *watched) stop(t *testing.T) map[string]int {
	t.Helper()
	w.tap.Stop()
	err := <-w.ended
	lost := w.tap.Lost()
	if err := errors.Join(err, w.tap.Close()); err != nil || lost > 0 {
		t.Errorf("%d packets lost by the tap, %v", lost, err)
	}
	return w.exchanges
}

// record writes all packets of eth0 of a namespace to a pcap file, until the
// function that it returns is called, which returns the file's path.
func record(t *testing.T, ns *netns.NS) func(t *testing.T) string {
	t.Helper()
	var live *capture.Live
	err := ns.Do(func() (err error) {
		live, err = capture.OpenLive(capture.LiveConfig{Interfaces: []string{"eth0"}, RingBytes: 32 << 20, Attach: func(int) error { return nil }})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const rawIP = 101 // LINKTYPE_RAW
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b23c4d) // nanoseconds
	b = append(le.AppendUint16(le.AppendUint16(b, 2), 4), make([]byte, 8)...)
	b = le.AppendUint32(le.AppendUint32(b, 1<<18), rawIP)
	ended := make(chan error, 1)
	go func() {
		for {
			p, err := live.Next()
			switch {
			case errors.Is(err, capture.ErrIdle):
				continue
			case err != nil:
				ended <- err
				return
			}
			b = le.AppendUint32(le.AppendUint32(b, uint32(p.At/1e9)), uint32(p.At%1e9))
			b = append(le.AppendUint32(le.AppendUint32(b, uint32(len(p.Data))), uint32(p.Len)), p.Data...)
		}
	}()
	return func(t *testing.T) string {
		t.Helper()
		live.Stop()
		if err := <-ended; !errors.Is(err, io.EOF) || live.Lost() > 0 {
			t.Errorf("%d packets lost by the recording, %v", live.Lost(), err)
		}
		path := filepath.Join(t.TempDir(), "all.pcap")
		if err := errors.Join(live.Close(), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// readRecorded reads a file, without one packet in lose if that is not 0.
func readRecorded(t *testing.T, path string, lose int) *watched {
	t.Helper()
	f, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := newWatched(flow.Config{})
	if err := flow.Pump(lossy{f, rand.New(rand.NewPCG(1, 1)), lose}, w.table); err != nil {
		t.Fatal(err)
	}
	return w
}

type lossy struct {
	capture.Source
	*rand.Rand
	lose int
}

func (l lossy) Next() (capture.Packet, error) {
	p, err := l.Source.Next()
	for err == nil && l.lose > 0 && l.IntN(l.lose) == 0 {
		p, err = l.Source.Next()
	}
	return p, err
}
