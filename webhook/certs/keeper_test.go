package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var testKeeper = Config{
	Secret:               types.NamespacedName{Namespace: "spile-system", Name: "spile-webhook-cert"},
	WebhookConfiguration: "spile-webhook",
	DNSNames:             names,
	Lifetimes:            minutes,
}

func emptyObjects() []client.Object {
	ignore, none := admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone
	return []client.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "spile-system", Name: "spile-webhook-cert"}},
		&admissionregistrationv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "spile-webhook"},
			Webhooks: []admissionregistrationv1.MutatingWebhook{{
				Name: "inject.spile.dev", FailurePolicy: &ignore, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			}},
		},
	}
}

func replica(c client.Client, now *time.Time) *Keeper {
	k := NewKeeper(testKeeper, c, c, slog.New(slog.DiscardHandler))
	k.now = func() time.Time { return *now }
	return k
}

func reconcileAll(t *testing.T, replicas ...*Keeper) {
	t.Helper()
	for _, k := range replicas {
		if _, err := k.Reconcile(context.Background(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
	}
}

func installed(t *testing.T, c client.Client) *admissionregistrationv1.MutatingWebhookConfiguration {
	t.Helper()
	m := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := c.Get(context.Background(), types.NamespacedName{Name: "spile-webhook"}, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// call verifies what k serves as an API server that trusts caBundle does.
func call(k *Keeper, caBundle []byte, now time.Time) error {
	served, err := k.GetCertificate(nil)
	if err != nil {
		return err
	}
	_, err = served.Leaf.Verify(x509.VerifyOptions{
		DNSName: names[0], Roots: pool(parseCertificates(caBundle)), CurrentTime: now,
	})
	return err
}

// Two replicas, twenty minutes of certificates that live one minute, helm wiping the
// caBundle or the Secret now and then: every call succeeds.
func TestReplicasThroughRotations(t *testing.T) {
	c := fake.NewClientBuilder().WithObjects(emptyObjects()...).Build()
	now := epoch
	a, b := replica(c, &now), replica(c, &now)
	if _, err := a.GetCertificate(nil); err == nil {
		t.Error("a certificate before the first reconciliation")
	}
	if _, err := a.Roots(); err == nil {
		t.Error("ready before the first reconciliation")
	}
	for step := 0; now.Before(epoch.Add(20 * time.Minute)); step++ {
		switch {
		case step%97 == 50:
			m := installed(t, c)
			m.Webhooks[0].ClientConfig.CABundle = nil
			if err := c.Update(context.Background(), m); err != nil {
				t.Fatal(err)
			}
		case step%89 == 60:
			secret := emptyObjects()[0]
			if err := c.Update(context.Background(), secret); err != nil {
				t.Fatal(err)
			}
		}
		reconcileAll(t, a, b)
		trust := installed(t, c).Webhooks[0].ClientConfig.CABundle
		for i, k := range []*Keeper{a, b} {
			if err := call(k, trust, now); err != nil {
				t.Fatalf("step %d, replica %d: %v", step, i, err)
			}
		}
		now = now.Add(minutes.Interval())
	}
	m := installed(t, c)
	if got := *m.Webhooks[0].FailurePolicy; got != admissionregistrationv1.Ignore || m.Webhooks[0].Name != "inject.spile.dev" {
		t.Errorf("the configuration beside the caBundle changed: %v", m)
	}
}

// A second writer of the Secret wins; the loser comes back and takes it over.
func TestConflictIsRetried(t *testing.T) {
	now := epoch
	var other *Keeper
	raced := false
	c := fake.NewClientBuilder().WithObjects(emptyObjects()...).WithInterceptorFuncs(interceptor.Funcs{
		Update: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if !raced {
				raced = true
				if _, err := other.Reconcile(ctx, reconcile.Request{}); err != nil {
					return err
				}
			}
			return w.Update(ctx, o, opts...)
		},
	}).Build()
	k := replica(c, &now)
	other = replica(c, &now)
	result, err := k.Reconcile(context.Background(), reconcile.Request{})
	if err != nil || result.RequeueAfter == 0 || result.RequeueAfter > time.Second {
		t.Fatalf("result %v, error %v", result, err)
	}
	reconcileAll(t, k)
	mine, _ := k.GetCertificate(nil)
	theirs, _ := other.GetCertificate(nil)
	if !mine.Leaf.Equal(theirs.Leaf) {
		t.Error("the replicas serve different certificates")
	}
}

func TestMissingObjects(t *testing.T) {
	now := epoch
	objects := emptyObjects()

	k := replica(fake.NewClientBuilder().WithObjects(objects[1]).Build(), &now)
	if _, err := k.Reconcile(context.Background(), reconcile.Request{}); err == nil {
		t.Error("no error without the Secret")
	}
	// Without the configuration it serves, but is not ready.
	k = replica(fake.NewClientBuilder().WithObjects(objects[0]).Build(), &now)
	reconcileAll(t, k)
	if _, err := k.GetCertificate(nil); err != nil {
		t.Error(err)
	}
	if _, err := k.Roots(); err == nil {
		t.Error("ready without a MutatingWebhookConfiguration")
	}
}

func TestFilesNeedACertificate(t *testing.T) {
	if _, err := NewFiles(t.TempDir()); err == nil {
		t.Error("no error for an empty directory")
	}
}

// The caBundle of a verified call is that of the configuration, nothing else.
func TestUnknownAuthorityIsRefused(t *testing.T) {
	now := epoch
	c := fake.NewClientBuilder().WithObjects(emptyObjects()...).Build()
	k := replica(c, &now)
	reconcileAll(t, k)
	other, _, err := bundle{}.renew(now, nil, minutes, names)
	if err != nil {
		t.Fatal(err)
	}
	unknown := &x509.UnknownAuthorityError{}
	if err := call(k, other.trust(), now); !errors.As(err, unknown) {
		t.Errorf("got %v, want an unknown authority", err)
	}
}
