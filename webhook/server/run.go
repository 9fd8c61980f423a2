package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/spile-dev/spile/webhook/certs"
)

// Run serves until ctx ends and o.DrainDelay has passed. A nil error means that
// it ended because it was asked to.
func Run(ctx context.Context, cluster *rest.Config, o Options, log *slog.Logger) error {
	logger := logr.FromSlogHandler(log.Handler())
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	mgr, err := ctrl.NewManager(cluster, manager.Options{
		Scheme:                 clientgoscheme.Scheme,
		Logger:                 logger,
		Cache:                  watched(o),
		Metrics:                metricsserver.Options{BindAddress: o.MetricsListen},
		HealthProbeBindAddress: o.HealthListen,
	})
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	certificates, err := setupCertificates(mgr, o, log)
	if err != nil {
		return err
	}
	minor, err := minorVersion(cluster)
	if err != nil {
		return err
	}
	places, err := newPlaces(ctx, mgr, minor)
	if err != nil {
		return err
	}
	m, err := newMetrics(ctrlmetrics.Registry)
	if err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	config := o.Sidecar
	config.ExcludedNamespaces = slices.Concat(config.ExcludedNamespaces, []string{o.Namespace})
	server := newTLSServer(o.Listen, o.dnsNames()[0], certificates, newHandler(config, places.at, m, log), log)
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("adding server: %w", err)
	}
	if o.AuditInterval != 0 {
		if err := setupAudit(mgr, o, config, places, log); err != nil {
			return err
		}
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding liveness: %w", err)
	}
	if err := mgr.AddReadyzCheck("tls", server.ready); err != nil {
		return fmt.Errorf("adding readiness: %w", err)
	}
	if err := mgr.AddReadyzCheck("places", places.ready); err != nil {
		return fmt.Errorf("adding readiness: %w", err)
	}

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		// The pod's end and its removal from the Service are two independent
		// messages; calls arrive until the second one has reached every node.
		log.Info("draining", "delay", time.Duration(o.DrainDelay).String())
		server.drain()
		time.Sleep(time.Duration(o.DrainDelay))
		stop()
	})()
	return mgr.Start(running)
}

// watched restricts the cache to what the permissions allow and is used: two
// objects by name, all namespaces and their limits, little of pods.
func watched(o Options) cache.Options {
	named := func(name string) fields.Selector { return fields.OneTermEqualSelector("metadata.name", name) }
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			emptyPod():       {Transform: trimPod},
			&corev1.Secret{}: {Namespaces: map[string]cache.Config{o.Namespace: {FieldSelector: named(o.Secret)}}},
			&admissionregistrationv1.MutatingWebhookConfiguration{}: {Field: named(o.WebhookConfiguration)},
		},
	}
}

func setupCertificates(mgr manager.Manager, o Options, log *slog.Logger) (certificates, error) {
	if o.CertDir != "" {
		files, err := certs.NewFiles(o.CertDir)
		if err != nil {
			return nil, err
		}
		if err := mgr.Add(files); err != nil {
			return nil, fmt.Errorf("watching certificates: %w", err)
		}
		return files, nil
	}
	keeper := certs.NewKeeper(certs.Config{
		Secret:               types.NamespacedName{Namespace: o.Namespace, Name: o.Secret},
		WebhookConfiguration: o.WebhookConfiguration,
		DNSNames:             o.dnsNames(),
		Lifetimes:            o.lifetimes(),
	}, mgr.GetAPIReader(), mgr.GetClient(), log)
	if err := keeper.SetupWithManager(mgr); err != nil {
		return nil, fmt.Errorf("watching certificates: %w", err)
	}
	return keeper, nil
}
