package export

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/spile-dev/spile/internal/otlpsink"
)

// TestDyingBackend kills the backend again and again under load and holds the
// counts against what it took.
func TestDyingBackend(t *testing.T) {
	for _, protocol := range []string{ProtocolHTTPProtobuf, ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) { testDyingBackend(t, protocol) })
	}
}

func testDyingBackend(t *testing.T, protocol string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	all := newBackend() // counts what each incarnation took
	p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+addr, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
		"OTEL_BSP_MAX_EXPORT_BATCH_SIZE=20", "OTEL_BSP_MAX_QUEUE_SIZE=1000", "OTEL_BSP_SCHEDULE_DELAY=20")
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { // the backend
		for i := 0; ; i++ {
			sink := otlpsink.New(all.receive)
			sink.Script(otlpsink.Reply{}, otlpsink.Reply{Rejected: 3}, otlpsink.Reply{Reset: true}, otlpsink.Unavailable(),
				otlpsink.Reply{Reset: true, Take: true})
			go func() { _ = sink.Serve(l) }()
			select {
			case <-time.After(20 * time.Millisecond):
				sink.Close()
			case <-stop:
				t.Cleanup(func() { sink.Close() })
				return
			}
			time.Sleep(20 * time.Millisecond)
			for l, err = net.Listen("tcp", addr); err != nil; l, err = net.Listen("tcp", addr) {
				time.Sleep(time.Millisecond)
			}
		}
	})
	others.Go(func() { // a reader of the counts
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
				if s := p.Stats(); s.Residual() != 0 {
					t.Errorf("residual %d of %+v", s.Residual(), s)
					return
				}
			}
		}
	})
	for range 200 {
		p.emit(20)
		time.Sleep(8 * time.Millisecond)
	}
	close(stop)
	others.Wait()
	_ = p.Shutdown(context.Background()) // what it could not send is in the counts
	s := p.Stats()
	taken, again := all.count()
	t.Logf("%+v; backend took %d and %d again", s, taken, again)
	if s.Seen != 4000 || s.Residual() != 0 || s.Queued != 0 {
		t.Errorf("stats %+v, residual %d", s, s.Residual())
	}
	// What counts as exported or rejected was taken; more may have been, where
	// the answer was lost.
	if uint64(taken) < s.Exported+s.Dropped[Rejected] {
		t.Errorf("backend took %d, less than %d", taken, s.Exported+s.Dropped[Rejected])
	}
	if s.Exported == 0 {
		t.Error("nothing exported")
	}
}

// TestLyingBackend: whatever a backend answers, a request that it took counts,
// and the next one goes out.
func TestLyingBackend(t *testing.T) {
	for name, reply := range map[string]otlpsink.Reply{
		"endless answer": {Take: true, Body: bytes.Repeat([]byte{0}, maxResponseBytes+10)},
		"no protobuf":    {Take: true, Body: []byte("\xff\xff\xff")},
		"a web page":     {Take: true, ContentType: "text/html", Body: []byte("<html>")},
		"no answer":      {Take: true, Body: []byte{}},
		"bad UTF-8":      {Message: "\xff\n\x00" + strings.Repeat("x", 1000)},
	} {
		for _, protocol := range protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				b, endpoint := startBackend(t)
				b.Repeat(reply)
				p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
					"OTEL_BSP_MAX_EXPORT_BATCH_SIZE=10")
				p.emit(20)
				if err := p.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				want := Stats{Seen: 20, Exported: 20}
				if (name == "a web page" || name == "endless answer") && protocol == ProtocolGRPC { // no gRPC status then
					want = Stats{Seen: 20, Dropped: map[Reason]uint64{Refused: 20}}
				}
				checkStats(t, p.Stats(), want)
				if len(p.log.lines()) > 1 {
					t.Errorf("log:\n%s\nwant one line", strings.Join(p.log.lines(), "\n"))
				}
			})
		}
	}
}

// grpcServer is grpc-go's own server, as an oracle.
type grpcServer struct {
	ptraceotlp.UnimplementedGRPCServer
	*backend
	calls atomic.Int64
}

func (s *grpcServer) Export(_ context.Context, req ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	resp := ptraceotlp.NewExportResponse()
	switch s.calls.Add(1) {
	case 1:
		st, err := status.New(codes.ResourceExhausted, "läter").WithDetails(
			&errdetails.RetryInfo{RetryDelay: durationpb.New(30 * time.Millisecond)})
		if err != nil {
			return resp, err
		}
		return resp, st.Err()
	case 2:
		return resp, status.Error(codes.Unavailable, "starting")
	case 3:
		s.receive(req.Traces())
		resp.PartialSuccess().SetRejectedSpans(2)
		resp.PartialSuccess().SetErrorMessage("two too many")
		return resp, nil
	case 4:
		return resp, status.Error(codes.ResourceExhausted, "for good")
	}
	s.receive(req.Traces())
	return resp, nil
}

func TestGRPCServer(t *testing.T) {
	ca := newCA(t)
	for _, compression := range []string{CompressionNone, CompressionGzip} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(compression+"/"+scheme, func(t *testing.T) {
				var opts []grpc.ServerOption
				if scheme == "https" {
					opts = append(opts, grpc.Creds(credentials.NewTLS(ca.serverConfig(t))))
				}
				server := grpc.NewServer(opts...)
				s := &grpcServer{backend: newBackend()}
				ptraceotlp.RegisterGRPCServer(server, s)
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				go func() { _ = server.Serve(l) }()
				t.Cleanup(server.Stop)
				p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
					"OTEL_EXPORTER_OTLP_ENDPOINT="+scheme+"://"+l.Addr().String(),
					"OTEL_EXPORTER_OTLP_COMPRESSION="+compression, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=10",
					"OTEL_EXPORTER_OTLP_CERTIFICATE="+ca.file)
				p.emit(30)
				if err := p.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				checkStats(t, p.Stats(), Stats{Seen: 30, Exported: 18, Dropped: map[Reason]uint64{Rejected: 2, Refused: 10}})
				if log := strings.Join(p.log.lines(), "\n"); !strings.Contains(log, "RESOURCE_EXHAUSTED: läter") ||
					!strings.Contains(log, "two too many") || !strings.Contains(log, "RESOURCE_EXHAUSTED: for good") {
					t.Errorf("log:\n%s\nlacks what the server said", log)
				}
			})
		}
	}
}

func TestTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	clientCert, clientKey := ca.issue(t)
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			b := newBackend()
			config := ca.serverConfig(t)
			config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool
			server := &http.Server{Handler: b, TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = server.ServeTLS(l, "", "") }()
			t.Cleanup(func() { server.Close() })
			vars := []string{
				"OTEL_EXPORTER_OTLP_ENDPOINT=https://" + l.Addr().String(), "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
				"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=" + clientCert, "OTEL_EXPORTER_OTLP_CLIENT_KEY=" + clientKey,
			}
			p := newPipeline(t, Options{}, append(vars, "OTEL_EXPORTER_OTLP_CERTIFICATE="+ca.file)...)
			p.emit(10)
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, p.Stats(), Stats{Seen: 10, Exported: 10})

			p = newPipeline(t, Options{}, append(vars, "OTEL_EXPORTER_OTLP_CERTIFICATE="+other.file)...)
			p.emit(10)
			for end := time.Now().Add(20 * time.Second); !strings.Contains(strings.Join(p.log.lines(), "\n"), "unknown authority") && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := p.Shutdown(ctx); err == nil {
				t.Error("no error with the wrong CA")
			}
			checkStats(t, p.Stats(), Stats{Seen: 10, Dropped: map[Reason]uint64{Shutdown: 10}})
			if lines := p.log.lines(); len(lines) != 1 || !strings.Contains(lines[0], "certificate signed by unknown authority") {
				t.Errorf("log:\n%s\nwant one line that says why", strings.Join(lines, "\n"))
			}
		})
	}
}

// authority is a CA for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	dir  string
	file string
}

func newCA(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool(), dir: t.TempDir()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	a.file = writePEM(t, filepath.Join(a.dir, "ca.pem"), "CERTIFICATE", der)
	return a
}

// issue writes a certificate for 127.0.0.1 and its key.
func (a *authority) issue(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, filepath.Join(a.dir, "cert.pem"), "CERTIFICATE", der),
		writePEM(t, filepath.Join(a.dir, "key.pem"), "PRIVATE KEY", keyDER)
}

func (a *authority) serverConfig(t *testing.T) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(a.issue(t))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWrongProtocol: the log says what to change.
func TestWrongProtocol(t *testing.T) {
	server := grpc.NewServer()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	toGRPC := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	nowhere := func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrUnexpectedEOF }
	var tried atomic.Bool
	atLast := func(ctx context.Context, network, address string) (net.Conn, error) {
		if !tried.Swap(true) {
			return nowhere(ctx, network, address)
		}
		return toGRPC(ctx, network, address)
	}
	tests := []struct {
		name, protocol, endpoint string
		dial                     func(context.Context, string, string) (net.Conn, error)
		want                     string
	}{
		{"HTTP to gRPC", ProtocolHTTPProtobuf, "http://collector:80", toGRPC, "PROTOCOL=grpc"},
		{"HTTP to gRPC that is away at first", ProtocolHTTPProtobuf, "http://collector:80", atLast, "PROTOCOL=grpc"},
		{"HTTP to gRPC's port", ProtocolHTTPJSON, "http://collector:4317", nowhere, "PROTOCOL=grpc"},
		{"gRPC to HTTP's port", ProtocolGRPC, "http://collector:4318", nowhere, "PROTOCOL=http/protobuf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPipeline(t, Options{DialContext: tt.dial}, "OTEL_EXPORTER_OTLP_PROTOCOL="+tt.protocol, "OTEL_EXPORTER_OTLP_ENDPOINT="+tt.endpoint)
			p.emit(1)
			told := func() bool { return strings.Contains(strings.Join(p.log.lines(), "\n"), tt.want) }
			for end := time.Now().Add(20 * time.Second); !told() && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_ = p.Shutdown(ctx) // cannot
			if !told() {
				t.Errorf("log:\n%s\nlacks %s", strings.Join(p.log.lines(), "\n"), tt.want)
			}
		})
	}
}
