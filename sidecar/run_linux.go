package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/export"
	"github.com/spile-dev/spile/sidecar/flow"
	"github.com/spile-dev/spile/sidecar/metric"
	"github.com/spile-dev/spile/sidecar/span"
)

// Run captures until the context ends, then sends what is queued. Where nothing
// can be captured it says so once and waits: a sidecar that exits would be
// started again and again, and make the pod unready.
func Run(ctx context.Context, c Config, version string, started time.Time, log *slog.Logger) {
	if c.HostNetwork {
		Idle(ctx, log, errors.New("the pod is on the host's network, whose traffic is not its own"))
		return
	}
	tap, err := OpenTap(TapConfig{ExcludePorts: c.ExcludePorts, HandOver: handOver(c.Export.ScheduleDelay)}, log)
	if err != nil {
		Idle(ctx, log, err)
		return
	}
	if err := DropPrivileges(); err != nil {
		Idle(ctx, log, errors.Join(err, tap.Close()))
		return
	}
	if err := YieldCPU(); err != nil {
		log.Warn("threads have the scheduling policy of any other", "error", err)
	}
	p := newPipeline(c, version, started, tap, log)
	log.Info("capturing", "rung", tap.Rung, "interfaces", tap.Interfaces(),
		"attached_after", time.Since(started).Round(100*time.Microsecond).String(), "version", version)

	stop := context.AfterFunc(ctx, tap.Stop)
	defer stop()
	err = follow(p.source, p.source.table)
	if err != nil {
		log.Error("capture ended", "error", err)
	}
	p.shutdown(log)
	if ctx.Err() == nil {
		Idle(ctx, log, err)
	}
}

// follow is flow.Pump for what may be hostile: a packet that makes it panic ends the
// capture. Were it to end the process, another packet could do it again, and keep
// the pod unready.
func follow(source capture.Source, table *flow.Table) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("panic: %v\n%s", fault, debug.Stack())
		}
	}()
	return flow.Pump(source, table)
}

// handOver returns how long packets may wait in a ring, as a part of the delay
// within which a span is to leave.
func handOver(delay time.Duration) time.Duration {
	const shortest, longest = 20 * time.Millisecond, 200 * time.Millisecond
	return min(max(delay/5, shortest), longest)
}

// shutdownTimeout bounds what is sent at the end: within a pod's grace period
// others want their part.
const shutdownTimeout = 2 * time.Second

// pipeline is all from a tap to the backend.
type pipeline struct {
	source   *observed
	exporter *export.Exporter
	reporter reporter
}

func newPipeline(c Config, version string, started time.Time, tap *Tap, log *slog.Logger) *pipeline {
	opts := export.Options{Log: log, Version: version, DialContext: dialer{tap.Own}.DialContext}
	recorder := metric.NewRecorder()
	if c.Export.Metrics.Exporter != export.ExporterNone {
		opts.Measure = measure(recorder, c.Export.Metrics.Exemplars)
	}
	builder := span.NewBuilder(c.Span)
	memory := newBudget(goMemory())
	c.Export.MaxQueueBytes = min(c.Export.MaxQueueBytes, memory.queue)
	exporter := export.New(c.Export, c.resource, builder, opts)
	p := &pipeline{source: newObserved(tap), exporter: exporter}
	table := tap.FlowConfig(func(x *exchange.Exchange) { exporter.Add(x, builder.Identify(x)) })
	memory.bound(&table)
	p.source.table = flow.NewTable(table)
	read := func() []metric.Counter { return counters(p.source.account(), exporter.Stats()) }
	p.reporter = newReporter(c, version, started, recorder, read, opts, tap.Own)
	return p
}

// shutdown sends what is queued, then the metrics, which tell of that, and logs
// the account. It is for the goroutine that captured.
func (p *pipeline) shutdown(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	p.source.end()
	err := p.exporter.Shutdown(ctx)
	p.reporter.shutdown(ctx)
	if err := errors.Join(err, p.source.Close()); err != nil {
		log.Warn("shutting down", "error", err)
	}
	p.source.last.log(log, p.exporter.Stats())
}

// Idle logs why nothing is captured and waits for the context to end.
func Idle(ctx context.Context, log *slog.Logger, why error) {
	log.Error("not capturing; the pod is not affected", "rung", RungOff, "error", why)
	<-ctx.Done()
}
