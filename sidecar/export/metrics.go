package export

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// unsupportedPause is how long a backend that has no receiver of metrics is left
// alone.
const unsupportedPause = time.Hour

// Metrics sends metrics at intervals. There is no retry: what an export that
// fails had, the next has too.
type Metrics struct {
	cfg     MetricsConfig
	client  client
	collect Collect
	log     *slog.Logger

	cancel context.CancelFunc
	done   chan struct{}

	silent bool // what was wrong has been logged
	until  time.Time
}

// Collect returns an encoded ExportMetricsServiceRequest, and what is to be called
// when the backend has taken it.
type Collect func() (request []byte, delivered func())

// NewMetrics starts to send what collect returns, from a goroutine of its own.
func NewMetrics(cfg MetricsConfig, collect Collect, opts Options) *Metrics {
	m := &Metrics{
		cfg: cfg, client: newClient(cfg.Exporter, cfg.OTLP, opts), collect: collect, log: logger(opts), done: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go m.run(ctx)
	return m
}

func (m *Metrics) run(ctx context.Context) {
	defer close(m.done)
	ticker := time.NewTicker(m.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if !time.Now().Before(m.until) {
				m.send(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (m *Metrics) send(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	request, delivered := m.collect()
	r := m.client.send(ctx, request)
	if r.result == accepted {
		delivered()
	}
	endpoint := m.cfg.Endpoint.Redacted()
	switch {
	case r.result == accepted && (r.rejected > 0 || r.message != ""):
		if !m.silent {
			m.silent = true
			m.log.Warn("backend took metrics in part", "endpoint", endpoint, "rejected", r.rejected, "message", r.message)
		}
	case r.result == accepted:
		if m.silent {
			m.log.Info("backend takes metrics now", "endpoint", endpoint)
		}
		m.silent, m.until = false, time.Time{}
	case errors.Is(ctx.Err(), context.Canceled):
	case r.unsupported:
		m.until = time.Now().Add(unsupportedPause)
		if !m.silent {
			m.silent = true
			m.log.Info("backend has no receiver of metrics, they are not sent (OTEL_METRICS_EXPORTER=none says so ahead)",
				"endpoint", endpoint, "error", r.err)
		}
	case !m.silent:
		m.silent = true
		m.log.Warn("metrics cannot be sent, they are kept", "endpoint", endpoint, "error", r.err)
	}
}

// Shutdown sends the metrics a last time, within the context and 2 s.
func (m *Metrics) Shutdown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	m.cancel()
	<-m.done // a request on its way was cancelled
	if m.until.IsZero() {
		m.send(ctx)
	}
	m.client.close()
}
