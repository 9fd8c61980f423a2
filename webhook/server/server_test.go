package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// testCertificates is a certificate for name that is its own authority.
type testCertificates struct {
	cert  *tls.Certificate
	roots *x509.CertPool
}

func newTestCertificates(t testing.TB, name string) *testCertificates {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &testCertificates{&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots}
}

func (c *testCertificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.cert == nil {
		return nil, errors.New("no certificate yet")
	}
	return c.cert, nil
}

func (c *testCertificates) Roots() (*x509.CertPool, error) { return c.roots, nil }

func TestReadyOnlyIfCallsSucceed(t *testing.T) {
	const name = "spile-webhook.spile-system.svc"
	good := newTestCertificates(t, name)
	tests := []struct {
		name  string
		certs *testCertificates
		want  string // in the error; "" if ready
	}{
		{"good", good, ""},
		{"no certificate", &testCertificates{nil, good.roots}, "as the API server does"},
		{"other name", newTestCertificates(t, "other.svc"), "not " + name},
		{"unknown authority", &testCertificates{good.cert, x509.NewCertPool()}, "unknown authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newTLSServer(freeAddress(t), name, tt.certs, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
			request := httptest.NewRequest(http.MethodGet, "/readyz", nil)
			if s.ready(request) == nil {
				t.Error("ready before it listens")
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Start(ctx) }()
			waitListening(t, s.http.Addr)

			err := s.ready(request)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("readiness %v, want %q", err, tt.want)
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestStartNeedsItsAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := newTLSServer(listener.Addr().String(), "x", newTestCertificates(t, "x"), http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err := s.Start(context.Background()); err == nil {
		t.Error("no error though the address is taken")
	}
}

// A request that has begun is answered though the end was asked for.
func TestShutdownFinishesRequests(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		_, _ = w.Write([]byte("done"))
	})
	certs := newTestCertificates(t, "localhost")
	s := newTLSServer(freeAddress(t), "localhost", certs, handler, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	waitListening(t, s.http.Addr)

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: certs.roots, ServerName: "localhost"}}}
	defer client.CloseIdleConnections()
	answered := make(chan error, 1)
	go func() {
		resp, err := client.Post("https://"+s.http.Addr+"/inject", "application/json", nil)
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	<-begun
	s.drain()
	cancel()
	close(finish)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A connection that is idle when draining begins has one more request answered,
// and is closed by its client then.
func TestDrainClosesNoConnection(t *testing.T) {
	certs := newTestCertificates(t, "localhost")
	s := newTLSServer(freeAddress(t), "localhost", certs, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	waitListening(t, s.http.Addr)

	conn, err := tls.Dial("tcp", s.http.Addr, &tls.Config{RootCAs: certs.roots, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for _, last := range []bool{false, true} {
		if last {
			s.drain()
		}
		if _, err := io.WriteString(conn, "POST /inject HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK || resp.Close != last {
			t.Errorf("draining %t: status %d, close %t", last, resp.StatusCode, resp.Close)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitListening(t testing.TB, addr string) {
	t.Helper()
	for range 500 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nothing listens on %s", addr)
}
