package flow_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

const (
	syn, fin, rst, ack = packets.SYN, packets.FIN, packets.RST, packets.ACK

	second = int64(1e9)
)

// script is packets of a connection, with sequence numbers that count from the
// initial ones, like those of tcpdump: 1 is the first byte.
type script struct {
	ends    [2]netip.AddrPort
	isn     [2]uint32
	at      int64
	packets []capture.Packet
}

func newScript() *script {
	return &script{
		ends: [2]netip.AddrPort{netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)},
		isn:  [2]uint32{0xfffffff0, 1 << 31}, at: 1_700_000_000 * second,
	}
}

// client and server add a segment of that end.
func (s *script) client(flags uint8, seq, ackno uint32, data string) *script {
	return s.add(0, flags, seq, ackno, data)
}

func (s *script) server(flags uint8, seq, ackno uint32, data string) *script {
	return s.add(1, flags, seq, ackno, data)
}

func (s *script) add(from int, flags uint8, seq, ackno uint32, data string) *script {
	segment := packets.Segment{
		From: s.ends[from], To: s.ends[1-from], Flags: flags,
		Seq: s.isn[from] + seq, Ack: s.isn[1-from] + ackno, Payload: data,
	}
	if flags&ack == 0 {
		segment.Ack = 0
	}
	b := segment.Bytes()
	s.packets = append(s.packets, capture.Packet{At: s.at, Data: b, Len: len(b)})
	s.at += 1000
	return s
}

func (s *script) wait(ns int64) *script { s.at += ns; return s }

func (s *script) open() *script {
	return s.client(syn, 0, 0, "").server(syn|ack, 0, 1, "").client(ack, 1, 1, "")
}

// A request of 39 bytes and a response of 43.
var (
	request  = get("/x")
	response = ok("hello")
	n, m     = uint32(len(request)), uint32(len(response))
	upload   = "POST /u HTTP/1.1\r\nHost: a.example\r\nContent-Length: 19\r\n\r\n" // whose content is to come

	whole = client + " GET a.example /x -> 200 complete, 0 up, 5 down"
	none  = client + " GET a.example /x -> 0 %s, 0 up, 0 down"
)

func TestTCP(t *testing.T) {
	const chunked = "POST /u HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
	k := uint32(len(chunked))
	end := func(o string) string { return fmt.Sprintf(none, o) }
	for _, tt := range []struct {
		name   string
		script *script
		want   []string
	}{
		{"half-close", newScript().open().client(ack, 1, 1, request).client(fin|ack, 1+n, 1, "").server(ack, 1, 2+n, response).server(fin|ack, 1+m, 2+n, ""), []string{whole}},
		{"simultaneous close", newScript().open().client(ack, 1, 1, request).server(ack, 1, 1+n, response).client(fin|ack, 1+n, 1+m, "").server(fin|ack, 1+m, 1+n, "").client(ack, 2+n, 2+m, "").server(ack, 2+m, 2+n, ""), []string{whole}},
		{"data with FIN", newScript().open().client(ack|fin, 1, 1, request).server(ack|fin, 1, 2+n, response), []string{whole}},
		{"Fast Open", newScript().client(syn, 0, 0, request).server(syn|ack, 0, 1+n, response), []string{whole}},
		{"Fast Open refused", newScript().client(syn, 0, 0, request).server(syn|ack, 0, 1, "").client(ack, 1, 1, request).server(ack, 1, 1+n, response), []string{whole}},
		{"simultaneous open", newScript().client(syn, 0, 0, "").server(syn, 0, 0, "").client(syn|ack, 0, 1, "").server(syn|ack, 0, 1, "").client(ack, 1, 1, request).server(ack, 1, 1+n, response), []string{whole}},
		{"SYN twice", newScript().client(syn, 0, 0, "").client(syn, 0, 0, "").server(syn|ack, 0, 1, "").server(syn|ack, 0, 1, "").client(ack, 1, 1, request).client(syn, 0, 0, "").server(ack, 1, 1+n, response), []string{whole}},
		{"SYN after the data", newScript().client(ack, 1, 1, request).client(syn, 0, 0, "").server(syn|ack, 0, 1, "").server(ack, 1, 1+n, response), []string{whole}},
		{"no handshake", newScript().client(ack, 1, 1, request).server(ack, 1, 1+n, response), []string{whole}},
		{"attached before the response", newScript().server(ack, 1, 1, response).client(ack, 1, 1+m, request).server(ack, 1+m, 1+n, response), []string{whole}},
		{"attached, the start of the response lost", newScript().client(ack, 1, 1, request).server(ack, 11, 1+n, response[10:]).client(ack, 1+n, 1+m, request).server(ack, 1+m, 1+2*n, response), nil},
		{"attached, a response lost", newScript().client(ack, 1, 1, request).client(ack, 1+n, 1+m, request).server(ack, 1+m, 1+2*n, response), nil},
		{"SYN-ACK and the start of the response lost", newScript().client(syn, 0, 0, "").client(ack, 1, 1, request).server(ack, 11, 1+n, response[10:]), nil},
		{"the client alone", newScript().open().client(ack, 1, 1, request).client(ack, 1+n, 1+m, request), nil},
		{"the client alone, no handshake", newScript().client(ack, 1, 1, request).client(ack, 1+n, 1+m, request), []string{end("one_sided"), end("one_sided")}},
		{"the server alone", newScript().server(ack, 1, 1+n, response).server(ack, 1+m, 1+2*n, response), nil},
		{"keep-alive probes", newScript().open().client(ack, 1, 1, request).server(ack, 1, 1+n, response).wait(800*second).client(ack, n, 1+m, "").server(ack, m, 1+n, "x").client(ack, n, 1+m, "\x00").client(ack, 1+n, 1+m, request).server(ack, 1+m, 1+2*n, response), []string{whole, whole}},
		{"reset before the response", newScript().open().client(ack, 1, 1, request).server(rst|ack, 1, 1+n, ""), []string{end("reset")}},
		{"reset by the client", newScript().open().client(ack, 1, 1, request).client(rst, 1+n, 0, ""), []string{end("reset")}},
		{"reset after the response", newScript().open().client(ack, 1, 1, request).server(ack, 1, 1+n, response).client(rst, 1+n, 0, ""), []string{whole}},
		{"reset after FIN", newScript().open().client(ack, 1, 1, request).client(fin|ack, 1+n, 1, "").client(rst, 2+n, 0, ""), []string{end("reset")}},
		{"reset from elsewhere", newScript().open().client(ack, 1, 1, request).server(rst|ack, 1<<30, 1+n, "").server(ack, 1, 1+n, response), []string{whole}},
		{"ports used again", newScript().open().client(ack, 1, 1, request).client(syn, 1<<20, 0, "").server(syn|ack, 1<<20, 1<<20+1, "").client(ack, 1<<20+1, 1<<20+1, request).server(ack, 1<<20+1, 1<<20+1+n, response), []string{end("evicted"), whole}},
		{"ports used again, bytes missing", newScript().open().client(ack, 1, 1, chunked).server(ack, 1, 1+k, response).client(ack, 7+k, 1+m, "llo\r\n0\r\n\r\n").client(syn, 1<<20, 0, ""), []string{client + " POST a.example /u -> 200 complete, -1 up, 5 down"}},
		{"ports used again after the end", newScript().open().client(ack|fin, 1, 1, request).server(ack|fin, 1, 2+n, response).client(syn, 1<<20, 0, "").server(syn|ack, 1<<20, 1<<20+1, "").client(ack, 1<<20+1, 1<<20+1, request).server(ack, 1<<20+1, 1<<20+1+n, response), []string{whole, whole}},
		{"ports used again after a reset, no handshake seen", newScript().open().client(ack, 1, 1, request).server(rst|ack, 1, 1+n, "").wait(6*second).client(ack, 1<<20, 1<<20, request).server(ack, 1<<20, 1<<20+n, response), []string{end("reset"), whole}},
		{"request that crosses the server's FIN", newScript().open().client(ack, 1, 1, request).server(ack, 1, 1+n, response).server(fin|ack, 1+m, 1+n, "").client(ack, 1+n, 1+m, request).server(rst, 2+m, 0, ""), []string{whole, end("no_response")}},
		{"request that crosses the server's FIN, captured first", newScript().open().client(ack, 1, 1, request).server(ack, 1, 1+n, response).client(ack, 1+n, 1+m, request).server(fin|ack, 1+m, 1+n, "").server(rst, 2+m, 0, ""), []string{whole, end("no_response")}},
		{"requests that cross the server's FIN", newScript().open().client(ack, 1, 1, request).server(fin|ack, 1, 1+n, response).client(ack, 1+n, 1, request+request[:9]).client(ack, 1+2*n+9, 1, request[9:]).server(rst, 2+m, 0, ""), []string{whole, end("no_response"), end("no_response")}},
		{"request with content that crosses the server's FIN", newScript().open().client(ack, 1, 1, request).server(fin|ack, 1, 1+n, response).client(ack, 1+n, 1, upload).client(ack, 1+n+uint32(len(upload)), 1, "GET /y HTTP/1.1\r\n\r\n"+request).server(rst, 2+m, 0, ""), []string{whole, client + " POST a.example /u -> 0 no_response, 0 up, 0 down", end("no_response")}},
		{"FIN before the data", newScript().open().client(fin|ack, 1+n, 1+m, "").server(fin|ack, 1+m, 2+n, "").client(ack, 1, 1, request).server(ack, 1, 1+n, response), []string{whole}},
		{"FIN of an unfinished response", newScript().open().client(ack, 1, 1, request).server(ack|fin, 1, 1+n, response[:30]), []string{fmt.Sprintf(none, "truncated")}},
		{"retransmission with other boundaries", newScript().open().client(ack, 1, 1, request[:10]).client(ack, 5, 1, request[4:20]).client(ack, 1, 1, request[:25]).client(ack, 3, 1, request[2:]).server(ack, 1, 1+n, response), []string{whole}},
		{"late bytes", newScript().open().server(ack, 21, 1+n, response[20:]).server(ack, 1, 1+n, response[:20]).wait(second/5).client(ack, 11, 1, request[10:]).client(ack, 1, 1, request[:10]), []string{whole}},
		{"idle for a quarter of an hour", newScript().open().client(ack, 1, 1, request).wait(1000*second).server(ack, 1, 1+n, response), []string{end("evicted")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, run(t, tt.script.packets)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestResetAnywhere resets a connection after each byte.
func TestResetAnywhere(t *testing.T) {
	for i := range n {
		s := newScript().open().client(ack, 1, 1, request[:i]).client(rst|ack, 1+i, 1, "")
		if got := run(t, s.packets); len(got) > 0 {
			t.Errorf("after %d bytes of the request: %q", i, got)
		}
	}
	for i := range m {
		s := newScript().open().client(ack, 1, 1, request).server(ack, 1, 1+n, response[:i]).server(rst|ack, 1+i, 1+n, "")
		if got := run(t, s.packets); len(got) != 1 || !strings.Contains(got[0], " reset, ") {
			t.Errorf("after %d bytes of the response: %q", i, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ client, server, want string }{
		{"[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:80", "10.0.0.1:1"},
		{"[fe80::1]:1", "[fe80::2]:80", "[fe80::1]:1"},
		{"[2001:db8::2]:65535", "[2001:db8::1]:65535", "[2001:db8::2]:65535"},
		{"127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"},
		{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"},
	} {
		c := packets.Open(tt.client, tt.server, 5, 6).Request(request, 0).Response(response, 0)
		if strings.HasPrefix(tt.client, "[::ffff") { // in IPv6 packets, as the loopback has them never
			continue
		}
		got := run(t, c.Packets)
		if want := strings.Replace(whole, client, tt.want, 1); !slices.Equal(got, []string{want}) {
			t.Errorf("%s to %s: %q, want %q", tt.client, tt.server, got, want)
		}
	}
}

// TestFragments has a request in fragments of an IP packet beside an exchange. They are
// not put together: the first is a segment that lacks its end, the others are counted.
func TestFragments(t *testing.T) {
	table, got := newTable(t, flow.Config{})
	c := packets.Open(client, server, 1, 1).Request(request, 0).Response(response, 0)
	fragments := packets.Open(client, "10.0.0.3:80", 1, 1).Request(request, 16)
	for i, p := range fragments.Packets[2:] {
		p.Data[6], p.Data[7] = 0x20, byte(i) // more fragments, offset
		table.Packet(p)
	}
	for _, p := range c.Packets {
		table.Packet(p)
	}
	table.Close(c.At)
	checkAccounts(t, table)
	if !slices.Equal(*got, []string{whole}) || table.Stats.Fragments != 2 || table.Exchanges().Seen != 2 {
		t.Errorf("%q, %d fragments, %d requests; want 2 of each", *got, table.Stats.Fragments, table.Exchanges().Seen)
	}
}

// TestLongBody has bodies of more than 2^32 bytes of which the filter captures
// next to nothing, and no body at all.
func TestLongBody(t *testing.T) {
	const size = 9 << 30
	for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n", size), ""} {
		head := "HTTP/1.1 200 OK\r\n" + framing + "\r\n"
		s := newScript().open().client(ack, 1, 1, request)
		table, got := newTable(t, flow.Config{Skipper: &counter{}})
		feed := func() {
			for _, p := range s.packets {
				table.Packet(p)
			}
			s.packets = nil
		}
		s.server(ack, 1, 1+n, head)
		const step = 16 << 20 // what flow tells the filter at a time
		at := uint32(len(head)) + 1
		for sent := int64(0); sent < size-1; sent += step {
			s.wait(second/10).server(ack, at, 1+n, strings.Repeat("x", int(min(1000, size-1-sent))))
			at += uint32(min(step, size-1-sent))
			feed()
		}
		s.server(ack, at, 1+n, "x").server(fin|ack, at+1, 1+n, "")
		feed()
		table.Close(s.at)
		checkAccounts(t, table)
		want := []string{fmt.Sprintf("%s GET a.example /x -> 200 complete, 0 up, %d down", client, int64(size))}
		if diff := cmp.Diff(want, *got); diff != "" || table.Stats.Missing != 0 {
			t.Errorf("%q, %d bytes missing (-want +got):\n%s", framing, table.Stats.Missing, diff)
		}
	}
}

func newTable(t *testing.T, c flow.Config) (*flow.Table, *[]string) {
	t.Helper()
	var got []string
	c.Emit = func(x *exchange.Exchange) { got = append(got, line(x)) }
	if f, ok := c.Skipper.(*counter); ok {
		f.noted = make(map[bpf.Direction]bool)
	}
	return flow.NewTable(c), &got
}

// TestLimits has more connections than a table follows: the oldest go, and are
// counted; those that are alive are still reported.
func TestLimits(t *testing.T) {
	table, got := newTable(t, flow.Config{Connections: 100})
	healthy := newScript().open().client(ack, 1, 1, request)
	sent := 0
	feed := func() {
		for ; sent < len(healthy.packets); sent++ {
			table.Packet(healthy.packets[sent])
		}
	}
	feed()
	for i := range 5000 {
		s := newScript()
		s.ends[0] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 1)
		s.client(syn, 0, 0, "") // a million of these must not push out what is open
		if i%2 == 0 {
			s.server(syn|ack, 0, 1, "").client(ack, 1, 1, request[:20])
		}
		for _, p := range s.packets {
			table.Packet(p)
		}
		if i%50 == 49 { // alive
			k := uint32(i / 50)
			healthy.server(ack, 1+k*m, 1+(k+1)*n, response).client(ack, 1+(k+1)*n, 1+(k+1)*m, request)
			feed()
		}
	}
	if table.Stats.Open > 100+1024+1024+2 {
		t.Errorf("%d connections are followed", table.Stats.Open)
	}
	table.Close(healthy.at)
	checkAccounts(t, table)
	alive := slices.DeleteFunc(slices.Clone(*got), func(l string) bool { return l != whole })
	if len(alive) != 100 || table.Stats.Evicted < 2000 {
		t.Errorf("%d of 100 exchanges of the connection that is alive, %d evicted", len(alive), table.Stats.Evicted)
	}
}

// TestLateMemory has connections with holes that never fill: what waits is
// bounded, however small its parts are.
func TestLateMemory(t *testing.T) {
	const limit = 100_000
	for _, size := range []int{900, 1} {
		for _, captured := range []int{1000, 40} { // all, headers
			table, got := newTable(t, flow.Config{Late: limit})
			before := heap()
			for i := range 200 {
				s := newScript()
				s.ends[0] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 1)
				s.open()
				for k := range uint32(200) {
					s.client(ack, 1000+k*1000, 1, strings.Repeat("x", size))
				}
				for _, p := range s.packets {
					p.Data = p.Data[:min(len(p.Data), captured)]
					table.Packet(p)
					if table.Stats.LateBytes > limit {
						t.Fatalf("%d bytes wait", table.Stats.LateBytes)
					}
				}
			}
			if more := int64(heap() - before); more > 20*limit {
				t.Errorf("segments of %d bytes, %d captured: %d bytes more of heap", size, captured, more)
			}
			table.Close(newScript().at)
			checkAccounts(t, table)
			if len(*got) > 0 {
				t.Errorf("%q", *got)
			}
		}
	}
}
