package export

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spile-dev/spile/internal/otlpsink"
)

// pipes is a network of in-memory connections to one listener, which
// testing/synctest's clock governs. It can be cut.
type pipes struct {
	conns chan net.Conn
	down  atomic.Bool
	done  chan struct{}
	once  sync.Once
	dials atomic.Int64
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.dials.Add(1)
	if p.down.Load() {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, http.ErrServerClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// inBubble runs a test in a synctest bubble with a backend behind pipes, for
// each protocol that differs in time.
func inBubble(t *testing.T, test func(t *testing.T, b *backend, net *pipes, p *pipeline), vars ...string) {
	for _, protocol := range []string{ProtocolHTTPProtobuf, ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newPipes()
				b := newBackend()
				go func() { _ = b.Serve(network) }()
				defer b.Close()
				p := newPipeline(t, Options{DialContext: network.dial}, append(vars,
					"OTEL_EXPORTER_OTLP_ENDPOINT=http://backend:4317", "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol)...)
				defer func() { _ = p.Shutdown(context.Background()) }()
				test(t, b, network, p)
			})
		})
	}
}

func TestLeavesWithinScheduleDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, b *backend, _ *pipes, p *pipeline) {
		for range 5 {
			time.Sleep(1700 * time.Millisecond)
			before := p.Stats().Exported
			p.emit(1)
			time.Sleep(500 * time.Millisecond)
			p.emit(1)
			synctest.Wait()
			if got := p.Stats().Exported; got != before {
				t.Errorf("%d spans sent at once, want them gathered", got-before)
			}
			time.Sleep(500*time.Millisecond - 1)
			synctest.Wait()
			if got := p.Stats().Exported; got != before+2 {
				t.Errorf("%d spans sent within a second, want 2", got-before)
			}
		}
		if n := len(b.Requests()); n != 5 {
			t.Errorf("%d requests, want 5", n)
		}
	})
}

func TestFullBatchLeavesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *backend, _ *pipes, p *pipeline) {
		p.emit(25)
		synctest.Wait()
		checkStats(t, p.Stats(), Stats{Seen: 25, Exported: 20, Queued: 5})
	}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=10")
}

// TestOutage loses nothing in 300 s of 100 spans a second, says so in two
// lines, and is fresh again soon after.
func TestOutage(t *testing.T) {
	const seconds, rate = 300, 100
	inBubble(t, func(t *testing.T, b *backend, network *pipes, p *pipeline) {
		network.down.Store(true)
		most := uint64(0)
		for range seconds {
			p.emit(rate)
			time.Sleep(time.Second)
			most = max(most, p.Stats().QueuedBytes)
		}
		network.down.Store(false)
		start := time.Now()
		for p.Stats().Exported == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if wait := time.Since(start); wait > maxBackoff {
			t.Errorf("first span %s after recovery, want %s at most", wait, maxBackoff)
		}
		time.Sleep(time.Second)
		checkStats(t, p.Stats(), Stats{Seen: seconds * rate, Exported: seconds * rate})
		if n, again := b.count(); n != seconds*rate || again != 0 {
			t.Errorf("backend has %d spans and %d again", n, again)
		}
		if n := network.dials.Load(); n < seconds/5 || n > seconds/2+10 {
			t.Errorf("%d attempts in %d s, want one each 2.5 to 5 s", n, seconds)
		}
		if lines := p.log.lines(); len(lines) != 2 || !strings.Contains(lines[1], "backend reachable again") || !strings.Contains(lines[1], "dropped=0") {
			t.Errorf("log:\n%s\nwant two lines", strings.Join(lines, "\n"))
		}
		t.Logf("at most %d bytes queued", most)
	})
}

func TestQueueDropsOldest(t *testing.T) {
	inBubble(t, func(t *testing.T, b *backend, network *pipes, p *pipeline) {
		network.down.Store(true)
		for range 100 {
			p.emit(10)
			time.Sleep(time.Millisecond)
			if s := p.Stats(); s.Queued > 60 || s.Residual() != 0 {
				t.Fatalf("stats %+v: more than 60 queued, or residual %d", s, s.Residual())
			}
		}
		network.down.Store(false)
		time.Sleep(maxBackoff + time.Second)
		s := p.Stats()
		if s.Exported != 60 || s.Dropped[QueueFull] != 940 {
			t.Errorf("stats %+v, want 60 exported and 940 dropped", s)
		}
	}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=10", "OTEL_BSP_MAX_QUEUE_SIZE=60")
}

func TestQueueBytes(t *testing.T) {
	const limit = 1 << 20
	inBubble(t, func(t *testing.T, _ *backend, network *pipes, p *pipeline) {
		network.down.Store(true)
		for range 1000 {
			p.emit(100)
			time.Sleep(time.Millisecond)
			if s := p.Stats(); s.QueuedBytes > limit+maxBatchBytes || s.Residual() != 0 {
				t.Fatalf("stats %+v: more than %d bytes queued, or residual %d", s, limit, s.Residual())
			}
		}
		if p.Stats().Dropped[QueueFull] == 0 {
			t.Error("nothing dropped")
		}
	}, "SPILE_QUEUE_BYTES=1048576", "OTEL_BSP_MAX_QUEUE_SIZE=1000000")
}

func TestRetryAfter(t *testing.T) {
	for name, tt := range map[string]struct{ asked, want time.Duration }{
		"honoured": {10 * time.Second, 10 * time.Second},
		"endless":  {1000 * time.Hour, maxRetryAfter},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *backend, _ *pipes, p *pipeline) {
				b.Script(otlpsink.Reply{Status: 429, Code: 8, RetryAfter: tt.asked})
				p.emit(1)
				time.Sleep(time.Second + tt.want - 200*time.Millisecond)
				synctest.Wait()
				checkStats(t, p.Stats(), Stats{Seen: 1, Queued: 1})
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				checkStats(t, p.Stats(), Stats{Seen: 1, Exported: 1})
			})
		})
	}
}

func TestShutdownOfHangingBackend(t *testing.T) {
	inBubble(t, func(t *testing.T, b *backend, _ *pipes, p *pipeline) {
		b.Repeat(otlpsink.Reply{Hang: true})
		p.emit(700)
		start := time.Now()
		err := p.Shutdown(context.Background())
		if took := time.Since(start); took != shutdownTimeout {
			t.Errorf("shutdown took %s, want %s", took, shutdownTimeout)
		}
		if err == nil || !strings.Contains(err.Error(), "700 dropped at shutdown") {
			t.Errorf("error %v", err)
		}
		checkStats(t, p.Stats(), Stats{Seen: 700, Dropped: map[Reason]uint64{Shutdown: 700}})
	})
}

func TestShutdownWaitsForRecovery(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *backend, network *pipes, p *pipeline) {
		network.down.Store(true)
		p.emit(700)
		time.Sleep(time.Minute) // far into the back-off
		time.AfterFunc(time.Second, func() { network.down.Store(false) })
		if err := p.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		checkStats(t, p.Stats(), Stats{Seen: 700, Exported: 700})
	})
}

func TestHangingBackendTimesOut(t *testing.T) {
	inBubble(t, func(t *testing.T, b *backend, _ *pipes, p *pipeline) {
		b.Script(otlpsink.Reply{Hang: true}, otlpsink.Reply{Hang: true})
		p.emit(3)
		time.Sleep(8 * time.Second)
		checkStats(t, p.Stats(), Stats{Seen: 3, Exported: 3})
	}, "OTEL_EXPORTER_OTLP_TIMEOUT=2000")
}
