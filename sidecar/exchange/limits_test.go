package exchange_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// headOf returns a request head of n bytes.
func headOf(n int) string {
	const start, end = "GET / HTTP/1.1\r\nHost: h\r\nX: ", "\r\n\r\n"
	return start + strings.Repeat("x", n-len(start)-len(end)) + end
}

func responseHeadOf(n int) string {
	const start, end = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", "\r\n\r\n"
	return start + strings.Repeat("x", n-len(start)-len(end)) + end
}

func TestHeadSize(t *testing.T) {
	const limit = 64 << 10
	for _, size := range []int{0, 1, 1000, 1460, 60000, limit - 1, limit, limit + 1} {
		r := run(t, exchange.Limits{}, []step{c(headOf(limit)), s(responseHeadOf(limit)), c(get), s(ok5)}, size)
		if len(r.got) != 2 || r.got[1] != gotOK {
			t.Errorf("heads of %d bytes in segments of %d: %.200q", limit, size, r.got)
		}
		// The head ends in a segment that has a body too.
		upload := strings.Replace(headOf(300), "Host: h", "Content-Length: 200000", 1)
		r = run(t, exchange.Limits{}, []step{c(upload[:299]), c(upload[299:] + strings.Repeat("b", 200000)), s(ok5), c(get), s(ok5)}, size)
		if len(r.got) != 2 || !strings.Contains(r.got[0], "200000 up") || r.got[1] != gotOK {
			t.Errorf("a head and content in segments of %d: %.200q", size, r.got)
		}

		r = run(t, exchange.Limits{}, []step{c(get), s(ok5), c(headOf(limit + 1)), s(ok5)}, size)
		if len(r.got) != 1 || r.engine.Stats.Dropped[exchange.DropHeadTooLarge] != 1 || r.conn.Kind() != exchange.KindGivenUp {
			t.Errorf("a request head of %d bytes in segments of %d: %.200q, %+v", limit+1, size, r.got, r.engine.Stats)
		}
		r = run(t, exchange.Limits{}, []step{c(get), s(ok5), c(get), s(responseHeadOf(limit + 1))}, size)
		if len(r.got) != 1 || r.engine.Stats.Dropped[exchange.DropHeadTooLarge] != 1 || r.conn.Kind() != exchange.KindGivenUp {
			t.Errorf("a response head of %d bytes in segments of %d: %.200q, %+v", limit+1, size, r.got, r.engine.Stats)
		}
		r = run(t, exchange.Limits{}, []step{c("GET /" + strings.Repeat("x", 2*limit)), s(ok5)}, size)
		if len(r.got) != 0 || r.conn.Kind() != exchange.KindGivenUp || r.peak > limit {
			t.Errorf("an endless target in segments of %d: kind %s, %d bytes held", size, r.conn.Kind(), r.peak)
		}
	}
}

// TestHeadSplit splits the heads of an exchange in two at every offset.
func TestHeadSplit(t *testing.T) {
	const request = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: u\r\n\r\n" + get
	const response = "HTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" + ok5
	for i := range len(request) + 1 {
		for j := range len(response) + 1 {
			r := run(t, exchange.Limits{}, []step{c(request[:i]), c(request[i:]), s(response[:j]), s(response[j:])}, 0)
			if len(r.got) != 2 || r.got[0] != "POST /p HTTP/1.1 [h] -> 200 complete, 5 up, 1 down, 2+1 fields" || r.got[1] != gotOK {
				t.Fatalf("split at %d and %d: %q", i, j, r.got)
			}
		}
	}
}

func TestFieldLimit(t *testing.T) {
	head := "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 1000) + "Content-Length: 3\r\n\r\nabc"
	r := run(t, exchange.Limits{}, []step{c(head), s(ok5), c(get), s(ok5)}, 0)
	if len(r.got) != 2 || r.got[0] != "GET / HTTP/1.1 [] -> 200 complete, 3 up, 5 down, 256+1 fields" || r.got[1] != gotOK {
		t.Errorf("%q", r.got)
	}
}

// TestMemory has many connections with heads that are not complete, or complete
// and without a response: what is held of them is bounded.
func TestMemory(t *testing.T) {
	const limit = 1 << 20
	for name, sent := range map[string]string{
		"half heads":            headOf(2000)[:1990],
		"heads":                 headOf(2000),
		"heads with content":    strings.Replace(headOf(2000), "Host: h", "Content-Length: 9000", 1),
		"pipelined heads":       strings.Repeat(headOf(2000), 100),
		"heads of short fields": "GET / HTTP/1.1\r\n" + strings.Repeat("a:\r\n", 250) + "\r\n",
		"too little to tell":    "GET",
	} {
		t.Run(name, func(t *testing.T) {
			emitted := uint64(0)
			e := exchange.NewEngine(exchange.Limits{Buffered: limit}, func(*exchange.Exchange) { emitted++ })
			conns := make([]*exchange.Conn, 3000)
			for i := range conns {
				conns[i] = e.NewConn(ends2, true)
				conns[i].Data(0, exchange.Segment{At: 1, Seq: 1, Aligned: true}, []byte(sent))
				if e.Stats.HeldBytes > limit {
					t.Fatalf("%d connections hold %d bytes", i+1, e.Stats.HeldBytes)
				}
			}
			for _, c := range conns {
				c.Close(exchange.Evicted, 2)
			}
			dropped := uint64(0)
			for _, n := range e.Stats.Dropped {
				dropped += n
			}
			if e.Stats.Seen != emitted+dropped || e.Stats.HeldBytes != 0 || e.Stats.InFlight != 0 {
				t.Errorf("emitted %d, %+v", emitted, e.Stats)
			}
		})
	}
}

// TestSniff has the first bytes of other protocols.
func TestSniff(t *testing.T) {
	const client, server = 0, 1
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 32)
	for _, tt := range []struct {
		name  string
		dir   int
		bytes string
		want  exchange.Kind
	}{
		{"TLS", client, hello, exchange.KindTLS},
		{"TLS 1.0 record", client, "\x16\x03\x00" + hello[3:], exchange.KindTLS},
		{"TLS from the server", server, "\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", exchange.KindTLS},
		{"HTTP/2", client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", exchange.KindHTTP2},
		{"Redis", client, "*1\r\n$4\r\nPING\r\n", exchange.KindRedis},
		{"Redis, inline", client, "SET key value-of-it\r\n", exchange.KindOther},
		{"PostgreSQL", client, "\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00", exchange.KindPostgres},
		{"PostgreSQL, SSL", client, "\x00\x00\x00\x08\x04\xd2\x16\x2f", exchange.KindPostgres},
		{"MySQL", server, "\x4a\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00", exchange.KindMySQL},
		{"SSH", server, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", exchange.KindSSH},
		{"SSH client", client, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", exchange.KindSSH},
		{"MongoDB", client, "\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00", exchange.KindMongoDB},
		{"AMQP", client, "AMQP\x00\x00\x09\x01", exchange.KindAMQP},
		{"Kafka", client, "\x00\x00\x00\x1c\x00\x12\x00\x03\x00\x00\x00\x01\x00\x0aconsumer", exchange.KindKafka},
		{"SMTP", server, "220 mail.example.org ESMTP Postfix\r\n", exchange.KindSMTP},
		{"memcached", client, "get some-key-of-mine\r\n", exchange.KindMemcached},
		{"SIP", client, "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP\r\n\r\n", exchange.KindOther},
		{"RTSP", client, "DESCRIBE rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n", exchange.KindOther},
		{"HTTP/0.9", client, "GET /index.html\r\n", exchange.KindOther},
		{"HTTP/3.0", client, "GET / HTTP/3.0\r\nHost: h\r\n\r\n", exchange.KindOther},
		{"a method of 65 bytes", client, strings.Repeat("M", 65) + " / HTTP/1.1\r\n\r\n", exchange.KindOther},
		{"zeros", client, strings.Repeat("\x00", 16), exchange.KindOther},
		{"too few to tell", client, "\x00\x00\x00", exchange.KindUndecided},
		{"the start of a method", client, "GE", exchange.KindUndecided},
	} {
		for _, size := range []int{0, 1, 2, 5} {
			t.Run(fmt.Sprint(tt.name, "/", size), func(t *testing.T) {
				first := c(tt.bytes)
				if tt.dir == server {
					first = s(tt.bytes)
				}
				steps := []step{first, c(get), s(ok5)}
				if tt.want == exchange.KindUndecided {
					steps = steps[:1]
				}
				r := run(t, exchange.Limits{}, steps, size)
				if r.conn.Kind() != tt.want || len(r.got) > 0 {
					t.Errorf("kind %s, want %s; exchanges %q", r.conn.Kind(), tt.want, r.got)
				}
			})
		}
	}
}
