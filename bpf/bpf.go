// Package bpf is the kernel half of Spile: the socket filter that decides how
// many bytes of each packet are captured, and what user space may tell it.
//
// There are two rungs. Tap is the eBPF filter: it leaves out what user space has
// said it does not need, and the inside of HTTP/2's DATA frames. Classic is a classic BPF filter for where CAP_BPF is
// missing: it captures every TCP packet that carries data.
package bpf

// MaxSpan is the largest number of bytes that one call of Skip may cover.
const MaxSpan = 1 << 30

// Direction is one direction of a TCP connection. An IPv4 address lies in bytes
// 8 to 11 of an otherwise zero array; ports are numbers.
type Direction struct {
	Source, Destination         [16]byte
	SourcePort, DestinationPort uint16
}

// Counters say what became of the packets that passed the filter.
type Counters struct {
	Seen         uint64 // packets of any kind on the watched interfaces
	NotTCP       uint64 // not TCP over IPv4 or IPv6
	Malformed    uint64 // headers shorter than they say
	Fragments    uint64 // IP fragments after the first
	Own          uint64 // of the sidecar's own connections
	Excluded     uint64 // of ports that the user excluded
	Empty        uint64 // pure acknowledgements
	Omitted      uint64 // not needed, as user space said
	OmittedBytes uint64 // payload of packets left out or cut to their headers
	Captured     uint64 // handed to user space
	Cut          uint64 // of these, cut because user space lagged behind or their direction is brief
	LoopbackCopy uint64 // the sent copy of a loopback packet
	Walked       uint64 // of the captured, cut to what of their HTTP/2 frames is needed
	Unsynced     uint64 // of the captured, those in which no frame was found where one was looked for
	Pieces       uint64 // bytes captured beside packets
	PiecesStale  uint64 // of these, never asked for
	PiecesFull   uint64 // that found no room, so that their packets were captured whole
}
