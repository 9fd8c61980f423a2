package bpf

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Classic is the classic BPF filter, which needs CAP_NET_RAW alone. It captures
// TCP segments that carry data or SYN, FIN or RST, whole, and counts nothing.
type Classic struct{}

// Attach makes the filter that of the socket and locks it (SO_LOCK_FILTER).
func (Classic) Attach(fd int) error {
	program, err := bpf.Assemble(classic())
	if err != nil {
		return fmt.Errorf("assembling the classic filter: %w", err)
	}
	raw := make([]unix.SockFilter, len(program))
	for i, p := range program {
		raw[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	prog := unix.SockFprog{Len: uint16(len(raw)), Filter: unsafe.SliceData(raw)}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	runtime.KeepAlive(raw)
	if err != nil {
		return fmt.Errorf("attaching the classic filter: %w", err)
	}
	return lock(fd)
}

// step is an instruction; where it jumps, to is the label of the step it jumps to.
type step struct {
	label string
	op    bpf.Instruction
	to    string
}

// classic is the program, for packets that start at their IP header: length on
// the wire - IP header - TCP header > 0, or SYN, FIN or RST. An IPv6 packet with
// extension headers is captured whole: it is rare, and user space walks them.
func classic() []bpf.Instruction {
	const (
		loopback   = 1
		outgoing   = 4
		ipv4, ipv6 = 0x0800, 0x86dd
		tcp        = 6
		flags      = 0x07 // SYN, FIN, RST
	)
	equal := func(v uint32) bpf.Instruction { return bpf.JumpIf{Cond: bpf.JumpEqual, Val: v} }
	unequal := func(v uint32) bpf.Instruction { return bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v} }
	anyBit := func(v uint32) bpf.Instruction { return bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: v} }
	shift := func(op bpf.ALUOp, n uint32) bpf.Instruction { return bpf.ALUOpConstant{Op: op, Val: n} }
	return resolve([]step{
		{"", bpf.LoadExtension{Num: bpf.ExtInterfaceIndex}, ""},
		{"", unequal(loopback), "protocol"},
		{"", bpf.LoadExtension{Num: bpf.ExtType}, ""},
		{"", equal(outgoing), "drop"},
		{"protocol", bpf.LoadExtension{Num: bpf.ExtProto}, ""},
		{"", equal(ipv6), "ipv6"},
		{"", unequal(ipv4), "drop"},

		{"", bpf.LoadAbsolute{Off: 9, Size: 1}, ""},
		{"", unequal(tcp), "drop"},
		{"", bpf.LoadAbsolute{Off: 6, Size: 2}, ""},
		{"", anyBit(0x1fff), "drop"}, // a fragment after the first
		{"", bpf.LoadMemShift{Off: 0}, ""},
		{"", bpf.LoadIndirect{Off: 13, Size: 1}, ""},
		{"", anyBit(flags), "capture"},
		{"", bpf.LoadIndirect{Off: 12, Size: 1}, ""},
		{"", shift(bpf.ALUOpShiftRight, 4), ""},
		{"", shift(bpf.ALUOpShiftLeft, 2), ""},
		{"", bpf.ALUOpX{Op: bpf.ALUOpAdd}, ""},
		{"", bpf.TAX{}, ""},
		{"", bpf.LoadAbsolute{Off: 2, Size: 2}, ""},
		{"", equal(0), "capture"}, // more than 64 KiB (BIG TCP)
		{"", bpf.JumpIfX{Cond: bpf.JumpGreaterThan}, "capture"},
		{"drop", bpf.RetConstant{Val: 0}, ""},

		{"ipv6", bpf.LoadAbsolute{Off: 6, Size: 1}, ""},
		{"", unequal(tcp), "extensions"},
		{"", bpf.LoadAbsolute{Off: 53, Size: 1}, ""},
		{"", anyBit(flags), "capture"},
		{"", bpf.LoadAbsolute{Off: 52, Size: 1}, ""},
		{"", shift(bpf.ALUOpShiftRight, 4), ""},
		{"", shift(bpf.ALUOpShiftLeft, 2), ""},
		{"", bpf.TAX{}, ""},
		{"", bpf.LoadAbsolute{Off: 4, Size: 2}, ""},
		{"", equal(0), "capture"},
		{"", bpf.JumpIfX{Cond: bpf.JumpGreaterThan}, "capture"},
		{"", bpf.RetConstant{Val: 0}, ""},
		{"extensions", equal(0), "capture"}, // hop-by-hop options
		{"", equal(43), "capture"},          // routing
		{"", equal(60), "capture"},          // destination options
		{"", bpf.RetConstant{Val: 0}, ""},
		{"capture", bpf.RetConstant{Val: 1<<31 - 1}, ""},
	})
}

// resolve puts the distances to labels into the jumps, which all go forward.
func resolve(steps []step) []bpf.Instruction {
	at := make(map[string]int)
	for i, s := range steps {
		at[s.label] = i
	}
	program := make([]bpf.Instruction, len(steps))
	for i, s := range steps {
		skip := uint8(at[s.to] - i - 1)
		switch op := s.op.(type) {
		case bpf.JumpIf:
			op.SkipTrue = skip
			program[i] = op
		case bpf.JumpIfX:
			op.SkipTrue = skip
			program[i] = op
		default:
			program[i] = op
		}
	}
	return program
}
