package export

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// maxResponseBytes bounds what is read of a backend's answer.
const maxResponseBytes = 4 << 20

// newClient returns the client of an exporter. One whose files cannot be read
// waits for them.
func newClient(exporter string, cfg OTLP, opts Options) client {
	switch exporter {
	case ExporterNone:
		return discard{}
	case ExporterConsole:
		w := opts.Console
		if w == nil {
			w = os.Stdout
		}
		return console{w, cfg.signal}
	}
	return newReloader(cfg, opts)
}

// newOTLPClient reads the files that cfg names.
func newOTLPClient(cfg OTLP, opts Options) (client, error) {
	if err := cfg.readHeaders(); err != nil {
		return nil, err
	}
	tlsConfig, err := newTLSConfig(cfg)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            opts.DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    10 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    1,
		DisableCompression:     true, // no answer is worth it, and one may be a bomb
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              new(http.Protocols),
		// Without pings, requests would follow each other down a connection
		// whose other end is gone.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	t.Protocols.SetHTTP2(true)
	userAgent := "spile/" + opts.Version
	if cfg.Protocol == ProtocolGRPC {
		if cfg.Endpoint.Scheme == "http" {
			t.Protocols.SetUnencryptedHTTP2(true)
			t.Proxy = nil // an HTTP proxy cannot pass plaintext HTTP/2 on
		}
		return &grpcClient{cfg: cfg, transport: t, userAgent: userAgent}, nil
	}
	t.Protocols.SetHTTP1(true)
	return &httpClient{cfg: cfg, transport: t, userAgent: userAgent}, nil
}

// newTLSConfig reads the CAs now and the client's certificate at each
// handshake, so that it can be renewed.
func newTLSConfig(cfg OTLP) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.Certificate != "" {
		pem, err := os.ReadFile(cfg.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading OTEL_EXPORTER_OTLP_CERTIFICATE: %s holds no PEM certificate", cfg.Certificate)
		}
	}
	if cfg.ClientCertificate != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.ClientCertificate, cfg.ClientKey)
			return &cert, err
		}
		if _, err := load(nil); err != nil {
			return nil, fmt.Errorf("reading OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY: %w", err)
		}
		c.GetClientCertificate = load
	}
	return c, nil
}

// target names the backend in logs and errors.
func (c *Config) target() string {
	if c.Exporter != ExporterOTLP {
		return c.Exporter
	}
	return c.Endpoint.Redacted()
}

// readHeaders adds the headers of the file that c names.
func (c *OTLP) readHeaders() error {
	if c.HeadersFile == "" {
		return nil
	}
	b, err := os.ReadFile(c.HeadersFile)
	if err != nil {
		return fmt.Errorf("reading SPILE_OTLP_HEADERS_FILE: %w", err)
	}
	headers, faults := parseHeaders("SPILE_OTLP_HEADERS_FILE", string(b), ",\r\n")
	c.Headers = append(c.Headers[:len(c.Headers):len(c.Headers)], headers...)
	return errors.Join(faults...)
}

// readAnswer reads a body to its end, so that the connection can be used
// again, or to its bound.
func readAnswer(body io.ReadCloser) ([]byte, error) {
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxResponseBytes+1))
	if err == nil && len(b) > maxResponseBytes {
		err = errTooLong
	}
	return b, err
}

var errTooLong = errors.New("the answer is longer than 4 MiB")

// retry is the response of an attempt that came to no answer.
func retry(err error) response { return response{result: retryable, err: err} }

// discard is the client of ExporterNone; nothing is sent to it.
type discard struct{}

func (discard) send(context.Context, []byte) response { return response{} }
func (discard) close()                                {}

// console writes requests as OTLP JSON, one TracesData a line.
type console struct {
	w      io.Writer
	signal *signal
}

func (c console) send(_ context.Context, request []byte) response {
	b, err := c.signal.toJSON(request)
	if err == nil {
		_, err = c.w.Write(append(b, '\n'))
	}
	if err != nil {
		return response{result: refused, err: err}
	}
	return response{}
}

func (console) close() {}
