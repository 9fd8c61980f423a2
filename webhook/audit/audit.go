// Package audit looks at what became of pods, beside the admission path: it
// tells the owners of pods by events whether they were injected, and finds pods
// that ask for the sidecar and run without it, because they were created before
// the annotation or while the webhook could not be reached.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spile-dev/spile/webhook"
)

const (
	// maxJudged bounds the pods that one pass reads in full, and so its load on
	// the API server; the next pass goes on.
	maxJudged = 200
	// news bounds how old a pod may be for its injection to be told, so that a
	// new auditor does not tell of every pod in the cluster.
	news = 2 * time.Minute
)

// Config of an [Auditor].
type Config struct {
	// Sidecar that pods should have.
	Sidecar webhook.Config
	// Interval between two passes.
	Interval time.Duration
	// RestartInterval is the least time between two evictions of bare pods; 0
	// evicts none.
	RestartInterval time.Duration
}

// Cluster is what an [Auditor] reads and does.
type Cluster struct {
	// Pods lists pods' metadata, from a watch.
	Pods client.Reader
	// Live reads single pods and ReplicaSets, past the watch.
	Live client.Reader
	// Place tells what is to know of a namespace.
	Place func(ctx context.Context, namespace string) (webhook.Place, error)
	// Evict asks for the eviction of a pod, which disruption budgets may refuse.
	Evict func(ctx context.Context, pod types.NamespacedName, uid types.UID) error
	// Events takes events, without waiting.
	Events events.EventRecorder
}

// Auditor audits pods, pass by pass.
type Auditor struct {
	config  Config
	cluster Cluster
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time

	verdicts map[types.UID]verdict
	told     told
	restarts restarts
}

// verdict on a pod without a status, as long as neither it nor its namespace changes.
type verdict struct {
	pod, namespace string // resource versions
	bare           bool
}

// New returns an Auditor; see [Auditor.Run].
func New(c Config, cluster Cluster, m *Metrics, log *slog.Logger) *Auditor {
	return &Auditor{
		config: c, cluster: cluster, metrics: m, log: log, now: time.Now,
		verdicts: map[types.UID]verdict{}, told: told{}, restarts: restarts{evicted: map[types.UID]time.Time{}},
	}
}

// Run audits until ctx ends. Of several replicas one should.
func (a *Auditor) Run(ctx context.Context) {
	defer a.metrics.reset()
	for {
		if err := a.pass(ctx); err != nil && ctx.Err() == nil {
			a.metrics.failures.Inc()
			a.log.Warn("audit incomplete", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.config.Interval):
		}
	}
}

// pass looks at every pod once.
func (a *Auditor) pass(ctx context.Context) error {
	pods := &metav1.PartialObjectMetadataList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	if err := a.cluster.Pods.List(ctx, pods, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	var bare []*metav1.PartialObjectMetadata
	seen := make(map[types.UID]verdict, len(a.verdicts))
	perNamespace := map[string]int{}
	budget := maxJudged
	var failed error
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.DeletionTimestamp != nil {
			continue
		}
		if status, ok := pod.Annotations[webhook.AnnotationStatus]; ok {
			a.tell(ctx, pod, status)
			continue
		}
		v, err := a.judge(ctx, pod, &budget)
		if err != nil {
			failed = err
			continue
		}
		if v != (verdict{}) {
			seen[pod.UID] = v
		}
		if v.bare {
			perNamespace[pod.Namespace]++
			bare = append(bare, pod)
			a.note(ctx, pod, corev1.EventTypeWarning, "InjectionMissing", "", fmt.Sprintf(
				"pod %s runs without the Spile sidecar that it asks for: it was created before the annotation or while the webhook could not be reached; create it anew", pod.Name))
		}
	}
	a.verdicts = seen
	a.told.forget(a.now())
	a.metrics.set(perNamespace)
	return errors.Join(failed, a.restart(ctx, bare))
}

// judge returns the verdict on a pod without a status, the zero verdict if
// nobody asked or the budget of full reads is spent.
func (a *Auditor) judge(ctx context.Context, pod *metav1.PartialObjectMetadata, budget *int) (verdict, error) {
	place, err := a.cluster.Place(ctx, pod.Namespace)
	if err != nil {
		if apierrors.IsNotFound(err) {
			return verdict{}, nil
		}
		return verdict{}, err
	}
	// Consent needs no more than metadata.
	if d := webhook.Decide(&corev1.Pod{ObjectMeta: pod.ObjectMeta}, place, a.config.Sidecar); !d.Asked {
		return verdict{}, nil
	}
	v := verdict{pod: pod.ResourceVersion, namespace: place.Namespace.ResourceVersion}
	if known := a.verdicts[pod.UID]; known.pod == v.pod && known.namespace == v.namespace {
		return known, nil
	}
	if *budget == 0 {
		return a.verdicts[pod.UID], nil
	}
	*budget--
	full := &corev1.Pod{}
	err = a.cluster.Live.Get(ctx, client.ObjectKeyFromObject(pod), full)
	switch {
	case apierrors.IsNotFound(err) || err == nil && full.UID != pod.UID:
		return verdict{}, nil
	case err != nil:
		return verdict{}, fmt.Errorf("reading pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	finished := full.Status.Phase == corev1.PodSucceeded || full.Status.Phase == corev1.PodFailed
	// What it uses itself is in the quotas already.
	place.ResourceQuotas = nil
	v.bare = !finished && a.config.Sidecar.Selects(full, place.Namespace) && webhook.Decide(full, place, a.config.Sidecar).Sidecar != nil
	return v, nil
}

// tell passes the webhook's status of a new pod on to its owner.
func (a *Auditor) tell(ctx context.Context, pod *metav1.PartialObjectMetadata, annotation string) {
	if a.now().Sub(pod.CreationTimestamp.Time) > news {
		return
	}
	var s webhook.Status
	if json.Unmarshal([]byte(annotation), &s) != nil {
		return
	}
	if s.Container != "" {
		a.note(ctx, pod, corev1.EventTypeNormal, "Injected", "", fmt.Sprintf("added container %s to its pods", s.Container))
		return
	}
	message := string(s.Reason)
	if s.Message != "" {
		message += ": " + s.Message
	}
	a.note(ctx, pod, corev1.EventTypeWarning, "InjectionSkipped", s.Reason, message)
}
