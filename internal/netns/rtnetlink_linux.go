package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is an rtnetlink request under construction: a header, a fixed part
// and attributes, each padded to four bytes (rtnetlink(7)).
type message []byte

// newMessage starts a request of type typ with the fixed part that the type
// asks for, such as an ifinfomsg.
func newMessage(typ uint16, flags uint16, fixed []byte) message {
	m := make(message, unix.SizeofNlMsghdr, 256)
	binary.NativeEndian.PutUint16(m[4:], typ)
	binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return append(m, fixed...)
}

// attr appends an attribute.
func (m *message) attr(typ uint16, value []byte) {
	m.nest(typ, func() { *m = append(*m, value...) })
}

// nest appends an attribute whose value is what body appends.
func (m *message) nest(typ uint16, body func()) {
	at := len(*m)
	*m = binary.NativeEndian.AppendUint16(*m, 0)
	*m = binary.NativeEndian.AppendUint16(*m, typ)
	body()
	binary.NativeEndian.PutUint16((*m)[at:], uint16(len(*m)-at))
	for len(*m)%unix.NLMSG_ALIGNTO != 0 {
		*m = append(*m, 0)
	}
}

// do sends the request in the network namespace of the calling thread and
// waits for its acknowledgement. An error of the kernel is a syscall.Errno.
func (m message) do() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening rtnetlink socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending rtnetlink request: %w", err)
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return fmt.Errorf("receiving rtnetlink reply: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(reply[4:]) != unix.NLMSG_ERROR {
		return errors.New("rtnetlink reply is no acknowledgement")
	}
	// The kernel gives the negated error number, 0 for success.
	if errno := -int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// ifinfomsg is the fixed part of a request about a link, up if it shall be.
func ifinfomsg(index int, up bool) []byte {
	msg := unix.IfInfomsg{Family: unix.AF_UNSPEC, Index: int32(index)}
	if up {
		msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	}
	return fixed(&msg)
}

// fixed copies the bytes of a struct of the kernel's.
func fixed[T unix.IfInfomsg | unix.IfAddrmsg | tcmsg | netemOptions | netemProbability](msg *T) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(msg)), unsafe.Sizeof(*msg))...)
}

func cString(s string) []byte { return append([]byte(s), 0) }

func nativeUint32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
