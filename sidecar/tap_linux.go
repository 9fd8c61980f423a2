package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// Rung is a step of the ladder of capture modes.
type Rung string

const (
	// RungEBPF: the filter leaves out what is not needed (CAP_BPF, CAP_NET_RAW).
	RungEBPF Rung = "ebpf"
	// RungClassic: every TCP packet with data is captured (CAP_NET_RAW).
	RungClassic Rung = "classic"
	// RungOff: nothing is captured.
	RungOff Rung = "off"
)

// TapConfig says what a Tap watches.
type TapConfig struct {
	Interfaces   []string // none means those that are up
	RingBytes    int      // of all rings together; 0 means the default
	ExcludePorts []uint16
	HandOver     time.Duration // how long packets may wait in a ring; 0 means the default
}

// Tap is a live capture of the calling thread's network namespace, with the best
// filter that the kernel and the capabilities of the process allow.
type Tap struct {
	*capture.Live
	Rung Rung

	lag        time.Duration // of one ring behind another
	ebpf       *bpf.Tap      // nil on the classic rung
	own        portSet
	ownPackets uint64 // that the classic filter let pass
	excluded   portSet

	mu     sync.Mutex
	closed bool // connections of our own may end later
}

// OpenTap starts a capture. Why a rung could not be had is logged as a warning;
// the error joins the reasons for all of them.
func OpenTap(c TapConfig, log *slog.Logger) (*Tap, error) {
	t := &Tap{Rung: RungEBPF, lag: 2 * c.HandOver}
	for _, p := range c.ExcludePorts {
		t.excluded.set(p, true)
	}
	live := capture.LiveConfig{Interfaces: c.Interfaces, RingBytes: c.RingBytes, HandOver: c.HandOver}
	first := t.openEBPF(live, c.ExcludePorts, log)
	if first == nil {
		return t, nil
	}
	t.Rung = RungClassic
	live.Attach = bpf.Classic{}.Attach
	var err error
	if t.Live, err = capture.OpenLive(live); err != nil {
		return nil, errors.Join(first, err)
	}
	log.Warn("the classic filter is used, which costs more, because the eBPF one cannot be", "error", first)
	return t, nil
}

func (t *Tap) openEBPF(live capture.LiveConfig, exclude []uint16, log *slog.Logger) error {
	tap, err := bpf.Load()
	if err != nil {
		return err
	}
	err = t.openWith(tap, live, exclude)
	if err != nil && tap.Walks() == nil { // it may be too long for the kernel (optmem_max)
		if tap, err = bpf.LoadPlain(err); err == nil {
			err = t.openWith(tap, live, exclude)
		}
	}
	if err == nil && tap.Walks() != nil {
		log.Warn("large bodies over HTTP/2 cost more, because the filter that walks frames cannot be used", "error", tap.Walks())
	}
	return err
}

func (t *Tap) openWith(tap *bpf.Tap, live capture.LiveConfig, exclude []uint16) (err error) {
	for _, p := range exclude {
		tap.Exclude(p)
	}
	live.Attach, live.Meter = tap.Attach, tap
	if t.Live, err = capture.OpenLive(live); err != nil {
		return errors.Join(err, tap.Close())
	}
	t.ebpf = tap
	return nil
}

// FlowConfig returns how a flow.Table is to work on the packets of the tap.
func (t *Tap) FlowConfig(emit func(*exchange.Exchange)) flow.Config {
	c := flow.Config{Emit: emit, Lag: t.lag.Nanoseconds()}
	if t.ebpf != nil {
		c.Skipper = t.ebpf
		if t.ebpf.Walks() == nil {
			c.Walker = t.ebpf
		}
	} else {
		c.Ignore = t.ignore
	}
	return c
}

// ignore does on the classic rung what the eBPF filter does in the kernel.
func (t *Tap) ignore(d *bpf.Direction, out bool) bool {
	if t.excluded.has(d.SourcePort) || t.excluded.has(d.DestinationPort) {
		return true
	}
	local := d.DestinationPort
	if out {
		local = d.SourcePort
	}
	// Both directions of a loopback connection are seen as received.
	loopback := d.Source == d.Destination
	if t.own.has(local) || loopback && t.own.has(d.SourcePort) {
		t.ownPackets++
		return true
	}
	return false
}

// Own marks a local port as that of our own connection, which is not captured.
func (t *Tap) Own(port uint16, own bool) {
	t.own.set(port, own)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ebpf != nil && !t.closed {
		t.ebpf.Own(port, own)
	}
}

// Counters returns what the filter counted, which is nothing on the classic rung.
func (t *Tap) Counters() bpf.Counters {
	if t.ebpf == nil {
		return bpf.Counters{}
	}
	return t.ebpf.Counters()
}

// Close ends the capture.
func (t *Tap) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	err := t.Live.Close()
	if t.ebpf != nil {
		err = errors.Join(err, t.ebpf.Close())
	}
	if err != nil {
		return fmt.Errorf("closing the tap: %w", err)
	}
	return nil
}
