package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 5 * time.Second
	// maxRetryAfter bounds how long a backend can tell us to stay away.
	maxRetryAfter = 30 * time.Second
	// closingBackoff is the pause between attempts in the little time that is
	// left at shutdown.
	closingBackoff = 100 * time.Millisecond
	// suspectBackoff is the longest pause after a batch that may be at fault.
	suspectBackoff = time.Second

	// A batch is given up after so many failures, each right after the backend
	// took another, over so long: it is at fault, not the backend.
	maxStrikes    = 10
	strikesWithin = time.Minute
)

// response is what became of an attempt to deliver a batch.
type response struct {
	result     result
	err        error         // of a failed attempt
	retryAfter time.Duration // what the backend asks for, 0 if it does not
	rejected   int64         // items of an accepted request that were not taken
	message    string        // what the backend said of an accepted request

	unsupported bool // the backend has no receiver of the signal
	released    bool // the memory of the request is not used any more
}

type result uint8

const (
	accepted result = iota
	retryable
	refused
	undeliverable // retryable, too often
)

// sender is the goroutine that delivers batches, one at a time, oldest first.
type sender struct {
	*Exporter
	failures int  // in a row
	took     bool // the last batch
	health   health
	gzip     compressor
}

func newSender(e *Exporter) *sender {
	return &sender{Exporter: e, health: health{log: e.log, endpoint: e.cfg.target()}}
}

func (s *sender) run() {
	defer close(s.done)
	for {
		b := s.next()
		if b == nil {
			return
		}
		r := s.send(b)
		if s.sendCtx.Err() != nil && r.result != accepted {
			return // what is queued is counted by Shutdown
		}
		s.settle(b, r)
		if r.result == retryable {
			s.pause(r.retryAfter, b.strikes > 0)
		}
	}
}

func (s *sender) send(b *batch) response {
	request := b.request
	if b.packed {
		var err error
		if request, err = decompress(request, 4*maxBatchBytes); err != nil {
			return response{result: refused, err: fmt.Errorf("unpacking a batch: %w", err)}
		}
	}
	ctx, cancel := context.WithTimeout(s.sendCtx, s.cfg.Timeout)
	defer cancel()
	return s.client.send(ctx, request)
}

// next returns the oldest batch, and waits until there is one: the open batch
// is closed a tenth of the schedule delay ahead, so that its spans have left
// within it. It returns nil when all is sent and the exporter closing.
func (s *sender) next() *batch {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		b := s.queue.take()
		wait := time.Hour
		// Spans that are due do not wait for those that fail.
		if s.open.spans > 0 && (b == nil || b.failures > 0) {
			wait = s.cfg.ScheduleDelay - s.cfg.ScheduleDelay/10 - time.Since(s.open.opened)
			if wait <= 0 || s.closing {
				s.queue.inFlight = nil
				s.seal()
				b = s.queue.take()
			}
		}
		closing := s.closing
		s.mu.Unlock()
		if b != nil || closing {
			return b
		}
		timer.Reset(wait)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-s.sendCtx.Done():
			return nil
		}
	}
}

// settle counts what became of the batch.
func (s *sender) settle(b *batch, r response) {
	s.mu.Lock()
	if r.result == retryable && s.strike(b) {
		r = response{result: undeliverable, err: r.err}
	}
	s.took = r.result != retryable && r.result != undeliverable
	s.queue.settle(r.result != retryable)
	if r.result == accepted && r.released {
		s.open.takeBack(b)
	}
	n := uint64(b.spans)
	switch r.result {
	case accepted:
		rejected := min(uint64(max(r.rejected, 0)), n)
		s.stats.Exported += n - rejected
		if rejected > 0 {
			s.stats.Dropped[Rejected] += rejected
		}
	case refused:
		s.stats.Dropped[Refused] += n
	case undeliverable:
		s.stats.Dropped[Undeliverable] += n
	}
	queued, lost := s.queue.spans+s.open.spans, s.stats.Dropped[QueueFull]
	s.mu.Unlock()
	if r.result == retryable || r.result == undeliverable {
		s.failures++
	} else {
		s.failures = 0
	}
	s.health.note(r, b.spans, queued, lost)
}

// strike notes that the batch failed and could be tried again. It reports whether
// to give the batch up.
func (s *sender) strike(b *batch) bool {
	now := time.Now()
	b.failures++
	if s.took {
		if b.strikes == 0 {
			b.since = now
		}
		b.strikes++
	}
	return b.strikes >= maxStrikes && now.Sub(b.since) >= strikesWithin
}

// pause waits before the next attempt: exponentially longer with jitter, or as
// long as the backend asks. It is short if the batch may be at fault, not the
// backend, for others may come. Shutdown cuts it short.
func (s *sender) pause(retryAfter time.Duration, suspect bool) {
	wait := min(firstBackoff<<min(s.failures-1, 10), maxBackoff)
	if suspect {
		wait = min(wait, suspectBackoff)
	}
	wait = wait/2 + rand.N(wait/2+1)
	if retryAfter > 0 {
		wait = min(retryAfter, maxRetryAfter)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		closing := s.pack()
		if closing {
			timer.Reset(min(wait, closingBackoff))
		}
		select {
		case <-timer.C:
			return
		case <-s.sendCtx.Done():
			return
		case <-s.wake: // a new batch is no reason to hurry; closing is
		}
	}
}

// pack compresses what waits when it takes more than a quarter of the queue's
// bytes: spans of a pod are alike, so that an outage several times longer fits.
// It stops when the exporter is closing, and reports whether it is.
func (s *sender) pack() (closing bool) {
	for {
		s.mu.Lock()
		b := s.queue.packable()
		enough := s.queue.bytes <= s.cfg.MaxQueueBytes/4
		closing = s.closing
		s.mu.Unlock()
		if b == nil || enough || closing {
			return closing
		}
		compressed := s.gzip.compress(b.request)
		s.mu.Lock()
		s.queue.pack(b, compressed)
		s.mu.Unlock()
	}
}

// health logs the backend's state when it changes, not each failure.
type health struct {
	log      *slog.Logger
	endpoint string
	since    time.Time // of the outage, zero if there is none
	hinted   bool      // that the protocol is likely wrong, in the outage's log
	trouble  string    // what was logged last, of refusals and rejections
	lost     uint64    // dropped for a full queue before the outage
}

func (h *health) note(r response, spans, queued int, lost uint64) {
	switch r.result {
	case retryable:
		// The same mistake may fail in a way that tells only when it is tried again.
		hinted := errors.As(r.err, new(*misdirected))
		if h.since.IsZero() || hinted && !h.hinted {
			if h.hinted = hinted; h.since.IsZero() {
				h.since = time.Now()
			}
			h.log.Warn("backend unreachable, spans are queued", "endpoint", h.endpoint, "error", r.err)
		}
		return
	case undeliverable:
		h.log.Error("backend never takes a batch, it is dropped", "endpoint", h.endpoint, "error", r.err, "spans", spans)
	case refused:
		if t := r.err.Error(); t != h.trouble {
			h.trouble = t
			h.log.Error("backend refuses spans, they are dropped", "endpoint", h.endpoint, "error", r.err, "spans", spans)
		}
	case accepted:
		if r.rejected <= 0 && r.message == "" {
			h.trouble = ""
		} else if r.message != h.trouble || h.trouble == "" {
			h.trouble = r.message
			h.log.Warn("backend took a batch in part", "endpoint", h.endpoint, "rejected", r.rejected, "spans", spans, "message", r.message)
		}
	}
	if !h.since.IsZero() {
		h.log.Info("backend reachable again", "endpoint", h.endpoint,
			"after", time.Since(h.since).Round(time.Millisecond), "queued", queued, "dropped", lost-h.lost)
		h.since, h.hinted = time.Time{}, false
	}
	h.lost = lost
}
