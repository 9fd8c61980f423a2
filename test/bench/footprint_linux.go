package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// footprint reports what the sidecar takes before there is any traffic.
func footprint(ctx context.Context, o options, w io.Writer) error {
	binary, err := os.Stat(o.sidecar)
	if err != nil {
		return fmt.Errorf("the sidecar's binary: %w (make build makes it)", err)
	}
	fmt.Fprintf(w, "binary %s: %.2f MiB\n", o.sidecar, float64(binary.Size())/(1<<20))
	if image, err := os.Stat(o.image); err == nil {
		fmt.Fprintf(w, "image %s: %.2f MiB\n", o.image, float64(image.Size())/(1<<20))
	}
	const times = 5
	var rss, pss, toLog, inside, idle []float64
	for range times {
		p, err := newPods()
		if err != nil {
			return err
		}
		err = rest(ctx, p, o.sidecar, &rss, &pss, &toLog, &inside, &idle)
		p.close()
		if err != nil {
			return err
		}
	}
	show := func(what, unit string, v []float64) {
		s := newSpread(v)
		fmt.Fprintf(w, "%s: %.1f %s (%.1f–%.1f, %d times)\n", what, s.median, unit, s.low, s.high, times)
	}
	show("at rest, 2 s after its start: RSS", "MiB", rss)
	show("at rest, 2 s after its start: PSS", "MiB", pss)
	show("at rest, of 15 s: CPU", "ms per minute", idle)
	show("from the start of the process to the log line that says it is attached", "ms", toLog)
	show("from main to attached, as that line says", "ms", inside)
	return nil
}

func rest(ctx context.Context, p *pods, path string, rss, pss, toLog, inside, idle *[]float64) error {
	started := time.Now()
	w, err := sidecarArm("", path, nil).start(p)
	if err != nil {
		return err
	}
	*toLog = append(*toLog, float64(time.Since(started).Microseconds())/1e3)
	for line := range strings.Lines(w.log.String()) {
		var l struct {
			After string `json:"attached_after"`
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.After != "" {
			d, err := time.ParseDuration(l.After)
			if err != nil {
				return err
			}
			*inside = append(*inside, float64(d.Microseconds())/1e3)
		}
	}
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	r, s := w.memory()
	*rss, *pss = append(*rss, float64(r)/(1<<20)), append(*pss, float64(s)/(1<<20))
	const quarter = 15 * time.Second
	before := w.cpu()
	select {
	case <-time.After(quarter):
	case <-ctx.Done():
		return ctx.Err()
	}
	*idle = append(*idle, float64(w.cpu()-before)/1e6*float64(time.Minute/quarter))
	return nil
}
