package bpf

import "fmt"

// Run runs the filter on a packet, from its IP header on, as if it had come in on
// the loopback interface, and returns how many bytes of it a socket would get. It
// is for tests, and needs CAP_BPF (BPF_PROG_TEST_RUN).
func (t *Tap) Run(packet []byte) (int, error) {
	const ethernet = 14 // the kernel takes these off before it runs the filter
	frame := make([]byte, ethernet, ethernet+len(packet))
	frame[12], frame[13] = 0x08, 0x00
	if packet[0]>>4 == 6 {
		frame[12], frame[13] = 0x86, 0xdd
	}
	n, _, err := t.program.Test(append(frame, packet...))
	if err != nil {
		return 0, fmt.Errorf("running the filter: %w", err)
	}
	return int(n), nil
}
