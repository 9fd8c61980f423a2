package export

import (
	"context"
	"log/slog"
	"os"
	"time"
)

// reloader is an OTLP client that is made anew when one of the files it was made
// from has changed: certificates are renewed, and secrets rotated, while it runs.
type reloader struct {
	client // nil while a file cannot be read
	cfg    OTLP
	opts   Options
	log    *slog.Logger
	stamps []stamp
}

// stamp tells one content of a file from another.
type stamp struct {
	size     int64
	modified time.Time
}

func newReloader(cfg OTLP, opts Options) client {
	r := &reloader{cfg: cfg, opts: opts, log: logger(opts), stamps: cfg.stamps()}
	c, err := newOTLPClient(cfg, opts)
	if err == nil && len(r.stamps) == 0 {
		return c
	}
	r.client = c // an interface, nil with the error
	return r
}

// stamps are those of the files that cfg names.
func (c *OTLP) stamps() (stamps []stamp) {
	for _, name := range []string{c.HeadersFile, c.Certificate, c.ClientCertificate, c.ClientKey} {
		if name == "" {
			continue
		}
		var s stamp
		if info, err := os.Stat(name); err == nil {
			s = stamp{info.Size(), info.ModTime()}
		}
		stamps = append(stamps, s)
	}
	return stamps
}

func (r *reloader) send(ctx context.Context, request []byte) response {
	if now := r.cfg.stamps(); r.client == nil || !equal(now, r.stamps) {
		r.stamps = now
		if err := r.reload(); err != nil {
			return retry(err)
		}
	}
	return r.client.send(ctx, request)
}

// reload keeps what there is if it cannot be replaced: a file may be about to be
// written. The error says that there is nothing to keep.
func (r *reloader) reload() error {
	endpoint := r.cfg.Endpoint.Redacted()
	c, err := newOTLPClient(r.cfg, r.opts)
	switch {
	case err != nil && r.client == nil:
		return err
	case err != nil:
		r.log.Warn("keeping the credentials there are", "endpoint", endpoint, "error", err)
		return nil
	}
	r.close()
	r.client = c
	r.log.Info("credentials read again", "endpoint", endpoint)
	return nil
}

func (r *reloader) close() {
	if r.client != nil {
		r.client.close()
	}
}

func equal(a, b []stamp) bool {
	for i := range a {
		if a[i].size != b[i].size || !a[i].modified.Equal(b[i].modified) {
			return false
		}
	}
	return true
}

func logger(opts Options) *slog.Logger {
	if opts.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return opts.Log
}
