package sidecar

import (
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/spile-dev/spile/bpf"
	"github.com/spile-dev/spile/sidecar/flow"
)

// TestPacketCounts: each packet that was seen counts as one thing.
func TestPacketCounts(t *testing.T) {
	const lost = 3
	user := flow.Stats{Packets: 100, NotTCP: 1, Malformed: 2, Fragments: 4, Ignored: 8}
	for name, c := range map[string]struct {
		kernel bpf.Counters
		own    uint64
		seen   uint64
	}{
		"ebpf": {
			kernel: bpf.Counters{
				Seen: 1000, NotTCP: 100, Malformed: 50, Fragments: 60, Own: 70, Excluded: 80, Empty: 90, Omitted: 200,
				Captured: user.Packets + lost, LoopbackCopy: 247,
			},
			seen: 1000,
		},
		"classic": {own: 5, seen: user.Packets + lost},
	} {
		sum := uint64(0)
		by := make(map[string]uint64)
		for _, n := range packetCounts(c.kernel, &user, lost, c.own) {
			sum += n.n
			by[n.name] = n.n
		}
		if sum != c.seen {
			t.Errorf("%s: %d packets seen, %d accounted for: %v", name, c.seen, sum, by)
		}
		if want := c.kernel.Own + c.own; by["own"] != want {
			t.Errorf("%s: %d of our own, want %d", name, by["own"], want)
		}
	}
}

// TestOwnAfterClose: connections of our own may end after the capture has.
func TestOwnAfterClose(t *testing.T) {
	tap, err := OpenTap(TapConfig{Interfaces: []string{"lo"}}, slog.New(slog.DiscardHandler))
	if errors.Is(err, os.ErrPermission) && os.Getenv("REQUIRE_BPF") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	tap.Own(1, true)
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	tap.Own(1, false)
}
