package sidecar

import (
	"math"
	"runtime/debug"

	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// DefaultMemory is what the Go runtime may use where GOMEMLIMIT and the memory limit
// of the container leave it more, in bytes. With the ring, the maps and the program
// itself it comes to less than 48 MiB (make bounds).
const DefaultMemory = 36 << 20

// budget is the memory of the Go runtime in its parts, in bytes. They come to about
// two thirds of it when all are used up at once: the garbage collector needs room,
// and what is kept takes more than its own size. Frame headers that the filter captured
// beside packets are not in it: 4,096 of them, 128 KiB.
type budget struct {
	queue       int // of spans that wait to be exported
	heads       int // and all else that belongs to exchanges in progress
	late        int // segments that wait for earlier ones
	connections int // number of those that are followed
}

func newBudget(memory int64) budget {
	const perConnection = 1 << 10
	m := int(min(memory, math.MaxInt32))
	return budget{queue: m / 3, heads: m / 9, late: m / 18, connections: m / 6 / perConnection}
}

// goMemory returns the memory limit of the Go runtime.
func goMemory() int64 {
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		return limit
	}
	return DefaultMemory
}

// bound makes a table keep to the budget.
func (b budget) bound(c *flow.Config) {
	c.Exchange = exchange.Limits{Buffered: b.heads}
	c.Late, c.Connections = b.late, b.connections
}
