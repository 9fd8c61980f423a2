package flow_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/sidecar/flow"
)

// told is a filter that notes what it is told of the server's direction.
type told struct{ what []string }

func (f *told) Skip(d *bpf.Direction, _, span uint32, brief bool) bool {
	if d.SourcePort == 80 {
		f.what = append(f.what, fmt.Sprintf("skip %d, brief %t", span, brief))
	}
	return true
}

func (f *told) Forget(d *bpf.Direction) {
	if d.SourcePort == 80 {
		f.what = append(f.what, "forget")
	}
}

// TestBrief loses a part of content in chunks: its direction is brief from then on, for
// a while, whatever else may be left out of it meanwhile.
func TestBrief(t *testing.T) {
	const (
		chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		sized   = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	)
	chunks := strings.Repeat("3e8\r\n"+strings.Repeat("x", 1000)+"\r\n", 30)
	s := newScript().open()
	f := &told{}
	table, got := newTable(t, flow.Config{Skipper: f})
	up, down := uint32(1), uint32(1)
	ask := func() { s.client(ack, up, down, request); up += n }
	answer := func(part string) {
		s.server(ack, down, up, part)
		down += uint32(len(part))
	}
	cut := func() {
		p := &s.packets[len(s.packets)-1]
		p.Data = p.Data[:2000]
	}
	check := func(when string, want ...string) {
		t.Helper()
		for _, p := range s.packets {
			table.Packet(p)
		}
		s.packets = nil
		if diff := cmp.Diff(want, f.what); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
		f.what = nil
	}

	ask()
	answer(chunked + chunks)
	check("chunks")
	answer(chunks)
	cut()
	check("chunks of which bytes are missing", "skip 0, brief true")
	answer(chunks + "0\r\n\r\n")
	ask()
	answer(sized)
	check("content of which the length is known", "skip 99999, brief true")
	for range 10 {
		answer(strings.Repeat("x", 10000))
	}
	check("the end of that", "skip 0, brief true")
	s.wait(9 * second)
	ask()
	answer(chunked + chunks + "0\r\n\r\n")
	check("chunks after some time")
	s.wait(2 * second)
	ask()
	answer(chunked + chunks)
	check("chunks after more time", "forget")
	answer(chunks)
	cut()
	check("chunks of which bytes are missing again", "skip 0, brief true")
	answer("5\r\nhello\r\n0\r\n\r\n")
	s.server(fin|ack, down, up, "").client(fin|ack, up, down+1, "")
	check("the end of the connection", "forget")
	table.Close(s.at)
	checkAccounts(t, table)
	of := func(down int) string {
		return fmt.Sprintf("%s GET a.example /x -> 200 complete, 0 up, %d down", client, down)
	}
	if diff := cmp.Diff([]string{of(-1), of(100000), of(30000), of(-1)}, *got); diff != "" {
		t.Errorf("exchanges (-want +got):\n%s", diff)
	}
}
