package flow_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/spile-dev/spile/internal/packets"
	"github.com/spile-dev/spile/sidecar/capture"
)

// conversation is a random, valid HTTP/1 connection: what its ends send in turn,
// and the exchanges that this is.
type conversation struct {
	*rand.Rand
	turns     []turn
	exchanges []string
	closed    bool // by the server, which ends the last response
	plain     bool // no content looks like a request
	// mistakable is what may be reported of it where too little was captured to tell:
	// see docs/truth.md, "Connections that had begun before".
	mistakable []string
}

type turn struct {
	from int // client 0, server 1
	data string
}

// exchanged is an exchange of a conversation.
type exchanged struct {
	method, target   string
	status, up, down int
	version          string
}

func (x exchanged) line() string {
	return fmt.Sprintf("%s %s a.example %s -> %d complete, %d up, %d down", client, x.method, x.target, x.status, x.up, x.down)
}

// newConversation makes a connection of n exchanges. If it is plain, no content
// looks like a request.
func newConversation(r *rand.Rand, n int, plain bool) *conversation {
	c := &conversation{Rand: r, plain: plain}
	for i := 0; i < n && !c.closed; {
		switch batch := 1 + r.IntN(25); {
		case c.IntN(5) == 0 && i+batch <= n:
			c.pipeline(i, batch)
			i += batch
		case c.IntN(8) == 0:
			c.early(i)
			i++
		case c.IntN(20) == 0 && i+batch <= n && batch > 1:
			c.overlap(i, batch)
			i += batch
		case c.IntN(20) == 0:
			c.disguise(i)
			i++
		default:
			c.exchange(i, i == n-1)
			i++
		}
	}
	return c
}

func (c *conversation) say(from int, data ...string) {
	for _, d := range data {
		c.turns = append(c.turns, turn{from, d})
	}
}

func (c *conversation) pick(options ...string) string { return options[c.IntN(len(options))] }

// content returns bytes that look like messages.
func (c *conversation) content() string {
	size := c.IntN(200)
	if c.IntN(6) == 0 {
		size = c.IntN(60000)
	}
	request := "GET /fake HTTP/1.1\r\nHost: fake.example\r\n\r\n"
	if c.plain {
		request = "GET /fake\r\n"
	}
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(c.pick(
			request, "HTTP/1.1 200 Fake\r\nContent-Length: 2\r\n\r\nxx", "0\r\n\r\n", "\r\n",
			"HTTP/1.1 100 Continue\r\n\r\n", "5\r\nhello\r\n", strings.Repeat("x", 1+c.IntN(3000))))
	}
	return b.String()
}

// framed returns the fields that tell the length of the content, and the content
// as it is sent.
func (c *conversation) framed(content string) (fields, sent string) {
	if c.IntN(2) == 0 {
		return c.pick("Content-Length", "content-length") + fmt.Sprintf(": %d\r\n", len(content)), content
	}
	var b strings.Builder
	for rest := content; rest != ""; {
		n := 1 + c.IntN(min(len(rest), 1+c.IntN(20000)))
		fmt.Fprintf(&b, "%x%s\r\n%s\r\n", n, c.pick("", ";a=b", " ", ";\"HTTP/1.1"), rest[:n])
		rest = rest[n:]
	}
	b.WriteString("0\r\n" + c.pick("", "Trailer: GET / HTTP/1.1\r\n") + "\r\n")
	return "Transfer-Encoding: chunked\r\n", b.String()
}

func (c *conversation) request(i int) (x exchanged, head, sent string) {
	x = exchanged{method: c.pick("GET", "GET", "POST", "PUT", "HEAD", "DELETE", "BREW"), target: fmt.Sprintf("/%d/%x", i, c.Uint32()), version: "1.1"}
	if c.IntN(8) == 0 {
		x.target = "http://a.example" + x.target
	}
	head = x.method + " " + x.target + " HTTP/" + x.version + "\r\nHost: a.example\r\n"
	if c.IntN(10) == 0 {
		head += "Cookie: " + strings.Repeat("c", c.IntN(9000)) + "\r\n"
	}
	if x.method == "POST" || x.method == "PUT" || c.IntN(15) == 0 {
		content := c.content()
		fields, s := c.framed(content)
		return exchangedUp(x, len(content)), head + fields, s
	}
	return x, head, ""
}

func exchangedUp(x exchanged, n int) exchanged { x.up = n; return x }

// response returns one to x. Only the last may end with the connection.
func (c *conversation) response(x *exchanged, last bool) string {
	x.status = 200 + c.IntN(300)
	interim := ""
	for c.IntN(6) == 0 {
		interim += "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
	}
	content := c.content()
	fields, sent := c.framed(content)
	switch {
	case x.method == "HEAD", c.IntN(10) == 0:
		if x.method != "HEAD" {
			x.status = []int{204, 304}[c.IntN(2)]
		}
		content, sent = "", ""
	case x.status == 204, x.status == 304:
		x.status = 299
	case last && c.IntN(2) == 0:
		fields, sent = "", content
		c.closed = true
	}
	x.down = len(content)
	return interim + fmt.Sprintf("HTTP/1.1 %d %s\r\n", x.status, c.pick("OK", "", "HTTP/1.1 200")) + fields + "\r\n" + sent
}

func (c *conversation) exchange(i int, last bool) {
	x, head, sent := c.request(i)
	if sent != "" && c.IntN(3) == 0 {
		c.say(0, head+"Expect: 100-continue\r\n\r\n")
		c.say(1, "HTTP/1.1 100 Continue\r\n\r\n")
		c.say(0, sent)
	} else {
		c.say(0, head+"\r\n"+sent+c.pick("", "", "", "\r\n"))
	}
	c.say(1, c.response(&x, last))
	c.exchanges = append(c.exchanges, x.line())
}

// early has a response that starts before the request has been sent.
func (c *conversation) early(i int) {
	x, head, sent := c.request(i)
	n := c.IntN(len(sent) + 1)
	c.say(0, head+"\r\n"+sent[:n])
	response := c.response(&x, false)
	m := c.IntN(len(response) + 1)
	if n < len(sent) {
		c.say(1, response[:m])
		c.say(0, sent[n:])
		c.say(1, response[m:])
	} else {
		c.say(1, response)
	}
	c.exchanges = append(c.exchanges, x.line())
}

// overlap has n requests of which two are always under way.
func (c *conversation) overlap(i, n int) {
	var all []exchanged
	var responses []string
	for j := range n {
		x := exchanged{method: "GET", target: fmt.Sprintf("/%d/%x", i+j, c.Uint32()), status: 400 + j, down: c.IntN(100)}
		all = append(all, x)
		responses = append(responses, fmt.Sprintf("HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s", x.status, x.down, strings.Repeat("x", x.down)))
	}
	for j, x := range all {
		c.say(0, get(x.target))
		if j > 0 {
			c.say(1, responses[j-1])
			before := all[j-1]
			before.target = x.target
			c.mistakable = append(c.mistakable, before.line())
		}
		c.exchanges = append(c.exchanges, x.line())
	}
	c.say(1, responses[n-1])
}

// disguise has an upload that ends with a segment that could be a request.
func (c *conversation) disguise(i int) {
	x := exchanged{method: "POST", target: fmt.Sprintf("/%d/%x", i, c.Uint32()), status: 200, down: 5}
	fake := get("/fake")
	x.up = 9 + len(fake)
	c.say(0, "POST "+x.target+" HTTP/1.1\r\nHost: a.example\r\n"+fmt.Sprintf("Content-Length: %d\r\n\r\n", x.up), "some text")
	c.say(0, fake)
	c.say(1, ok("hello"))
	c.exchanges = append(c.exchanges, x.line())
	x.method, x.target, x.up = "GET", "/fake", 0
	c.mistakable = append(c.mistakable, x.line())
}

// pipeline has n requests before the first response ends.
func (c *conversation) pipeline(i, n int) {
	var requests, responses string
	for j := range n {
		x, head, sent := c.request(i + j)
		requests += head + "\r\n" + sent
		responses += c.response(&x, false)
		c.exchanges = append(c.exchanges, x.line())
	}
	c.say(0, requests)
	c.say(1, responses)
}

// wire is the segments of a conversation as the network may deliver them.
type wire struct {
	*rand.Rand
	streams  [2]string
	isn      [2]uint32
	segments []sent
	turn     int // where it started, in its stream
}

// sent is a segment, where it and its turn start in their stream.
type sent struct {
	packets.Segment
	start, turn int
}

// newWire cuts a conversation into segments, in the order they are sent.
func newWire(c *conversation) *wire {
	w := &wire{Rand: c.Rand, isn: [2]uint32{c.Uint32(), c.Uint32()}}
	if c.IntN(2) == 0 { // they wrap around
		w.isn = [2]uint32{-c.Uint32N(5000), -c.Uint32N(100000)}
	}
	w.add(0, packets.SYN, 0, 0, 0)
	w.add(1, packets.SYN|packets.ACK, 0, 0, 0)
	most := []int{1 + c.IntN(20), 1460, 65000}[c.IntN(3)]
	if most < 100 && c.length() > 4000 {
		most = 1460
	}
	for _, t := range c.turns {
		start := len(w.streams[t.from])
		w.turn = start
		w.streams[t.from] += t.data
		for end := len(w.streams[t.from]); start < end; {
			n := min(1+c.IntN(most), end-start)
			w.add(t.from, packets.ACK, start, start+n, len(w.streams[1-t.from]))
			start += n
		}
	}
	first := c.IntN(2)
	if c.closed {
		first = 1
	}
	for _, from := range []int{first, 1 - first} {
		n := len(w.streams[from])
		w.add(from, packets.FIN|packets.ACK, n, n, len(w.streams[1-from]))
	}
	return w
}

func (c *conversation) length() (n int) {
	for _, t := range c.turns {
		n += len(t.data)
	}
	return n
}

func (w *wire) add(from int, flags uint8, start, end, ack int) {
	ends := [2]netip.AddrPort{netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)}
	s := packets.Segment{From: ends[from], To: ends[1-from], Flags: flags, Seq: w.isn[from] + 1 + uint32(start)}
	if flags&packets.SYN != 0 {
		s.Seq--
	}
	if flags&packets.ACK != 0 {
		s.Ack = w.isn[1-from] + 1 + uint32(ack)
	}
	s.Payload = w.streams[from][start:end]
	w.segments = append(w.segments, sent{s, start, w.turn})
}

// from returns which end sent a segment.
func from(s sent) int {
	if s.From.Port() == 80 {
		return 1
	}
	return 0
}

// retransmit sends a part of what has been sent again, with other boundaries,
// after some of the segments; some of those that are sent again were lost. What
// an end sends again is never older than what the other had acknowledged.
func (w *wire) retransmit() {
	var all []sent
	for _, s := range w.segments {
		if s.Payload == "" || w.IntN(4) > 0 {
			all = append(all, s)
			continue
		}
		if w.IntN(2) == 0 {
			all = append(all, s)
		}
		again, f := s, from(s)
		start, end := max(s.start-w.IntN(40), s.turn), s.start+len(s.Payload)
		again.Seq -= uint32(s.start - start)
		for start < end {
			n := 1 + w.IntN(end-start)
			again.Payload = w.streams[f][start : start+n]
			all = append(all, again)
			again.Seq += uint32(n)
			start += n
		}
	}
	w.segments = all
}

// duplicate repeats segments some places later.
func (w *wire) duplicate() {
	again := make(map[int][]sent)
	var all []sent
	for i, s := range w.segments {
		all = append(append(all, s), again[i]...)
		delete(again, i)
		if w.IntN(4) == 0 {
			j := i + 1 + w.IntN(10)
			again[j] = append(again[j], s)
		}
	}
	w.segments = all
}

// reorder moves segments by up to n places, all but the first some.
func (w *wire) reorder(n, some int) {
	for i := some; i < len(w.segments); i++ {
		j := min(i+w.IntN(n), len(w.segments)-1)
		w.segments[i], w.segments[j] = w.segments[j], w.segments[i]
	}
}

// lose removes one in n segments after the first some.
func (w *wire) lose(n, some int) {
	kept := w.segments[:0]
	for i, s := range w.segments {
		if i < some || w.IntN(n) > 0 {
			kept = append(kept, s)
		}
	}
	w.segments = kept
}

// packets returns the segments as captured packets, a microsecond apart.
func (w *wire) packets() []capture.Packet {
	all := make([]capture.Packet, len(w.segments))
	for i, s := range w.segments {
		b := s.Bytes()
		all[i] = capture.Packet{At: 1_700_000_000_000_000_000 + int64(i)*1000, Data: b, Len: len(b)}
	}
	return all
}

// most cuts segments to no more than n bytes.
func (w *wire) most(n int) {
	var all []sent
	for _, s := range w.segments {
		for len(s.Payload) > n {
			part := s
			part.Payload = s.Payload[:n]
			all = append(all, part)
			s.Payload, s.start, s.Seq = s.Payload[n:], s.start+n, s.Seq+uint32(n)
		}
		all = append(all, s)
	}
	w.segments = all
}
