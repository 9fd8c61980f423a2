package exchange_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// TestHTTP2Bounds has a connection with more fields in a section and more streams at
// once than are kept. The tables are followed all the same, so nothing else suffers:
// what is within the bounds is reported exactly, also what refers to table entries
// that a field beyond them, or a request beyond them, added.
func TestHTTP2Bounds(t *testing.T) {
	const streams, fields = 4096, 256
	cl, sv := newH2Peer(0), newH2Peer(1)
	steps := []step{{0, preface, sends}, cl.settings(), sv.settings()}
	var want []string
	expect := func(path string, fields int) {
		want = append(want, fmt.Sprintf("GET %s HTTP/2 [a.example] -> 200 complete, 0 up, 2 down, %d+0 fields", path, fields))
	}
	answer := func(i int) {
		steps = append(steps, sv.headers(id(i), false, ":status", "200"), sv.data(id(i), true, "ok"))
	}
	last := fmt.Sprint("x-", fields+40)
	large := h2get("/large")
	for i := range fields + 41 {
		large = append(large, fmt.Sprint("x-", i), "v")
	}
	steps = append(steps, cl.headers(id(0), true, large...), cl.headers(id(1), true, h2get("/after", last, "v")...))
	answer(1)
	expect("/after", 1)
	answer(0)
	expect("/large", fields)

	for i := range streams {
		steps = append(steps, cl.headers(id(2+i), true, h2get("/busy")...))
	}
	for i := range 10 { // beyond
		steps = append(steps, cl.headers(id(2+streams+i), true, h2get(fmt.Sprint("/beyond/", i), "y", "1")...))
	}
	answer(2 + streams) // of one that is not kept
	for i := range streams {
		answer(2 + i)
		expect("/busy", 0)
	}
	steps = append(steps, cl.headers(id(2+streams+10), true, h2get("/beyond/9", "y", "1")...)) // all from the table
	answer(2 + streams + 10)
	expect("/beyond/9", 1)

	r := run(t, exchange.Limits{}, steps, 0)
	if diff := cmp.Diff(want, r.got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	s := &r.engine.Stats
	if s.Dropped[exchange.DropPipeline] != 10 || s.Seen != uint64(len(want)+10) {
		t.Errorf("%d requests seen, %d exchanges, dropped %v; want 10 dropped as one too many", s.Seen, len(r.got), s.Dropped)
	}
}
