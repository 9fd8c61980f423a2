package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// Bridge is an Ethernet bridge inside a namespace.
type Bridge struct {
	ns   *NS
	name string
}

// AddBridge makes a bridge with an address in the namespace, and sets it up.
func (ns *NS) AddBridge(name string, addr netip.Prefix) (*Bridge, error) {
	err := ns.Do(func() error {
		m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfomsg(0, true))
		m.attr(unix.IFLA_IFNAME, cString(name))
		m.nest(unix.IFLA_LINKINFO, func() { m.attr(unix.IFLA_INFO_KIND, []byte("bridge")) })
		if err := m.do(); err != nil {
			return noSuchKind("bridge", err)
		}
		return addAddr(name, addr)
	})
	if err != nil {
		return nil, fmt.Errorf("making bridge %s: %w", name, err)
	}
	return &Bridge{ns, name}, nil
}

// Join puts the namespace ns on the bridge: a veth pair with one end, named
// port, on the bridge and the other in ns, named eth0 and with the address
// addr. Both and the loopback interface of ns are set up.
func (b *Bridge) Join(ns *NS, port string, addr netip.Prefix) error {
	err := b.ns.Do(func() error {
		bridge, err := net.InterfaceByName(b.name)
		if err != nil {
			return err
		}
		return addVeth(port, bridge.Index, "eth0", ns)
	})
	if err == nil {
		err = ns.Do(func() error {
			return errors.Join(SetUp("lo"), addAddr("eth0", addr), SetUp("eth0"))
		})
	}
	if err != nil {
		return fmt.Errorf("joining %s to bridge %s: %w", port, b.name, err)
	}
	return nil
}

// Pair joins two namespaces by a veth pair, without a bridge. In each the end is
// named eth0 and has the given address; it and the loopback interface are set up.
func Pair(a, b *NS, addrA, addrB netip.Prefix) error {
	err := a.Do(func() error {
		return errors.Join(addVeth("eth0", 0, "eth0", b), SetUp("lo"), addAddr("eth0", addrA))
	})
	if err == nil {
		err = b.Do(func() error {
			return errors.Join(SetUp("lo"), addAddr("eth0", addrB), SetUp("eth0"))
		})
	}
	if err != nil {
		return fmt.Errorf("joining two network namespaces: %w", err)
	}
	return nil
}

// AddAddr gives eth0 of the namespace a further address.
func (ns *NS) AddAddr(addr netip.Prefix) error {
	return ns.Do(func() error { return addAddr("eth0", addr) })
}

// addVeth makes a veth pair: one end, up, in the calling thread's namespace, a
// port of the bridge with the index master if that is not 0; the other in ns.
func addVeth(name string, master int, peer string, ns *NS) error {
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfomsg(0, true))
	m.attr(unix.IFLA_IFNAME, cString(name))
	if master != 0 {
		m.attr(unix.IFLA_MASTER, nativeUint32(uint32(master)))
	}
	m.nest(unix.IFLA_LINKINFO, func() {
		m.attr(unix.IFLA_INFO_KIND, []byte("veth"))
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.nest(vethInfoPeer, func() {
				m = append(m, ifinfomsg(0, false)...)
				m.attr(unix.IFLA_IFNAME, cString(peer))
				m.attr(unix.IFLA_NET_NS_FD, nativeUint32(uint32(ns.file.Fd())))
			})
		})
	})
	return noSuchKind("veth", m.do())
}

// SetUp sets an interface of the calling thread's namespace up.
func SetUp(name string) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	if err := newMessage(unix.RTM_NEWLINK, 0, ifinfomsg(link.Index, true)).do(); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

// addAddr gives an interface of the calling thread's namespace an address.
func addAddr(name string, addr netip.Prefix) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	msg := unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: uint8(addr.Bits()), Index: uint32(link.Index)}
	if addr.Addr().Is6() {
		msg.Family = unix.AF_INET6
		msg.Flags = unix.IFA_F_NODAD // usable at once
	}
	m := newMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, fixed(&msg))
	m.attr(unix.IFA_LOCAL, addr.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, addr.Addr().AsSlice())
	if err := m.do(); err != nil {
		return fmt.Errorf("adding %s to %s: %w", addr, name, err)
	}
	return nil
}

// noSuchKind says what is missing when the kernel does not know a link kind.
func noSuchKind(kind string, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w (the kernel module %q is neither built in nor loadable)", err, kind)
	}
	return err
}
