package flow_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/reassembly"

	"github.com/spile-dev/spile/sidecar/capture"
)

// FuzzOracle has others read random conversations that arrive in disorder, twice
// and with different boundaries: gopacket puts the segments in order, net/http
// reads the messages. Both must come to the same exchanges as a Table.
func FuzzOracle(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		c := newConversation(rand.New(rand.NewPCG(a, b)), 1+int(a%30), a%2 == 0)
		w := newWire(c)
		w.retransmit()
		w.duplicate()
		w.reorder(2+c.IntN(20), 2)
		all := w.packets()
		if diff := cmp.Diff(httpExchanges(t, reassemble(t, all)), run(t, all)); diff != "" {
			t.Errorf("-gopacket and net/http +flow:\n%s", diff)
		}
	})
}

// streams collects the bytes of a connection, by direction.
type streams struct {
	bytes [2][]byte
	lost  int
}

func (s *streams) New(_, _ gopacket.Flow, _ *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	return s
}

func (s *streams) Accept(*layers.TCP, gopacket.CaptureInfo, reassembly.TCPFlowDirection, reassembly.Sequence, *bool, reassembly.AssemblerContext) bool {
	return true
}

func (s *streams) ReassembledSG(sg reassembly.ScatterGather, _ reassembly.AssemblerContext) {
	length, _ := sg.Lengths()
	dir, _, _, skip := sg.Info()
	s.lost += max(skip, 0)
	at := 0
	if dir == reassembly.TCPDirServerToClient {
		at = 1
	}
	s.bytes[at] = append(s.bytes[at], sg.Fetch(length)...)
}

func (s *streams) ReassemblyComplete(reassembly.AssemblerContext) bool { return false }

func reassemble(t *testing.T, all []capture.Packet) [2][]byte {
	t.Helper()
	var s streams
	assembler := reassembly.NewAssembler(reassembly.NewStreamPool(&s))
	for _, p := range all {
		packet := gopacket.NewPacket(p.Data, layers.LayerTypeIPv4, gopacket.Default)
		tcp, ok := packet.TransportLayer().(*layers.TCP)
		if !ok {
			t.Fatalf("not TCP: %v", packet)
		}
		context := &stamp{gopacket.CaptureInfo{Timestamp: time.Unix(0, p.At), CaptureLength: len(p.Data), Length: p.Len}}
		assembler.AssembleWithContext(packet.NetworkLayer().NetworkFlow(), tcp, context)
	}
	assembler.FlushAll()
	if s.lost > 0 {
		t.Skipf("gopacket misses %d bytes, all of which are there", s.lost) // seldom, of much disorder
	}
	return s.bytes
}

type stamp struct{ info gopacket.CaptureInfo }

func (s *stamp) GetCaptureInfo() gopacket.CaptureInfo { return s.info }

// httpExchanges reads the two directions of a connection.
func httpExchanges(t *testing.T, stream [2][]byte) []string {
	t.Helper()
	var lines []string
	requests, responses := bufio.NewReader(bytes.NewReader(stream[0])), bufio.NewReader(bytes.NewReader(stream[1]))
	content := func(r io.Reader) int64 {
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for {
		for b, _ := requests.Peek(1); len(b) == 1 && (b[0] == '\r' || b[0] == '\n'); b, _ = requests.Peek(1) {
			_, _ = requests.Discard(1) // an empty line before a request (RFC 9112, section 2.2)
		}
		request, err := http.ReadRequest(requests)
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		up := content(request.Body)
		response, err := http.ReadResponse(responses, request)
		for err == nil && response.StatusCode < 200 {
			response, err = http.ReadResponse(responses, request)
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s -> %d complete, %d up, %d down", client, request.Method,
			request.Host, request.RequestURI, response.StatusCode, up, content(response.Body)))
	}
}
