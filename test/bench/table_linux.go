package main

import (
	"fmt"
	"io"
	"slices"
)

// spread is the median of some numbers, and their range.
type spread struct{ median, low, high float64 }

func newSpread(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// writeTables writes a table for each load, as Markdown.
func writeTables(w io.Writer, loads []load, arms []arm, results []measurement) error {
	for _, l := range loads {
		base := of(results, l.Name, nothing)
		median := func(f func(measurement) float64) float64 { return newSpread(values(base, f)).median }
		fmt.Fprintf(w, "\n**%s.** With nothing: %s requests/s", l.Title, short(median(throughput)))
		if l.Size > 0 {
			fmt.Fprintf(w, " (%s MB/s)", short(median(throughput)*float64(l.Size)/1e6))
		}
		fmt.Fprintf(w, ", latency p50 %s µs, p99 %s µs, CPU of application and clients %s µs/request.\n\n",
			short(median(p50)), short(median(p99)), short(median(othersCPU)))
		fmt.Fprintln(w, "| arm | throughput | p50 | p99 | CPU, µs/request: its own | + application's and clients' | machine's | RSS, MiB | PSS | reported / made | lost packets |")
		fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|")
		for _, a := range arms {
			if own := of(results, l.Name, a.name); a.name != nothing && len(own) > 0 {
				writeRow(w, a, base, own)
			}
		}
	}
	_, err := fmt.Fprintln(w, "\nRatios and differences are to the arm *nothing* of the same round: median (lowest–highest). "+
		"Those of latency are of all rounds together, with the interval of 90 % that drawing rounds at random gives.")
	return err
}

func writeRow(w io.Writer, a arm, base, own []measurement) {
	reported, made, lost := 0, 0, 0
	for _, m := range own {
		reported += m.Account.Reported
		made += m.Made
		lost += m.Account.Lost
	}
	cells := []string{
		a.name, ratio(base, own, throughput), latencyRatio(base, own, 50), latencyRatio(base, own, 99),
		"–", difference(base, own, othersCPU), difference(base, own, machineCPU), "–", "–", "–", "–",
	}
	if a.start != nil {
		s := newSpread(values(own, watcherCPU))
		cells[4] = fmt.Sprintf("**%s** (%s–%s)", short(s.median), short(s.low), short(s.high))
		cells[7] = fmt.Sprintf("%.1f", newSpread(values(own, func(m measurement) float64 { return float64(m.RSS) / (1 << 20) })).median)
		cells[8] = fmt.Sprintf("%.1f", newSpread(values(own, func(m measurement) float64 { return float64(m.PSS) / (1 << 20) })).median)
	}
	if reported >= 0 {
		cells[9] = fmt.Sprintf("%d / %d", reported, made)
	}
	if lost >= 0 {
		cells[10] = fmt.Sprint(lost)
	}
	for _, c := range cells {
		fmt.Fprintf(w, "| %s ", c)
	}
	fmt.Fprintln(w, "|")
}

func throughput(m measurement) float64 { return float64(m.Outcome.Requests) / m.Outcome.Seconds }
func p50(m measurement) float64        { return m.Outcome.Latencies.quantile(50) }
func p99(m measurement) float64        { return m.Outcome.Latencies.quantile(99) }
func watcherCPU(m measurement) float64 { return m.WatcherCPU }
func othersCPU(m measurement) float64  { return m.OthersCPU }
func machineCPU(m measurement) float64 { return m.MachineCPU }

func of(all []measurement, load, arm string) []measurement {
	var some []measurement
	for _, m := range all {
		if m.Load == load && m.Arm == arm {
			some = append(some, m)
		}
	}
	return some
}

func values(ms []measurement, f func(measurement) float64) []float64 {
	var v []float64
	for _, m := range ms {
		v = append(v, f(m))
	}
	return v
}

// ratio compares round by round; both have the same rounds.
func ratio(base, own []measurement, f func(measurement) float64) string {
	var v []float64
	for i := range own {
		if b := f(base[i]); b > 0 {
			v = append(v, f(own[i])/b)
		}
	}
	s := newSpread(v)
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.median, s.low, s.high)
}

func difference(base, own []measurement, f func(measurement) float64) string {
	var v []float64
	for i := range own {
		v = append(v, f(own[i])-f(base[i]))
	}
	s := newSpread(v)
	return fmt.Sprintf("%s (%s–%s)", signed(s.median), signed(s.low), signed(s.high))
}

// short writes a number with about three digits.
func short(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func signed(v float64) string {
	if v < 0 {
		return "−" + short(-v)
	}
	return "+" + short(v)
}
