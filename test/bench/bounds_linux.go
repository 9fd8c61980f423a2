package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxMemory is what the sidecar may take, its ring and maps among it, in bytes.
const maxMemory = 48 << 20

// mapMemory is that of the filter's maps, which no process' memory counts.
const mapMemory = 200 << 10

// trial is something that the sidecar has to survive, within its memory, and to
// account for.
type trial struct {
	name string
	load load
	time time.Duration
	// disturb goes on while the load does, until the context ends.
	disturb func(ctx context.Context, p *pods) (string, error)
}

// besides is the load whose requests are to be reported in spite of an attack.
var besides = load{Name: "besides", Method: "GET", Path: "/small", Connections: 4, Rate: 50}

func trials() []trial {
	var all []trial
	for _, a := range attacks {
		all = append(all, trial{name: a.name, load: besides, time: 4 * time.Second, disturb: func(ctx context.Context, p *pods) (string, error) {
			attacker, err := newAttacker(p.client)
			if err != nil {
				return "", err
			}
			defer attacker.close()
			err = a.send(attacker)
			return fmt.Sprintf("%d packets", attacker.sent), err
		}})
	}
	saturated := load{Name: "saturated", Method: "GET", Path: "/small", Connections: 16}
	return append(all,
		trial{name: "2 ms of CPU in 400 ms at saturation", load: saturated, time: 6 * time.Second, disturb: starve},
		trial{name: "a backend that stops for good", load: saturated, time: 4 * time.Second, disturb: func(ctx context.Context, p *pods) (string, error) {
			return "", p.sink.cmd.Process.Signal(syscall.SIGSTOP)
		}},
		trial{name: "kill -9 of the backend", load: saturated, time: 4 * time.Second, disturb: func(ctx context.Context, p *pods) (string, error) {
			time.Sleep(time.Second)
			p.sink.kill()
			return "", nil
		}},
	)
}

// starve gives the sidecar so little time that it can read a fraction of what comes.
func starve(ctx context.Context, p *pods) (string, error) {
	w := p.watcher.cmd.Process
	before := p.watcher.cpu()
	defer func() { _ = w.Signal(syscall.SIGCONT) }()
	for ctx.Err() == nil {
		if err := w.Signal(syscall.SIGSTOP); err != nil {
			return "", err
		}
		time.Sleep(398 * time.Millisecond)
		if err := w.Signal(syscall.SIGCONT); err != nil {
			return "", err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Sprintf("%d ms of CPU", (p.watcher.cpu()-before)/1e6), nil
}

// bounds puts a sidecar of its own through each trial, and writes a table. Its error
// names the trials that it did not pass.
func bounds(ctx context.Context, o options, w io.Writer) error {
	fmt.Fprintln(w, "| trial | | memory at most, MiB | requests made beside | spans exported | dropped: of packets / requests / spans | residual |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	var failed []error
	all, err := pick("trial", o.loads, trials(), func(t trial) string { return t.name })
	if err != nil {
		return err
	}
	for _, t := range all {
		r, err := t.run(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		fmt.Fprintf(w, "| %s | %s | %.1f | %d | %d | %d / %d / %d | %d |\n", t.name, r.note, float64(r.memory)/(1<<20),
			r.made, r.log.Spans["exported"], r.log.Packets["ring_full"], dropped(r.log.Exchanges), dropped(r.log.Spans), r.log.Spans["residual"])
		switch {
		case r.memory > maxMemory:
			failed = append(failed, fmt.Errorf("%s: %d MiB, accepted are %d", t.name, r.memory>>20, maxMemory>>20))
		case r.log.Spans["residual"] != 0:
			failed = append(failed, fmt.Errorf("%s: the residual is %d", t.name, r.log.Spans["residual"]))
		case t.load.Name == besides.Name && r.log.Packets["ring_full"] == 0 && r.log.Exchanges["complete"] < int64(r.made),
			r.log.Exchanges["complete"] == 0:
			failed = append(failed, fmt.Errorf("%s: %d of %d requests were followed to their end", t.name, r.log.Exchanges["complete"], r.made))
		}
	}
	return errors.Join(failed...)
}

// survived is what came of a trial.
type survived struct {
	note   string
	memory int64
	made   int
	log    accounts
}

// accounts is the line that the sidecar logs at its end.
type accounts struct {
	Msg                       string
	Packets, Exchanges, Spans map[string]int64
}

// dropped sums up what has a reason.
func dropped(counts map[string]int64) (n int64) {
	for name, c := range counts {
		if strings.HasPrefix(name, "dropped_") {
			n += c
		}
	}
	return n
}

func (t *trial) run(ctx context.Context, o options) (r survived, err error) {
	b, err := setUp(sidecarArm("sidecar", o.sidecar, strings.Fields(o.env)))
	if err != nil {
		return r, err
	}
	defer b.pods.close()
	during, end := context.WithCancel(ctx)
	defer end()
	disturbed := make(chan error, 1)
	go func() {
		note, err := t.disturb(during, b.pods)
		r.note = note
		disturbed <- err
	}()
	if _, err = b.put(ctx, t.load, t.time); err != nil {
		return r, err
	}
	// An attack goes on to its end, and takes as long as it takes.
	select {
	case err = <-disturbed:
	case <-time.After(time.Second):
		if len(disturbed) == 0 && t.load.Rate == 0 {
			end()
		}
		err = <-disturbed
	}
	if err != nil {
		return r, err
	}
	time.Sleep(settle)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pods.watcher.cmd.Process.Pid))
	if err != nil {
		return r, fmt.Errorf("the sidecar ended: %s", b.pods.watcher.log.String())
	}
	r.memory, r.made = kilobytes(status, "VmHWM:")+mapMemory, b.made
	b.pods.watcher.stop()
	if o.accounts {
		fmt.Fprintln(os.Stderr, b.pods.watcher.log.String())
	}
	for line := range strings.Lines(b.pods.watcher.log.String()) {
		var l accounts
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "accounts" {
			r.log = l
			return r, nil
		}
	}
	return r, fmt.Errorf("the sidecar gave no account: %s", b.pods.watcher.log.String())
}
