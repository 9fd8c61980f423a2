package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// measurement is what one arm came to under one load in one round.
type measurement struct {
	Round     int
	Load, Arm string
	Outcome   outcome
	Account   account
	Made      int // requests, with those of the warm-up

	// CPU time per request in µs: of what watches, and of application and
	// clients, which pay for the kernel's part.
	WatcherCPU, OthersCPU float64
	// MachineCPU is that of the whole machine, by its clock ticks.
	MachineCPU float64
	RSS, PSS   int64   // of what watches, in bytes
	Foreign    float64 // share of the machine's CPU time that others used
}

// bench is an arm at work.
type bench struct {
	arm     arm
	pods    *pods
	made    int
	m       measurement
	watcher int64 // CPU time before it was measured, in nanoseconds
	// While it was measured: CPU time of application and clients, of the sink and of the
	// machine, and time, in seconds.
	others, sink, busy, seconds float64
}

// measure puts all arms under a load, in turns.
func measure(ctx context.Context, o options, l load, arms []arm, round int, stderr io.Writer) ([]measurement, error) {
	arms = slices.DeleteFunc(slices.Clone(arms), func(a arm) bool { return a.http1 && l.Streams > 0 })
	benches := make([]*bench, len(arms))
	errs := make([]error, len(arms))
	var wg sync.WaitGroup
	for i, a := range arms {
		wg.Go(func() { benches[i], errs[i] = setUp(a) })
	}
	wg.Wait()
	defer func() {
		for _, b := range benches {
			if b != nil {
				wg.Go(b.pods.close)
			}
		}
		wg.Wait()
	}()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	order := rand.Perm(len(benches))
	for _, i := range order {
		if _, err := benches[i].put(ctx, l, o.warm); err != nil {
			return nil, err
		}
	}
	time.Sleep(settle)
	for _, b := range benches {
		b.begin()
	}
	for range o.turns {
		for _, i := range rand.Perm(len(benches)) {
			b := benches[i]
			if err := b.turn(ctx, l, o.duration/time.Duration(o.turns)); err != nil {
				return nil, fmt.Errorf("%s under %s: %w", b.arm.name, l.Name, err)
			}
		}
	}
	time.Sleep(settle)
	var results []measurement
	for _, b := range benches {
		b.end()
		b.m.Round, b.m.Load, b.m.Arm = round, l.Name, b.arm.name
		if err := b.account(); err != nil {
			return nil, fmt.Errorf("%s under %s: %w", b.arm.name, l.Name, err)
		}
		if o.accounts && b.m.Account.Log != "" {
			fmt.Fprintf(stderr, "\n%s, %s, made %d: %s", l.Name, b.arm.name, b.m.Made, b.m.Account.Log)
		}
		results = append(results, b.m)
	}
	return results, nil
}

func setUp(a arm) (*bench, error) {
	p, err := newPods()
	if err != nil {
		return nil, err
	}
	b := &bench{arm: a, pods: p}
	if a.start != nil {
		if p.watcher, err = a.start(p); err != nil {
			p.close()
			return nil, err
		}
	}
	return b, nil
}

// put puts the arm under a load and returns the outcome and the CPU time of the
// clients in nanoseconds.
func (b *bench) put(ctx context.Context, l load, d time.Duration) (outcome, error) {
	spec, err := json.Marshal(l)
	if err != nil {
		return outcome{}, err
	}
	clients, err := b.pods.start(b.pods.client, command{path: "/proc/self/exe", args: []string{
		"part-load", fmt.Sprintf("%s:%d", serverIP, b.arm.port), string(spec), d.String(),
	}})
	if err != nil {
		return outcome{}, err
	}
	select {
	case <-clients.done:
	case <-ctx.Done():
		clients.kill()
		return outcome{}, ctx.Err()
	}
	var result outcome
	if clients.err != nil {
		return outcome{}, fmt.Errorf("load generator: %w: %s", clients.err, clients.log.String())
	}
	if err := json.Unmarshal([]byte(clients.out.String()), &result); err != nil {
		return outcome{}, fmt.Errorf("load generator: %w", err)
	}
	if result.Failed > 0 {
		return outcome{}, fmt.Errorf("%d connections failed: %s", result.Failed, result.Error)
	}
	state := clients.cmd.ProcessState
	result.CPU = int64(state.UserTime() + state.SystemTime())
	b.made += result.Requests
	return result, nil
}

// settle is how long a watcher gets to finish with what it has seen: the sidecar
// gathers spans for a second.
const settle = 1300 * time.Millisecond

// begin begins to measure what watches.
func (b *bench) begin() {
	b.m.Outcome.Latencies = histogram{}
	if w := b.pods.watcher; w != nil {
		b.watcher = w.cpu()
	}
}

// turn puts the arm under a load and adds up what that came to.
func (b *bench) turn(ctx context.Context, l load, d time.Duration) error {
	app, sink, machine := b.pods.application.cpu(), b.pods.sink.cpu(), newMachine()
	o, err := b.put(ctx, l, d)
	if err != nil {
		return err
	}
	busy, seconds := machine.since()
	b.busy, b.seconds = b.busy+busy, b.seconds+seconds
	b.others += float64(b.pods.application.cpu()-app+o.CPU) / 1e9
	b.sink += float64(b.pods.sink.cpu()-sink) / 1e9
	b.m.Outcome.add(o)
	return nil
}

// end reads what watches came to. Between its turns it has nothing to do.
func (b *bench) end() {
	m := &b.m
	watcher := 0.0
	if w := b.pods.watcher; w != nil {
		watcher = float64(w.cpu()-b.watcher) / 1e9
		m.RSS, m.PSS = w.memory()
	}
	n := float64(max(m.Outcome.Requests, 1)) / 1e6
	m.WatcherCPU, m.OthersCPU, m.MachineCPU = watcher/n, b.others/n, b.busy/n
	m.Foreign = max(b.busy-b.others-b.sink-watcher, 0) / (b.seconds * float64(runtime.NumCPU()))
}

// account ends what watches and reads what it saw.
func (b *bench) account() error {
	b.m.Made = b.made
	b.m.Account = account{Reported: -1, Lost: -1}
	if b.pods.watcher == nil {
		return nil
	}
	b.pods.watcher.stop()
	if b.arm.account == nil {
		return nil
	}
	return b.arm.account(b.pods, &b.m.Account)
}

// machine is the CPU time of the whole machine until a moment.
type machine struct {
	busy float64 // seconds
	at   time.Time
}

func newMachine() machine {
	m := machine{at: time.Now()}
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	const idle, iowait, guest = 4, 5, 9
	for i, f := range strings.Fields(line) {
		if n, err := strconv.ParseFloat(f, 64); err == nil && i != idle && i != iowait && i < guest {
			m.busy += n / 100 // USER_HZ
		}
	}
	return m
}

// since returns the seconds of CPU time, and of time, that have passed.
func (m machine) since() (busy, seconds float64) {
	n := newMachine()
	return n.busy - m.busy, n.at.Sub(m.at).Seconds()
}

// foreign says how busy the machine was with other things.
func foreign(all []measurement) string {
	s := newSpread(values(all, func(m measurement) float64 { return 100 * m.Foreign }))
	return fmt.Sprintf("%d CPUs, of which other programs used %.0f %% (%.0f–%.0f %%).", runtime.NumCPU(), s.median, s.low, s.high)
}
