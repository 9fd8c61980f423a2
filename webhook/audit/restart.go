package audit

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// restarts remembers evictions: when they were last tried, and of which
// controllers' pods they were made.
//
// Eviction, not a changed pod template: it respects disruption budgets, needs
// no permission to write workloads, and changes nothing that a GitOps tool owns.
type restarts struct {
	last    time.Time
	evicted map[types.UID]time.Time
}

// maxRefused bounds the evictions asked for in vain at a time.
const maxRefused = 20

// helpless is for how long a controller is left alone whose new pods are bare, too.
const helpless = time.Hour

// restartable are kinds that replace an evicted pod. Those of a Job may count
// as failed.
var restartable = []string{"ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"}

// restart evicts one bare pod, the oldest, if it is time.
func (a *Auditor) restart(ctx context.Context, bare []*metav1.PartialObjectMetadata) error {
	r := &a.restarts
	if a.config.RestartInterval == 0 || a.now().Sub(r.last) < a.config.RestartInterval {
		return nil
	}
	for uid, at := range r.evicted {
		if a.now().Sub(at) > helpless {
			delete(r.evicted, uid)
		}
	}
	slices.SortFunc(bare, func(x, y *metav1.PartialObjectMetadata) int {
		return x.CreationTimestamp.Compare(y.CreationTimestamp.Time)
	})
	r.last = a.now()
	refused := map[types.UID]bool{}
	for _, pod := range bare {
		owner := metav1.GetControllerOf(pod)
		if owner == nil || refused[owner.UID] || !slices.Contains(restartable, owner.Kind) || !a.helps(owner.UID, bare) {
			continue
		}
		if len(refused) == maxRefused {
			return nil
		}
		err := a.cluster.Evict(ctx, client.ObjectKeyFromObject(pod), pod.UID)
		switch {
		case apierrors.IsTooManyRequests(err): // a disruption budget
			a.log.Info("pod not evicted for now", "namespace", pod.Namespace, "pod", pod.Name, "error", err)
			refused[owner.UID] = true
			continue
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			continue
		case err != nil:
			return fmt.Errorf("evicting pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
		r.evicted[owner.UID] = r.last
		a.metrics.evictions.Inc()
		a.log.Info("bare pod evicted", "namespace", pod.Namespace, "pod", pod.Name)
		return nil
	}
	return nil
}

// helps reports whether evicting pods of a controller has helped so far: a bare
// pod younger than the last eviction says that it has not.
func (a *Auditor) helps(controller types.UID, bare []*metav1.PartialObjectMetadata) bool {
	at, ok := a.restarts.evicted[controller]
	if !ok {
		return true
	}
	// Creation times are whole seconds.
	at = at.Truncate(time.Second)
	return !slices.ContainsFunc(bare, func(pod *metav1.PartialObjectMetadata) bool {
		owner := metav1.GetControllerOf(pod)
		return owner != nil && owner.UID == controller && !pod.CreationTimestamp.Time.Before(at)
	})
}
