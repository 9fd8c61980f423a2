// Package demo runs a small shop in network namespaces that stand for pods, each
// with a real sidecar, and shows the spans that they export.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/cmd/spile/shop"
	"github.com/spile-dev/spile/cmd/spile/tty"
)

// Config is what a demo needs.
type Config struct {
	Duration time.Duration // 0 means until the context ends
	Sidecar  string        // path of its binary
	Version  string
	Out      io.Writer
	Palette  tty.Palette
	// Forward sends spans elsewhere, too; may be nil.
	Forward *Forwarder
}

const (
	// refresh is how often the screen is brought up to date.
	refresh = 250 * time.Millisecond
	// drawEvery is how often a trace is drawn while the demo runs.
	drawEvery = 5 * time.Second
)

// Run runs the demo until its duration or the context ends. It leaves nothing
// behind. An error says which part failed, or that no whole trace was seen.
func Run(ctx context.Context, c Config) error {
	v := newView(c.Out, c.Palette, names())
	cl, err := newCluster(c, func(td ptrace.Traces) {
		v.add(td)
		c.Forward.add(td)
	})
	if err != nil {
		return err
	}
	defer cl.close()
	if err := cl.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	v.print(intro)
	if c.Forward != nil {
		v.print("The spans are also sent to " + c.Forward.Target() + "\n\n")
	}
	if err := watch(ctx, c, cl, v); err != nil {
		return err
	}
	stats, accounts, err := cl.stop()
	v.flush(true)
	v.drawAll()
	if err != nil {
		return err
	}
	forwarded := c.Forward.close()
	v.print(summary(v, stats, accounts) + forwarded)
	switch {
	case v.whole > 0 || ctx.Err() != nil:
		return nil
	case stats.Sent == 0:
		return fmt.Errorf("no whole trace was seen: the shopper sent no request within %s", c.Duration)
	}
	return fmt.Errorf("no whole trace was seen; %s", cl.silent(v))
}

// watch keeps the screen up to date until the time is over, or a part of the
// cluster ends.
func watch(ctx context.Context, c Config, cl *cluster, v *view) error {
	var end <-chan time.Time
	if c.Duration > 0 {
		end = time.After(c.Duration)
	}
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	drawn := time.Now().Add(-drawEvery)
	for {
		select {
		case <-tick.C:
			v.flush(false)
			v.print(c.Forward.trouble())
			if time.Since(drawn) >= drawEvery && v.drawNext() {
				drawn = time.Now()
			}
		case p := <-cl.ended:
			return p.obituary()
		case <-end:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

const intro = `
  shopper ──▶ ingress ─┬─ /cart/…    ──▶ cart ──▶ pricing
                       └─ /catalog/… ──▶ catalog

Each is a process in a network namespace of its own that stands for a pod. A spile-sidecar beside
all but the shopper reads their packets and exports spans. The shopper's requests have a
traceparent; the services only pass it on. Ctrl-C ends the demo.

`

// names maps the address of each pod to its name.
func names() map[netip.Addr]string {
	m := map[netip.Addr]string{}
	for i, name := range podNames {
		m[podAddr(i).Addr()] = name
	}
	return m
}

// entry is what the demo reads of a line in a sidecar's log.
type entry struct {
	Msg   string
	Error string
	Spans account
}

// account is what became of the exchanges that a sidecar saw.
type account struct {
	Seen, Exported uint64
	Residual       int64
}

// logged returns the entry of a sidecar's log with the given message.
func logged(log []byte, msg string) (entry, bool) {
	for line := range bytes.Lines(log) {
		var e entry
		if json.Unmarshal(line, &e) == nil && e.Msg == msg {
			return e, true
		}
	}
	return entry{}, false
}

// summary compares what the shopper sent with what was seen.
func summary(v *view, stats shop.Stats, accounts []account) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d requests by the shopper, %d answered as due. %d traces, %d of them whole, of %d spans.\n",
		stats.Sent, stats.Answered, v.complete, v.whole, v.spans)
	var seen, exported uint64
	var residual int64
	for _, a := range accounts {
		seen, exported, residual = seen+a.Seen, exported+a.Exported, residual+a.Residual
	}
	fmt.Fprintf(&b, "%d sidecars: %d exchanges seen, %d exported, %d dropped, residual %d.\n",
		len(accounts), seen, exported, int64(seen)-int64(exported)-residual, residual)
	return b.String()
}

// isService tells of a pod that it is a service with a sidecar.
func isService(name string) bool { return name != shopper }

var errNotRoot = errors.New("network namespaces and packet capture need root: sudo spile demo")
