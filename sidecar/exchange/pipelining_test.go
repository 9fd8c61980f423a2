package exchange_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func TestOneSided(t *testing.T) {
	var want []string
	var steps []step
	for i := range 600 { // more than Limits.Pipeline
		steps = append(steps, c(fmt.Sprintf("GET /%d HTTP/1.1\r\nContent-Length: 2\r\n\r\nxx", i)))
		want = append(want, fmt.Sprintf("GET /%d HTTP/1.1 [] -> 0 one_sided, 2 up, 0 down, 1+0 fields", i))
	}
	test(t, []conversation{{"client", steps, want, 0}})

	r := newReplay(exchange.Limits{}, false)
	for range 5 {
		r.do(s(ok5), 0)
	}
	r.close(exchange.Unfinished)
	r.check(t)
	if len(r.got) > 0 || r.engine.Stats.Orphans == 0 && r.engine.Stats.Kinds[exchange.KindUndecided] != 1 {
		t.Errorf("responses alone: %q, %+v", r.got, r.engine.Stats)
	}
}

func TestPipelining(t *testing.T) {
	var requests, responses string
	var want []string
	for i := range 40 {
		requests += fmt.Sprintf("POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", i, i, strings.Repeat("G", i))
		responses += fmt.Sprintf("HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nH\r\n0\r\n\r\n", 400+i)
		want = append(want, fmt.Sprintf("POST /%d HTTP/1.1 [] -> %d complete, %d up, 1 down, 1+1 fields", i, 400+i, i))
	}
	test(t, []conversation{
		{"all requests first", []step{c(requests), s(responses)}, want, 0},
		{"responses start early", []step{c(requests[:900]), s(responses[:300]), c(requests[900:]), s(responses[300:])}, want, 0},
	})
	const many = 256
	if r := run(t, exchange.Limits{}, []step{c(strings.Repeat(get, many)), s(strings.Repeat(ok5, many))}, 0); len(r.got) != many {
		t.Errorf("%d exchanges of %d pipelined", len(r.got), many)
	}
	r := run(t, exchange.Limits{}, []step{s(""), c(get), s(ok5), c(strings.Repeat(get, many+1)), s(strings.Repeat(ok5, many+1))}, 0)
	if len(r.got) != 1 || r.engine.Stats.Dropped[exchange.DropPipeline] != many+1 || r.conn.Kind() != exchange.KindGivenUp {
		t.Errorf("one more than the limit: %d exchanges, %+v", len(r.got), r.engine.Stats)
	}
}

func TestTimes(t *testing.T) {
	r := run(t, exchange.Limits{}, []step{
		c("\r\n"),            // 1-2
		c("GET"), c(get[3:]), // 3-5, then 27 bytes in all: 3-29
		s("HTTP/1.1 103 Early\r\n\r\n"), // 30-51
		s(ok5),                          // 52-94
	}, 1)
	n := int64(len(get))
	interim := int64(len("HTTP/1.1 103 Early\r\n\r\n"))
	want := [][3]int64{{3, 3 + n + interim, 2 + n + interim + int64(len(ok5))}}
	if diff := cmp.Diff(want, r.times); diff != "" {
		t.Errorf("start, first byte, end (-want +got):\n%s", diff)
	}
}
