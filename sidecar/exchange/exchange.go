// Package exchange turns the ordered bytes of a connection into HTTP
// exchanges: one request and the response to it (RFC 9110, section 3.4).
//
// It knows nothing of packets, sockets or spans: package flow feeds it, package
// span reads what it emits. It never guesses: where the bytes allow two
// readings, or some are missing, it says so by the Outcome or stays silent and
// counts.
package exchange

import (
	"math"
	"net/netip"
)

// Dir is the direction of bytes within a connection, as flow numbers it. Which
// of the two carries requests is known only once a Conn has seen one.
type Dir uint8

// Opposite returns the other direction.
func (d Dir) Opposite() Dir { return d ^ 1 }

// Role says which end of an exchange is the network namespace that was watched.
type Role uint8

// The server role is also that of an exchange with no end, or both ends, in
// the namespace: each exchange is reported once.
const (
	RoleServer Role = iota
	RoleClient
)

func (r Role) String() string {
	if r == RoleClient {
		return "client"
	}
	return "server"
}

// Peers are the two ends of the connection.
type Peers struct{ Client, Server netip.AddrPort }

// Protocol is the application protocol and version of an exchange.
type Protocol uint8

// The protocols that are parsed.
const (
	ProtocolUnknown Protocol = iota
	HTTP10
	HTTP11
	HTTP2
	GRPC
)

var protocolNames = [...]string{"", "HTTP/1.0", "HTTP/1.1", "HTTP/2", "gRPC"}

func (p Protocol) String() string { return protocolNames[p] }

// Version returns the HTTP version alone, as network.protocol.version has it:
// "1.0", "1.1" or "2".
func (p Protocol) Version() string {
	switch p {
	case HTTP10:
		return "1.0"
	case HTTP11:
		return "1.1"
	case HTTP2, GRPC:
		return "2"
	}
	return ""
}

// Outcome says how an exchange ended.
type Outcome uint8

const (
	// Complete: the request and its final response were seen to their ends.
	Complete Outcome = iota
	// NoResponse: the connection was closed before the first byte of a response.
	NoResponse
	// Reset: a TCP reset ended the connection before the response ended.
	Reset
	// Truncated: the connection was closed before the message in progress ended.
	Truncated
	// Ambiguous: the framing of a message has two readings (RFC 9112, section
	// 11.2); what is reported is certain, what followed was not parsed.
	Ambiguous
	// OneSided: no packet of the server was captured, so that nothing is known
	// of the response.
	OneSided
	// Evicted: the connection was forgotten (idle, or the table was full) while
	// the exchange was in progress.
	Evicted
	// Unfinished: capture ended while the exchange was in progress.
	Unfinished
	// Undecoded: complete, but fields refer to others that were sent before the
	// capture began (RFC 7541, section 2.3.2); those are left out.
	Undecoded

	numOutcomes
)

var outcomeNames = [...]string{
	"complete", "no_response", "reset", "truncated", "ambiguous", "one_sided", "evicted", "unfinished",
	"undecoded",
}

func (o Outcome) String() string { return outcomeNames[o] }

// Outcomes lists every outcome.
func Outcomes() []Outcome {
	all := make([]Outcome, numOutcomes)
	for i := range all {
		all[i] = Outcome(i)
	}
	return all
}

// Exchange is a request and the response to it. It, and all that it refers to, is
// valid only during the call that hands it over: also its strings, which point
// into memory that the next one uses.
type Exchange struct {
	Peers    Peers
	Role     Role
	Protocol Protocol
	Request  Request
	Response Response
	Outcome  Outcome

	// Times in nanoseconds since the Unix epoch, 0 if it did not happen.
	Start        int64 // first byte of the request
	FirstByte    int64 // first byte of the final response
	FirstContent int64 // first bytes of its content (HTTP/2)
	End          int64 // last byte seen of the exchange

	Wire  Wire
	Reset StreamReset
}

// StreamReset is the RST_STREAM frame that ended the exchange, if one did (RFC
// 9113, section 6.4).
type StreamReset struct {
	Seen     bool
	ByServer bool
	Code     uint32 // section 7
}

// Latency is the time from the first byte of the request to the last byte of
// the response, in nanoseconds, 0 without a response.
func (x *Exchange) Latency() int64 {
	if x.FirstByte == 0 {
		return 0
	}
	return x.End - x.Start
}

// GRPCStatus returns the status code of a gRPC call, from the trailers or, of a
// response without content, from the header section.
func (x *Exchange) GRPCStatus() (code int, ok bool) {
	v, found := x.Response.Trailers.Get("grpc-status")
	if !found {
		v, found = x.Response.Fields.Get("grpc-status")
	}
	n, ok := decimal(v)
	return int(n), found && ok && n <= math.MaxInt32
}

// Request is the request of an exchange.
type Request struct {
	Method string // as on the wire
	Target string // request-target as on the wire (RFC 9112, section 3.2)
	Host   string // Host field, or the authority of an absolute-form target
	Fields Fields
	// BodySize is the number of bytes of content seen, transfer coding removed, or
	// UnknownSize.
	BodySize int64
}

// UnknownSize is the size of content in chunks of which some were not captured, and
// of content whose framing has two readings.
const UnknownSize = -1

// Response is the final response of an exchange; Status is 0 if there was none.
type Response struct {
	Status   int
	Fields   Fields
	Trailers Fields // HTTP/2
	BodySize int64
}

// Wire identifies the exchange on the wire: both ends of a connection see the
// same sequence numbers, also through destination NAT.
type Wire struct {
	RequestSeq  uint32 // sequence number of the first byte of the request
	RequestAck  uint32 // acknowledgement number of the segment that carried it, 0 if it had none (RFC 7413)
	ResponseSeq uint32 // sequence number of the first byte of the response
	StreamID    uint32 // HTTP/2 stream, 0 for HTTP/1
	Index       uint32 // exchanges before this one on the connection
}

// Field is a header field line: the name as on the wire, the value without
// surrounding whitespace.
type Field struct{ Name, Value string }

// Fields is the header section of a message, in the order of the wire.
type Fields []Field

// Get returns the value of the first field with the given name, compared
// without regard to ASCII case, and whether there is one.
func (f Fields) Get(name string) (string, bool) {
	for i := range f {
		if len(f[i].Name) == len(name) && equalFold(f[i].Name, name) {
			return f[i].Value, true
		}
	}
	return "", false
}

// equalFold compares two strings of equal length as ASCII without regard to case.
func equalFold(a, b string) bool {
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}
