package export

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCAReload: the CAs are read again when their file changes, and what waited
// is delivered.
func TestCAReload(t *testing.T) {
	for _, protocol := range []string{ProtocolHTTPProtobuf, ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			ca, other := newCA(t), newCA(t)
			config := ca.serverConfig(t)
			config.NextProtos = []string{"h2", "http/1.1"}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			b := newBackend()
			go func() { _ = b.Serve(tls.NewListener(l, config)) }()
			t.Cleanup(func() { b.Close() })

			file := filepath.Join(t.TempDir(), "ca.pem")
			install := func(from string, age time.Duration) {
				t.Helper()
				pem, err := os.ReadFile(from)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, pem, 0o600); err != nil {
					t.Fatal(err)
				}
				at := time.Now().Add(-age)
				if err := os.Chtimes(file, at, at); err != nil {
					t.Fatal(err)
				}
			}
			install(other.file, time.Hour)
			p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT=https://"+l.Addr().String(), "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
				"OTEL_EXPORTER_OTLP_CERTIFICATE="+file, "OTEL_BSP_SCHEDULE_DELAY=10")
			p.emit(10)
			for range 500 {
				if lines := p.log.lines(); strings.Contains(lines[0], "unknown authority") {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			install(ca.file, 0)
			if err := p.Shutdown(t.Context()); err != nil {
				t.Errorf("%v; log:\n%s", err, strings.Join(p.log.lines(), "\n"))
			}
			checkStats(t, p.Stats(), Stats{Seen: 10, Exported: 10})
		})
	}
}

// TestMissingFiles: spans wait for files that are not there yet.
func TestMissingFiles(t *testing.T) {
	b := newBackend()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = b.Serve(l) }()
	t.Cleanup(func() { b.Close() })
	file := filepath.Join(t.TempDir(), "headers")
	vars := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + l.Addr().String(), "OTEL_BSP_SCHEDULE_DELAY=10", "SPILE_OTLP_HEADERS_FILE=" + file}
	if _, err := ConfigFromEnv(environ(vars...)); err == nil || !strings.Contains(err.Error(), "SPILE_OTLP_HEADERS_FILE") {
		t.Errorf("error %v", err)
	}
	p := newFaultyPipeline(t, Options{}, vars...)
	p.emit(10)
	for range 500 {
		if lines := p.log.lines(); strings.Contains(lines[0], "no such file") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.WriteFile(file, []byte("api-key=secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Errorf("%v; log:\n%s", err, strings.Join(p.log.lines(), "\n"))
	}
	checkStats(t, p.Stats(), Stats{Seen: 10, Exported: 10})
	if got := b.Requests()[0].Header.Get("Api-Key"); got != "secret" {
		t.Errorf("header %q", got)
	}
}
