package flow_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDelivery has random conversations arrive in every way that loses nothing:
// the exchanges must be exactly those of the conversation.
func FuzzDelivery(f *testing.F) {
	for seed := range uint64(150) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		c := newConversation(rand.New(rand.NewPCG(a, b)), 1+int(a%30), a%2 == 0)
		w := newWire(c)
		check := func(how string, got []string) {
			t.Helper()
			if diff := cmp.Diff(c.exchanges, got); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", how, diff)
			}
		}
		check("as sent", run(t, w.packets()))
		check("as sent, with the filter", runFiltered(t, w, c.IntN(20)))
		w.retransmit()
		check("with retransmissions", run(t, w.packets()))
		w.duplicate()
		check("with duplicates", run(t, w.packets()))
		w.reorder(2+c.IntN(20), 2)
		check("out of order", run(t, w.packets()))
		check("out of order, with the filter", runFiltered(t, w, c.IntN(20)))
		if c.plain {
			w.reorder(2+c.IntN(20), 0)
			checkAmong(t, slices.Concat(c.exchanges, c.mistakable), run(t, w.packets()))
		}
	})
}

// FuzzLoss has random conversations of which packets are missing: fewer exchanges,
// never others but those that may be mistaken for one. If the handshake is not the
// first that is seen, content that looks like a request may be taken for one: there
// is none then but such as fills an upload's last segment.
func FuzzLoss(f *testing.F) {
	for seed := range uint64(150) {
		f.Add(seed, seed, byte(seed))
	}
	f.Fuzz(func(t *testing.T, a, b uint64, rate byte) {
		plain := a%2 == 0
		c := newConversation(rand.New(rand.NewPCG(a, b)), 1+int(a%30), plain)
		w := newWire(c)
		handshake := 2
		if plain {
			handshake = 0
			w.segments = w.segments[c.IntN(min(len(w.segments), 10)):] // the start was missed
		}
		w.lose(2+int(rate), handshake)
		if a%3 == 0 {
			w.retransmit()
			w.duplicate()
			w.reorder(2+c.IntN(20), handshake)
		}
		all := slices.Concat(c.exchanges, c.mistakable)
		checkAmong(t, all, run(t, w.packets()))
		checkAmong(t, all, runFiltered(t, w, c.IntN(20)))
	})
}

// checkAmong tests that the complete exchanges of got are among all.
func checkAmong(t *testing.T, all, got []string) {
	t.Helper()
	rest := slices.Clone(all)
	for _, l := range got {
		if !strings.Contains(l, " complete, ") {
			continue
		}
		i := slices.IndexFunc(rest, func(x string) bool { return l == x || l == withoutSizes(x, l) })
		if i < 0 {
			t.Fatalf("%q is not one of the exchanges, or twice, of\n%s", l, strings.Join(all, "\n"))
		}
		rest = slices.Delete(rest, i, i+1)
	}
}

var sizes = regexp.MustCompile(`, (-?\d+) (up|down)`)

// withoutSizes is the line of an exchange without those sizes that another lacks.
func withoutSizes(l, other string) string {
	of := sizes.FindAllString(other, -1)
	return sizes.ReplaceAllStringFunc(l, func(size string) string {
		for _, o := range of {
			if strings.HasPrefix(o, ", -1 ") && strings.Fields(o)[2] == strings.Fields(size)[2] {
				return o
			}
		}
		return size
	})
}

// FuzzCut has packets cut, as when nobody reads the ring, and from then on the large
// ones of directions of which that made content lose its size.
func FuzzCut(f *testing.F) {
	for seed := range uint64(150) {
		f.Add(seed, seed, byte(seed))
	}
	f.Fuzz(func(t *testing.T, a, b uint64, rate byte) {
		c := newConversation(rand.New(rand.NewPCG(a, b)), 1+int(a%30), a%2 == 0)
		w := newWire(c)
		if a%3 == 0 {
			w.retransmit()
			w.duplicate()
			w.reorder(2+c.IntN(20), 2)
		}
		k := newFilter()
		k.rate, k.large = 2+int(rate%20), 1+c.IntN(200)
		checkAmong(t, slices.Concat(c.exchanges, c.mistakable), k.run(t, w, c.IntN(6)))
		t.Logf("%d packets cut, of those %d of brief directions", k.cut, k.shortened)
	})
}

// FuzzSnapshot has packets of which only the start was captured.
func FuzzSnapshot(f *testing.F) {
	for seed := range uint64(100) {
		f.Add(seed, seed, uint16(seed*20))
	}
	f.Fuzz(func(t *testing.T, a, b uint64, length uint16) {
		c := newConversation(rand.New(rand.NewPCG(a, b)), 1+int(a%30), false)
		all := newWire(c).packets()
		for i := range all {
			all[i].Data = all[i].Data[:min(len(all[i].Data), int(length))]
		}
		checkAmong(t, slices.Concat(c.exchanges, c.mistakable), run(t, all))
	})
}
