package server

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spile-dev/spile/webhook"
	"github.com/spile-dev/spile/webhook/certs"
)

// Options of the server. Addresses are "host:port" or ":port".
type Options struct {
	// Listen is where the API server connects, by TLS.
	Listen string `json:"listen"`
	// MetricsListen serves Prometheus metrics at /metrics.
	MetricsListen string `json:"metricsListen"`
	// HealthListen serves /healthz and /readyz.
	HealthListen string `json:"healthListen"`

	// Namespace of the server itself, which it never injects into.
	Namespace string `json:"namespace"`
	// Service in Namespace by which the API server reaches the server.
	Service string `json:"service"`
	// Secret in Namespace that holds the certificates.
	Secret string `json:"secret"`
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration.
	WebhookConfiguration string `json:"webhookConfiguration"`
	// CAValidity and CertValidity are the lifetimes of the certificates made.
	CAValidity   Duration `json:"caValidity"`
	CertValidity Duration `json:"certValidity"`
	// CertDir has tls.crt, tls.key and ca.crt that someone else keeps. If set,
	// no certificates are made, and Secret and WebhookConfiguration not used.
	CertDir string `json:"certDir,omitempty"`

	// DrainDelay is how long requests are still answered after the end was
	// asked for, until the API server has learnt of it.
	DrainDelay Duration `json:"drainDelay"`

	// AuditInterval is the time between two audits of what became of pods; 0
	// audits none. The replica that holds Lease, in Namespace, audits.
	AuditInterval Duration `json:"auditInterval"`
	Lease         string   `json:"lease"`
	// RestartInterval is the least time between two evictions of pods that run
	// without the sidecar they ask for; 0 evicts none.
	RestartInterval Duration `json:"restartInterval"`

	// Sidecar to inject.
	Sidecar webhook.Config `json:"sidecar"`
}

// Duration is a time.Duration that prints as "1h0m0s".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Validate reports every fault of o, joined.
func (o Options) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	for _, a := range [][2]string{{"listen", o.Listen}, {"metrics-listen", o.MetricsListen}, {"health-listen", o.HealthListen}} {
		if _, _, err := net.SplitHostPort(a[1]); err != nil {
			fault("%s: %q is not an address such as :8080", a[0], a[1])
		}
	}
	required := [][2]string{{"namespace", o.Namespace}, {"service", o.Service}}
	if o.CertDir == "" {
		required = append(required, [2]string{"secret", o.Secret}, [2]string{"webhook-configuration", o.WebhookConfiguration})
		const least = 30 * time.Second
		if time.Duration(o.CertValidity) < least {
			fault("cert-validity: %s is less than %s", time.Duration(o.CertValidity), least)
		}
		// A serving certificate must fit into what is left of its authority when that is renewed.
		if o.CAValidity < 3*o.CertValidity {
			fault("ca-validity: %s is less than three times cert-validity, %s", time.Duration(o.CAValidity), time.Duration(o.CertValidity))
		}
	}
	const often = time.Second
	for name, d := range map[string]Duration{"audit-interval": o.AuditInterval, "restart-interval": o.RestartInterval} {
		if d != 0 && time.Duration(d) < often {
			fault("%s: %s is less than %s (0 is off)", name, time.Duration(d), often)
		}
	}
	if o.AuditInterval != 0 {
		required = append(required, [2]string{"lease", o.Lease})
	} else if o.RestartInterval != 0 {
		fault("restart-interval: is set though audit-interval is 0")
	}
	for _, r := range required {
		if r[1] == "" {
			fault("%s: is empty", r[0])
		}
	}
	if o.DrainDelay < 0 {
		fault("drain-delay: %s is negative", time.Duration(o.DrainDelay))
	}
	if err := o.Sidecar.Validate(); err != nil {
		fault("sidecar: %w", err)
	}
	return errors.Join(errs...)
}

func (o Options) dnsNames() []string {
	name := o.Service + "." + o.Namespace
	return []string{name + ".svc", name + ".svc.cluster.local", name}
}

func (o Options) lifetimes() certs.Lifetimes {
	return certs.Lifetimes{CA: time.Duration(o.CAValidity), Serving: time.Duration(o.CertValidity)}
}
