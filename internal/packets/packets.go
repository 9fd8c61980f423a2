// Package packets builds the packets of TCP connections for tests.
package packets

import (
	"encoding/binary"
	"net/netip"

	"github.com/spile-dev/spile/sidecar/capture"
)

// TCP flags (RFC 9293, section 3.1).
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	ACK = 0x10
)

// Segment is a TCP segment in an IP packet.
type Segment struct {
	From, To netip.AddrPort
	Seq, Ack uint32
	Flags    uint8
	Payload  string
}

// Bytes returns the packet from its IP header on, without checksums.
func (s Segment) Bytes() []byte {
	tcp := make([]byte, 20, 20+len(s.Payload))
	binary.BigEndian.PutUint16(tcp, s.From.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.To.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.Seq)
	binary.BigEndian.PutUint32(tcp[8:], s.Ack)
	tcp[12], tcp[13] = 5<<4, s.Flags
	tcp = append(tcp, s.Payload...)
	if s.From.Addr().Is4() {
		ip := make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, 6
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
		src, dst := s.From.Addr().As4(), s.To.Addr().As4()
		copy(ip[12:], src[:])
		copy(ip[16:], dst[:])
		return append(ip, tcp...)
	}
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, 6, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	src, dst := s.From.Addr().As16(), s.To.Addr().As16()
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
	return append(ip, tcp...)
}

// Conn makes the packets of a connection, one microsecond apart.
type Conn struct {
	Client, Server netip.AddrPort
	Packets        []capture.Packet
	At             int64     // time of the next packet, Unix nanoseconds
	next           [2]uint32 // sequence numbers of client and server
}

// Open returns a connection after its handshake.
func Open(client, server string, clientISN, serverISN uint32) *Conn {
	c := &Conn{
		Client: netip.MustParseAddrPort(client), Server: netip.MustParseAddrPort(server),
		At: 1_700_000_000_000_000_000, next: [2]uint32{clientISN, serverISN},
	}
	c.add(0, SYN, "")
	c.add(1, SYN|ACK, "")
	return c
}

// Request sends data from the client, in segments of at most n bytes, or one.
func (c *Conn) Request(data string, n int) *Conn { return c.send(0, data, n) }

// Response sends data from the server, in segments of at most n bytes, or one.
func (c *Conn) Response(data string, n int) *Conn { return c.send(1, data, n) }

// CloseClient and CloseServer send FIN, Reset sends RST from the server.
func (c *Conn) CloseClient() *Conn { c.add(0, FIN|ACK, ""); return c }

// CloseServer sends FIN from the server.
func (c *Conn) CloseServer() *Conn { c.add(1, FIN|ACK, ""); return c }

// Reset sends RST from the server.
func (c *Conn) Reset() *Conn { c.add(1, RST|ACK, ""); return c }

func (c *Conn) send(from int, data string, n int) *Conn {
	if n <= 0 {
		n = len(data)
	}
	for len(data) > 0 {
		m := min(n, len(data))
		c.add(from, ACK, data[:m])
		data = data[m:]
	}
	return c
}

func (c *Conn) add(from int, flags uint8, payload string) {
	s := Segment{From: c.Client, To: c.Server, Seq: c.next[from], Ack: c.next[1-from], Flags: flags, Payload: payload}
	if from == 1 {
		s.From, s.To = s.To, s.From
	}
	if flags&ACK == 0 {
		s.Ack = 0
	}
	b := s.Bytes()
	c.Packets = append(c.Packets, capture.Packet{At: c.At, Data: b, Len: len(b)})
	c.At += 1000
	c.next[from] += uint32(len(payload))
	if flags&(SYN|FIN) != 0 {
		c.next[from]++
	}
}
