package main

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

// histogram counts latencies by the logarithm of their nanoseconds, in steps of 1 %.
type histogram map[int]int

var logStep = math.Log(1.01)

func (h histogram) add(ns int64) { h[int(math.Log(float64(max(ns, 1)))/logStep)]++ }

func (h histogram) merge(o histogram) {
	for bucket, n := range o {
		h[bucket] += n
	}
}

// quantile returns the latency in µs that so many percent do not exceed, to 1 %.
func (h histogram) quantile(percent int) float64 {
	total := 0
	for _, n := range h {
		total += n
	}
	rank := total * percent / 100
	for _, bucket := range slices.Sorted(maps.Keys(h)) {
		if rank -= h[bucket]; rank < 0 {
			return math.Exp((float64(bucket)+0.5)*logStep) / 1e3
		}
	}
	return 0
}

// latencyRatio compares a quantile of all latencies of an arm with that of another.
// Behind it is the interval that holds 90 % of what comes out when rounds are drawn
// at random, with replacement (bootstrap): a few bad rounds make it wide.
func latencyRatio(base, own []measurement, percent int) string {
	const draws = 400
	all := make([]int, len(own))
	for i := range all {
		all[i] = i
	}
	of := func(rounds []int) float64 {
		a, b := histogram{}, histogram{}
		for _, i := range rounds {
			a.merge(own[i].Outcome.Latencies)
			b.merge(base[i].Outcome.Latencies)
		}
		return a.quantile(percent) / max(b.quantile(percent), 1e-3)
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same for all arms
	var drawn []float64
	for range draws {
		rounds := make([]int, len(own))
		for i := range rounds {
			rounds[i] = random.IntN(len(own))
		}
		drawn = append(drawn, of(rounds))
	}
	slices.Sort(drawn)
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", of(all), drawn[draws/20], drawn[draws-1-draws/20])
}
