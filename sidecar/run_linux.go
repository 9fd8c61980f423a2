package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/export"
	"github.com/spile-dev/spile/sidecar/flow"
	"github.com/spile-dev/spile/sidecar/span"
)

// Run captures until the context ends, then sends what is queued. It returns an
// error only if the exporter could not be made. Where nothing can be captured it
// says so once and waits: a sidecar that exits would be started again and again,
// and make the pod unready.
func Run(ctx context.Context, c Config, version string, started time.Time, log *slog.Logger) error {
	if c.HostNetwork {
		Idle(ctx, log, errors.New("the pod is on the host's network, whose traffic is not its own"))
		return nil
	}
	tap, err := OpenTap(TapConfig{ExcludePorts: c.ExcludePorts}, log)
	if err != nil {
		Idle(ctx, log, err)
		return nil
	}
	if err := DropPrivileges(); err != nil {
		Idle(ctx, log, errors.Join(err, tap.Close()))
		return nil
	}
	builder := span.NewBuilder(c.Span)
	exporter, err := export.New(c.Export, c.resource, builder, export.Options{
		Log: log, Version: version, DialContext: dialer{tap.Own}.DialContext,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("making the exporter: %w", err), tap.Close())
	}
	log.Info("capturing", "rung", tap.Rung, "interfaces", tap.Interfaces(),
		"attached_after", time.Since(started).Round(100*time.Microsecond).String(), "version", version)

	stop := context.AfterFunc(ctx, tap.Stop)
	defer stop()
	table := flow.NewTable(tap.FlowConfig(func(x *exchange.Exchange) {
		exporter.Add(x, builder.Identify(x))
	}))
	err = flow.Pump(tap, table)
	if err != nil {
		log.Error("capture ended", "error", err)
	}
	report := newReport(tap, table)
	if err := errors.Join(exporter.Shutdown(context.Background()), tap.Close()); err != nil {
		log.Warn("shutting down", "error", err)
	}
	report.exported(exporter.Stats())
	log.Info("accounts", "packets", report.packets, "connections", report.connections, "exchanges", report.exchanges, "spans", report.spans)
	if ctx.Err() == nil {
		Idle(ctx, log, err)
	}
	return nil
}

// Idle logs why nothing is captured and waits for the context to end.
func Idle(ctx context.Context, log *slog.Logger, why error) {
	log.Error("not capturing; the pod is not affected", "rung", RungOff, "error", why)
	<-ctx.Done()
}
