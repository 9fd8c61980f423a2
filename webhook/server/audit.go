package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/spile-dev/spile/webhook"
	"github.com/spile-dev/spile/webhook/audit"
)

// auditing runs the auditor in one replica at a time. The manager's own leader
// election would end the process that loses a lease, and admission with it.
type auditing struct {
	client    kubernetes.Interface
	namespace string
	lease     string
	cache     cache.Cache
	auditor   *audit.Auditor
	log       *slog.Logger
}

func setupAudit(mgr manager.Manager, o Options, c webhook.Config, p *places, log *slog.Logger) error {
	m, err := audit.NewMetrics(ctrlmetrics.Registry)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(mgr.GetConfig())
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	config := audit.Config{Sidecar: c, Interval: time.Duration(o.AuditInterval), RestartInterval: time.Duration(o.RestartInterval)}
	cluster := audit.Cluster{
		Pods:   mgr.GetCache(),
		Live:   mgr.GetAPIReader(),
		Place:  p.at,
		Evict:  evictor(clients),
		Events: mgr.GetEventRecorder("spile-webhook"),
	}
	a := &auditing{clients, o.Namespace, o.Lease, mgr.GetCache(), audit.New(config, cluster, m, log), log}
	if err := mgr.Add(a); err != nil {
		return fmt.Errorf("adding audit: %w", err)
	}
	return nil
}

func evictor(clients kubernetes.Interface) func(context.Context, types.NamespacedName, types.UID) error {
	return func(ctx context.Context, pod types.NamespacedName, uid types.UID) error {
		return clients.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}},
		})
	}
}

// NeedLeaderElection is false: it is elected by itself.
func (*auditing) NeedLeaderElection() bool { return false }

// Start audits whenever this replica holds the lease, until ctx ends.
func (a *auditing) Start(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("naming this replica: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: a.namespace, Name: a.lease},
		Client:     a.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: name},
	}
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock:            lock,
			LeaseDuration:   15 * time.Second,
			RenewDeadline:   10 * time.Second,
			RetryPeriod:     3 * time.Second,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: a.lead,
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("electing an auditor: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

// lead watches the metadata of all pods, from now on, and audits until ctx ends.
func (a *auditing) lead(ctx context.Context) {
	a.log.Info("auditing pods")
	if _, err := a.cache.GetInformer(ctx, emptyPod()); err != nil {
		a.log.Warn("pods cannot be audited", "error", err)
		return
	}
	a.auditor.Run(ctx)
}

func emptyPod() client.Object {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return m
}

// trimPod keeps of a pod's metadata what the audit reads: a cluster has many pods.
func trimPod(o any) (any, error) {
	pod, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	pod.ManagedFields, pod.Finalizers, pod.Labels = nil, nil, nil
	maps.DeleteFunc(pod.Annotations, func(key, _ string) bool {
		return !strings.HasPrefix(key, webhook.AnnotationPrefix) && key != corev1.MirrorPodAnnotationKey
	})
	return pod, nil
}
