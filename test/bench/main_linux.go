// Command bench measures what watching an application costs it: the sidecar
// beside others that watch, and a proxy, each against nothing at all.
//
// Every arm has an application, a client and two network namespaces of its own,
// made afresh for every load of every round. The arms of a round take turns, in
// random order, so that a change of the machine's speed meets them all; what is
// compared are the ratios within a round. The arm "nothing again" is a second
// "nothing": how far its ratios are from 1 is how noisy the machine was.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds    int
	turns     int
	limit     time.Duration
	duration  time.Duration
	warm      time.Duration
	arms      string
	loads     string
	sidecar   string
	other     string
	env       string
	image     string
	footprint bool
	bounds    bool
	json      string
	accounts  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the harness, or one of the parts that it starts as processes of
// their own.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var err error
	if len(args) > 0 && parts[args[0]] != nil {
		err = parts[args[0]](args[1:], stdout)
	} else {
		err = harness(ctx, args, stdout, stderr)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

var parts = map[string]func(args []string, stdout io.Writer) error{
	"part-application": application,
	"part-sink":        sink,
	"part-load":        generate,
}

func harness(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and packet capture need root")
	}
	if o.footprint {
		return footprint(ctx, o, stdout)
	}
	if o.bounds {
		return bounds(ctx, o, stdout)
	}
	loads, err := pick("load", o.loads, allLoads, func(l load) string { return l.Name })
	if err != nil {
		return err
	}
	arms, err := o.pickArms(stderr)
	if err != nil {
		return err
	}
	started := time.Now()
	results, rounds, err := o.measure(ctx, loads, arms, stderr)
	if err != nil {
		return err
	}
	if o.json != "" {
		b, err := json.MarshalIndent(results, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, b, 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "%d rounds of %v in %d turns after %v warm-up, in %v. %s\n", rounds, o.duration, o.turns, o.warm,
		time.Since(started).Round(time.Second), foreign(results))
	return writeTables(stdout, loads, arms, results)
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.rounds, "rounds", 5, "`number` of rounds")
	f.IntVar(&o.turns, "turns", 1, "`number` of turns in which an arm is under a load, per round")
	f.DurationVar(&o.limit, "limit", 6*time.Minute, "start no round that would end later")
	f.DurationVar(&o.duration, "time", time.Second, "how long each arm is under each load, per round")
	f.DurationVar(&o.warm, "warm", 250*time.Millisecond, "how long it is so before, to warm up")
	f.StringVar(&o.arms, "arms", "", "`names` of arms, separated by commas; all if empty")
	f.StringVar(&o.loads, "loads", "", "`names` of loads, separated by commas; all if empty")
	f.StringVar(&o.sidecar, "sidecar", "bin/spile-sidecar", "`path` of the sidecar's binary")
	f.StringVar(&o.other, "other", "", "`path` of another sidecar to compare, as an arm \"other\"")
	f.StringVar(&o.env, "other-env", "", "environment `variables` of the other sidecar, NAME=VALUE separated by spaces")
	f.StringVar(&o.image, "image", "bin/images/spile-sidecar.tar", "`path` of the sidecar's image, whose size is reported if it exists")
	f.BoolVar(&o.footprint, "footprint", false, "only report sizes, memory at rest and the time to attach")
	f.BoolVar(&o.bounds, "bounds", false, "only put the sidecar through attacks and overload; -loads names some of them")
	f.StringVar(&o.json, "json", "", "write every measurement to this `file`")
	f.BoolVar(&o.accounts, "accounts", false, "print the accounts that sidecars give at their end")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; it takes flags only", f.Arg(0))
	}
	if o.rounds < 1 || o.turns < 1 || o.duration <= 0 || o.warm <= 0 {
		return o, errors.New("accepted are positive numbers of rounds and turns, and durations")
	}
	return o, nil
}

// measure runs the rounds, and returns how many there was time for.
func (o *options) measure(ctx context.Context, loads []load, arms []arm, stderr io.Writer) (results []measurement, rounds int, err error) {
	started := time.Now()
	for ; rounds < o.rounds; rounds++ {
		if elapsed := time.Since(started); rounds > 0 && elapsed+elapsed/time.Duration(rounds) > o.limit {
			break
		}
		for _, l := range loads {
			fmt.Fprintf(stderr, "\rround %d of %d: %-20s", rounds+1, o.rounds, l.Name)
			m, err := measure(ctx, *o, l, arms, rounds, stderr)
			if ctx.Err() != nil {
				return nil, rounds, errors.New("interrupted")
			}
			if err != nil {
				return nil, rounds, err
			}
			results = append(results, m...)
		}
	}
	fmt.Fprint(stderr, "\r", strings.Repeat(" ", 40), "\r")
	return results, rounds, nil
}

// pick returns the elements with the given names.
func pick[T any](kind, names string, all []T, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var picked []T
	for want := range strings.SplitSeq(names, ",") {
		found := false
		var known []string
		for _, e := range all {
			known = append(known, name(e))
			if name(e) == want {
				picked, found = append(picked, e), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no %s %q; there are %q", kind, want, known)
		}
	}
	return picked, nil
}
