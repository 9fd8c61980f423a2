//go:build conformance && linux

package conformance

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// disturbance is what is done to the packets of a file: of so many, one is lost,
// one is there twice; and each is moved by up to so many places.
type disturbance struct {
	seed                     uint64
	lose, duplicate, reorder int
}

func (d *disturbance) apply(all []capture.Packet) []capture.Packet {
	r := rand.New(rand.NewPCG(d.seed, 0))
	var out []capture.Packet
	for _, p := range all {
		if d.lose > 0 && r.IntN(d.lose) == 0 {
			continue
		}
		out = append(out, p)
		if r.IntN(d.duplicate) == 0 {
			out = append(out, p)
		}
	}
	for i := range out {
		j := min(i+r.IntN(d.reorder), len(out)-1)
		if !slices.ContainsFunc(out[i:j+1], isBoundary) {
			out[i], out[j] = out[j], out[i]
		}
	}
	for i := range out {
		out[i].At = out[0].At + int64(i)*1000
	}
	return out
}

// isBoundary reports whether a packet, without IP options, has one of the flags SYN and RST: what
// is captured before the one or after the other is not of the connection.
func isBoundary(p capture.Packet) bool {
	const syn, rst = 2, 4
	at := int(p.Data[0]&0xf)*4 + 13
	if p.Data[0]>>4 == 6 {
		at = 40 + 13
	}
	return len(p.Data) > at && p.Data[at]&(syn|rst) != 0
}

// read returns the exchanges of a file, whose packets may be disturbed, and how
// often something of it was counted as missing.
func read(t *testing.T, path string, d *disturbance) ([]exchanged, uint64) {
	t.Helper()
	f, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []exchanged
	table := flow.NewTable(flow.Config{Emit: func(x *exchange.Exchange) { got = append(got, describe(x)) }})
	var all []capture.Packet
	for {
		p, err := f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		all = append(all, p)
	}
	if d != nil {
		all = d.apply(all)
	}
	var last int64
	for _, p := range all {
		table.Packet(p)
		last = max(last, p.At)
	}
	table.Close(last)
	checkAccounts(t, table)
	return got, missed(table)
}

// missed returns how often a table counted that something was not captured.
func missed(table *flow.Table) uint64 {
	s := table.Exchanges()
	return table.Stats.Missing + s.Gaps + s.Orphans + s.Dropped[exchange.DropGap] + s.Dropped[exchange.DropIncomplete] +
		s.Outcomes[exchange.OneSided] + s.Outcomes[exchange.Truncated] + s.Outcomes[exchange.NoResponse] + s.Outcomes[exchange.Unfinished]
}
