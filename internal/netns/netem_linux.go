package netns

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disturbance is what a link does to the packets that leave by it: parts of all
// that are lost, sent twice, or overtake those that are delayed.
type Disturbance struct {
	Loss, Duplicate, Reorder float64
	Delay                    uint32 // microseconds
}

// The queueing discipline netem, of linux/pkt_sched.h.
const (
	netemReorder   = 3  // TCA_NETEM_REORDER
	netemLatency64 = 10 // TCA_NETEM_LATENCY64
)

type netemOptions struct{ _, limit, loss, gap, duplicate, _ uint32 }

type netemProbability struct{ probability, _ uint32 }

// tcmsg is struct tcmsg of linux/rtnetlink.h.
type tcmsg struct {
	_       uint32 // family
	ifindex int32
	_       uint32 // handle
	parent  uint32
	_       uint32 // info
}

// Disturb has eth0 of the namespace disturb what leaves by it. The error is
// os.ErrNotExist where the kernel has no netem.
func (ns *NS) Disturb(d Disturbance) error {
	return ns.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		part := func(p float64) uint32 { return uint32(p * (1<<32 - 1)) }
		o := netemOptions{limit: 10000, loss: part(d.Loss), duplicate: part(d.Duplicate)}
		if d.Reorder > 0 {
			o.gap = 1
		}
		msg := tcmsg{ifindex: int32(link.Index), parent: ^uint32(0)} // TC_H_ROOT
		m := newMessage(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed(&msg))
		m.attr(unix.TCA_KIND, cString("netem"))
		m.nest(unix.TCA_OPTIONS, func() {
			m = append(m, fixed(&o)...)
			latency := int64(d.Delay) * 1000
			m.attr(netemLatency64, unsafe.Slice((*byte)(unsafe.Pointer(&latency)), 8))
			m.attr(netemReorder, fixed(&netemProbability{probability: part(d.Reorder)}))
		})
		if err := m.do(); err != nil {
			return fmt.Errorf("adding the queueing discipline netem: %w", err)
		}
		return nil
	})
}

// WithoutOffload has eth0 of the namespace send segments as a network has them,
// rather than many in a packet of up to 64 KiB.
func (ns *NS) WithoutOffload() error {
	return ns.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		m := newMessage(unix.RTM_NEWLINK, 0, ifinfomsg(link.Index, true))
		m.attr(unix.IFLA_GSO_MAX_SEGS, nativeUint32(1))
		if err := m.do(); err != nil {
			return fmt.Errorf("having eth0 send single segments: %w", err)
		}
		return nil
	})
}
