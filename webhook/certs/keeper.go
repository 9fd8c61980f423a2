// Package certs gives the webhook its serving certificate and the API server
// the authority to trust: self-signed and renewed by [Keeper], or read from
// files that someone else renews, by [Files].
package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Config names the objects that a [Keeper] keeps. All of them exist already: it
// needs no permission to create any.
type Config struct {
	// Secret holds the keys and certificates that all replicas share.
	Secret types.NamespacedName
	// WebhookConfiguration is the MutatingWebhookConfiguration whose caBundle is kept.
	WebhookConfiguration string
	// DNSNames the API server calls the webhook by.
	DNSNames []string
	Lifetimes
}

// Keeper makes a certificate authority and a serving certificate, stores them
// in a Secret, and writes the authority into the webhook configuration. Replicas
// need no leader: who comes second to write meets a conflict and reads again.
//
// The caBundle keeps a replaced authority until it expires, so that replicas and
// API servers may learn of the new one at different times.
type Keeper struct {
	config Config
	reader client.Reader // live: a stale Secret would bring back an old caBundle
	writer client.Writer
	log    *slog.Logger
	now    func() time.Time

	held atomic.Pointer[held]
}

// held is what this replica serves at present.
type held struct {
	bundle  bundle
	trusted []byte // caBundle of the webhook configuration, nil if there is none
}

// NewKeeper reads with reader, which must not be a cache, and writes with writer.
func NewKeeper(c Config, reader client.Reader, writer client.Writer, log *slog.Logger) *Keeper {
	return &Keeper{config: c, reader: reader, writer: writer, log: log, now: time.Now}
}

// SetupWithManager has the Keeper run whenever one of its objects changes. The
// manager's cache must be restricted to them.
func (k *Keeper) SetupWithManager(mgr manager.Manager) error {
	always := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: k.config.Secret}}
	})
	return builder.ControllerManagedBy(mgr).Named("certificate").
		WatchesMetadata(&corev1.Secret{}, always).
		WatchesMetadata(&admissionregistrationv1.MutatingWebhookConfiguration{}, always).
		Complete(k)
}

// Reconcile makes what is missing or due, and serves the result.
func (k *Keeper) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	config, err := k.webhookConfiguration(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	b, err := k.renew(ctx, caBundle(config))
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	next := &held{bundle: b}
	if config != nil {
		if err := k.install(ctx, config, b.trust()); err != nil {
			return reconcile.Result{}, err
		}
		next.trusted = b.trust()
	}
	k.held.Store(next)
	return reconcile.Result{RequeueAfter: k.config.Interval()}, nil
}

// renew brings the Secret up to date and returns its content.
func (k *Keeper) renew(ctx context.Context, trusted []byte) (bundle, error) {
	secret := &corev1.Secret{}
	if err := k.reader.Get(ctx, k.config.Secret, secret); err != nil {
		return bundle{}, fmt.Errorf("reading secret %s, which the chart creates: %w", k.config.Secret, err)
	}
	b := parse(secret.Data)
	restored := false
	if held := k.held.Load(); b.key == nil && held != nil {
		// Somebody emptied the Secret. What is trusted and served still works.
		b, restored = held.bundle, true
	}
	b, changed, err := b.renew(k.now(), trusted, k.config.Lifetimes, k.config.DNSNames)
	if err != nil || !changed && !restored {
		return b, err
	}
	if secret.Data, err = b.encode(); err != nil {
		return bundle{}, err
	}
	if err := k.writer.Update(ctx, secret); err != nil {
		return bundle{}, fmt.Errorf("writing secret %s: %w", k.config.Secret, err)
	}
	k.log.Info("certificates renewed", "secret", k.config.Secret.String(), "authorities", len(b.cas),
		"authority_until", b.cas[0].NotAfter, "serving_until", b.leaf.Leaf.NotAfter)
	return b, nil
}

// webhookConfiguration returns nil if there is none, as during an uninstall.
func (k *Keeper) webhookConfiguration(ctx context.Context) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	c := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := k.reader.Get(ctx, types.NamespacedName{Name: k.config.WebhookConfiguration}, c)
	if apierrors.IsNotFound(err) {
		k.log.Warn("mutatingwebhookconfiguration is missing, nothing calls the webhook", "name", k.config.WebhookConfiguration)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading mutatingwebhookconfiguration %s: %w", k.config.WebhookConfiguration, err)
	}
	return c, nil
}

// caBundle is what the API server trusts at present.
func caBundle(c *admissionregistrationv1.MutatingWebhookConfiguration) []byte {
	if c == nil || len(c.Webhooks) == 0 {
		return nil
	}
	return c.Webhooks[0].ClientConfig.CABundle
}

// install writes trust into c, in the cluster, if it is not there. The strategic
// merge patch contains nothing but the bundle.
func (k *Keeper) install(ctx context.Context, c *admissionregistrationv1.MutatingWebhookConfiguration, trust []byte) error {
	before := c.DeepCopy()
	changed := false
	for i := range c.Webhooks {
		if !bytes.Equal(c.Webhooks[i].ClientConfig.CABundle, trust) {
			c.Webhooks[i].ClientConfig.CABundle, changed = trust, true
		}
	}
	if !changed {
		return nil
	}
	if err := k.writer.Patch(ctx, c, client.StrategicMergeFrom(before)); err != nil {
		return fmt.Errorf("writing caBundle of mutatingwebhookconfiguration %s: %w", c.Name, err)
	}
	k.log.Info("caBundle written", "mutatingwebhookconfiguration", c.Name)
	return nil
}

// GetCertificate is for [tls.Config].
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	h := k.held.Load()
	if h == nil {
		return nil, errors.New("there is no serving certificate yet")
	}
	return h.bundle.leaf, nil
}

// Roots returns what the API server trusts, or an error if it trusts nothing yet.
func (k *Keeper) Roots() (*x509.CertPool, error) {
	h := k.held.Load()
	if h == nil || h.trusted == nil {
		return nil, fmt.Errorf("mutatingwebhookconfiguration %s has no caBundle of ours yet", k.config.WebhookConfiguration)
	}
	return pool(parseCertificates(h.trusted)), nil
}
