package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// certificates are what the server shows and what its callers trust.
type certificates interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Roots() (*x509.CertPool, error)
}

// tlsServer is the endpoint that the API server calls.
type tlsServer struct {
	http     *http.Server
	certs    certificates
	name     string // by which the API server calls
	log      *slog.Logger
	draining atomic.Bool
}

func newTLSServer(addr, name string, certs certificates, h http.Handler, log *slog.Logger) *tlsServer {
	s := &tlsServer{certs: certs, name: name, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("/inject", func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
	s.http = &http.Server{
		Addr:    addr,
		Handler: mux,
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: certs.GetCertificate,
			// Over HTTP/2 every review of an API server would share one
			// connection, and hang together when a replica dies.
			NextProtos: []string{"http/1.1"},
		},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		// Longer than the 90 s of API servers: who closes an idle connection may
		// meet a review on its way, which is not sent again.
		IdleTimeout:    3 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Start serves until ctx ends, then finishes what has begun.
func (s *tlsServer) Start(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.http.Addr)
	if err != nil {
		return fmt.Errorf("listening for the API server: %w", err)
	}
	s.log.Info("serving", "address", listener.Addr().String())
	stopped := make(chan error, 1)
	go func() { stopped <- s.http.ServeTLS(listener, "", "") }()
	select {
	case err := <-stopped:
		return fmt.Errorf("serving the API server: %w", err)
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.http.Shutdown(deadline); err != nil {
		return fmt.Errorf("finishing requests: %w", err)
	}
	if err := <-stopped; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// NeedLeaderElection is false: every replica serves.
func (s *tlsServer) NeedLeaderElection() bool { return false }

// drain asks callers to go elsewhere with their next request, by the answer to
// this one. Closing idle connections, as http.Server would, fails the reviews that
// are just being sent on them.
func (s *tlsServer) drain() { s.draining.Store(true) }

// ready calls the server as the API server does: by its name, trusting what the
// API server trusts.
func (s *tlsServer) ready(r *http.Request) error {
	roots, err := s.certs.Roots()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(s.http.Addr)
	if err != nil {
		return err
	}
	if host == "" {
		host = "localhost"
	}
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: s.name}}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("calling the webhook as the API server does: %w", err)
	}
	return conn.Close()
}
