package export

import "context"

// Forwarder delivers requests that others have made, each in one attempt.
type Forwarder struct {
	cfg    Config
	client client
}

// NewForwarder returns a Forwarder to the backend that cfg names.
func NewForwarder(cfg Config, opts Options) *Forwarder {
	return &Forwarder{cfg, newClient(cfg.Exporter, cfg.OTLP, opts)}
}

// Target is where requests are sent, without a password.
func (f *Forwarder) Target() string { return f.cfg.target() }

// Send delivers an ExportTraceServiceRequest in protobuf encoding.
func (f *Forwarder) Send(ctx context.Context, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	return f.client.send(ctx, request).err
}

// Close ends idle connections.
func (f *Forwarder) Close() { f.client.close() }
