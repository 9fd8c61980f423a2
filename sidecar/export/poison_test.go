package export

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spile-dev/spile/internal/otlpsink"
)

// poisoned serves a sink, but answers 503 to any request with a span of a path.
type poisoned struct {
	client
	path string
}

func (p poisoned) send(ctx context.Context, request []byte) response {
	if strings.Contains(string(request), p.path) {
		return retry(errTest)
	}
	return p.client.send(ctx, request)
}

var errTest = &net.OpError{Op: "write", Err: os.ErrClosed}

// TestPoison: a batch that fails again and again while others are taken neither
// blocks those nor stays for ever.
func TestPoison(t *testing.T) {
	inBubble(t, func(t *testing.T, b *backend, _ *pipes, p *pipeline) {
		x := get("/poison")
		p.Add(x, p.builder.Identify(x))
		time.Sleep(time.Second)
		for range 120 {
			p.emit(1)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		s := p.Stats()
		if s.Dropped[Undeliverable] != 1 || s.Exported < 114 || s.Residual() != 0 {
			t.Errorf("stats %+v: want the poison dropped and the others exported", s)
		}
		lines := strings.Join(p.log.lines(), "\n")
		if !strings.Contains(lines, "never takes a batch") {
			t.Errorf("log:\n%s", lines)
		}
	}, "SPILE_TEST_POISON=/poison")
}

// TestFlappingBackend: half of all attempts fail, and nothing is lost.
func TestFlappingBackend(t *testing.T) {
	inBubble(t, func(t *testing.T, b *backend, _ *pipes, p *pipeline) {
		for i := range 600 {
			if i%2 == 0 {
				b.Script(otlpsink.Unavailable())
			}
			p.emit(1)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		checkStats(t, p.Stats(), Stats{Seen: 600, Exported: 600})
	})
}

// TestHeadersFile: the file's headers are sent, and read again when it changes.
func TestHeadersFile(t *testing.T) {
	b, endpoint := startBackend(t)
	file := filepath.Join(t.TempDir(), "headers")
	write := func(content string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("authorization=Bearer%20one\nx-tenant=shop\n", time.Hour)
	p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "SPILE_OTLP_HEADERS_FILE="+file,
		"OTEL_EXPORTER_OTLP_HEADERS=x-from=env", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=1")
	next := func() http.Header {
		t.Helper()
		n := len(b.Requests())
		p.emit(1)
		for range 500 {
			if r := b.Requests(); len(r) > n {
				return r[n].Header
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("no request")
		return nil
	}
	check := func(authorization string) {
		t.Helper()
		if h := next(); h.Get("Authorization") != authorization || h.Get("X-Tenant") != "shop" || h.Get("X-From") != "env" {
			t.Errorf("headers %v, want %s", h, authorization)
		}
	}
	check("Bearer one")
	write("authorization=Bearer%20two,x-tenant=shop", time.Minute)
	check("Bearer two")
	write("secret-without-name", time.Second)
	check("Bearer two")
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	lines := strings.Join(p.log.lines(), "\n")
	if !strings.Contains(lines, "credentials read again") || !strings.Contains(lines, "keeping the credentials") || strings.Contains(lines, "secret-without") || strings.Contains(lines, "two") {
		t.Errorf("log:\n%s", lines)
	}
}
