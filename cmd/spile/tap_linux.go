package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/sidecar"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

// runTap shows live traffic.
func runTap(ctx context.Context, args []string, e *environment) error {
	t := tap{}
	f := newFlags(tapUsage)
	t.define(f)
	if err := f.parseNone(args); err != nil {
		return err
	}
	if err := t.rows.check(); err != nil {
		return err
	}
	if t.pid != 0 && t.netns != "" {
		return usageErrorf("both --pid and --netns are given (want one)")
	}
	if err := t.rows.open(e, false); err != nil {
		return err
	}
	if t.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.duration)
		defer cancel()
	}
	return t.run(ctx, e.stderr)
}

// tap is a live capture of one network namespace.
type tap struct {
	rows       rows
	pid        int
	netns      string
	interfaces []string
	duration   time.Duration
}

func (t *tap) define(f *flags) {
	t.rows.define(f)
	f.Func("pid", "", func(s string) (err error) {
		if t.pid, err = strconv.Atoi(s); err != nil || t.pid <= 0 {
			return errors.New("want the id of a process")
		}
		return nil
	})
	f.StringVar(&t.netns, "netns", "", "")
	f.Func("interface", "", func(s string) error {
		t.interfaces = append(t.interfaces, strings.Split(s, ",")...)
		return nil
	})
	f.duration(&t.duration, "duration")
}

func (t *tap) run(ctx context.Context, stderr io.Writer) error {
	live, where, err := t.open(stderr)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "tapping %s of %s\n", strings.Join(live.Interfaces(), ", "), where)
	defer context.AfterFunc(ctx, live.Stop)()
	table := flow.NewTable(live.FlowConfig(func(x *exchange.Exchange) {
		if t.rows.emit(x); t.rows.err != nil {
			live.Stop()
		}
	}))
	err = flow.Pump(live, table)
	fmt.Fprint(stderr, tapSummary(live, table), t.rows.summary(table))
	return errors.Join(t.rows.err, err, live.Close())
}

// open starts the capture, in the namespace that was asked for, and returns the
// namespace's name.
func (t *tap) open(stderr io.Writer) (live *sidecar.Tap, where string, err error) {
	where = "this network namespace"
	var ns *netns.NS
	switch {
	case t.pid != 0:
		where = fmt.Sprintf("the network namespace of process %d", t.pid)
		ns, err = netns.OpenPID(t.pid)
	case t.netns != "":
		where = "network namespace " + t.netns
		ns, err = netns.OpenName(t.netns)
	}
	if err != nil {
		return nil, "", err
	}
	var warnings bytes.Buffer // if all fails, the error says the same
	log := slog.New(slog.NewTextHandler(&warnings, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	open := func() (err error) {
		live, err = sidecar.OpenTap(sidecar.TapConfig{Interfaces: t.interfaces}, log)
		return err
	}
	if ns == nil {
		err = open()
	} else {
		defer ns.Close()
		err = ns.Do(open)
	}
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w (run as root, or: setcap cap_net_raw,cap_bpf+ep $(command -v spile))", oneLine(err))
	}
	if err == nil {
		_, err = warnings.WriteTo(stderr)
	}
	return live, where, oneLine(err)
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// tapSummary counts packets, in a line.
func tapSummary(live *sidecar.Tap, table *flow.Table) string {
	s := fmt.Sprintf("packets: %d captured, %d lost", table.Stats.Packets, live.Lost())
	if c := live.Counters(); c.Seen > 0 {
		s += fmt.Sprintf(", of %d seen by the filter", c.Seen)
	}
	return s + "\n"
}
