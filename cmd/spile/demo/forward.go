package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/spile-dev/spile/sidecar/export"
)

// Forwarder sends spans on to the backend that the environment names. A nil
// Forwarder does nothing.
type Forwarder struct {
	*export.Forwarder
	queue chan ptrace.Traces
	done  chan struct{}

	mu         sync.Mutex
	closed     bool
	sent, lost int
	err        error // the last
	told       bool  // about trouble
}

// NewForwarder returns the Forwarder that the variables OTEL_EXPORTER_OTLP_*
// describe, nil if they name no endpoint.
func NewForwarder(getenv func(string) string, version string) (*Forwarder, error) {
	if getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	config, err := export.ConfigFromEnv(getenv)
	if err != nil {
		return nil, err
	}
	to := export.NewForwarder(config, export.Options{Version: version})
	f := &Forwarder{Forwarder: to, queue: make(chan ptrace.Traces, 256), done: make(chan struct{})}
	go f.run()
	return f, nil
}

// add takes spans. It never waits.
func (f *Forwarder) add(td ptrace.Traces) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	select {
	case f.queue <- td:
	default:
		f.count(td, errors.New("it is slow"))
	}
}

// count notes what became of spans. The lock is held.
func (f *Forwarder) count(td ptrace.Traces, err error) {
	if err == nil {
		f.sent += td.SpanCount()
		return
	}
	f.lost += td.SpanCount()
	f.err = err
}

// trouble says once that spans cannot be sent, and why.
func (f *Forwarder) trouble() string {
	if f == nil {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.told || f.err == nil {
		return ""
	}
	f.told = true
	return fmt.Sprintf("Spans are not sent to %s: %v\n", f.Target(), f.err)
}

func (f *Forwarder) run() {
	defer close(f.done)
	for td := range f.queue {
		request, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(td)
		if err == nil {
			err = f.Send(context.Background(), request)
		}
		f.mu.Lock()
		f.count(td, err)
		f.mu.Unlock()
	}
}

// close sends what is left, and says in a line what became of the spans.
func (f *Forwarder) close() string {
	if f == nil {
		return ""
	}
	f.mu.Lock()
	f.closed = true
	close(f.queue)
	f.mu.Unlock()
	select {
	case <-f.done:
		f.Close()
	case <-time.After(patience):
		return fmt.Sprintf("%s is slow: not all spans were sent there.\n", f.Target())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := fmt.Sprintf("%d spans sent to %s", f.sent, f.Target())
	if f.lost > 0 {
		s += fmt.Sprintf(", %d not: %v", f.lost, f.err)
	}
	return s + ".\n"
}
