package audit

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spile-dev/spile/webhook"
)

const (
	// retold is after how long the same is told of the same owner again.
	retold = time.Hour
	// maxTold bounds what is remembered; beyond it nothing is told.
	maxTold = 10_000
)

// told is what owners were told, and when.
type told map[tale]time.Time

type tale struct {
	owner  types.UID
	event  string
	reason webhook.Reason
}

// once reports whether t is to be told now.
func (m told) once(t tale, now time.Time) bool {
	if _, ok := m[t]; ok || len(m) >= maxTold {
		return false
	}
	m[t] = now
	return true
}

func (m told) forget(now time.Time) {
	for t, at := range m {
		if now.Sub(at) > retold {
			delete(m, t)
		}
	}
}

// note makes an event on the owner of pod, unless it was made for the owner's
// pods within the last hour.
func (a *Auditor) note(ctx context.Context, pod *metav1.PartialObjectMetadata, level, event string, reason webhook.Reason, message string) {
	owner := metav1.GetControllerOf(pod)
	uid := pod.UID
	if owner != nil {
		uid = owner.UID
	}
	if !a.told.once(tale{uid, event, reason}, a.now()) {
		return
	}
	a.cluster.Events.Eventf(a.regarding(ctx, pod, owner), nil, level, event, "Inject", "%s", message)
}

// regarding is the object that people look at: the Deployment for the pods of
// its ReplicaSets, the controller of others, a pod that has none itself.
func (a *Auditor) regarding(ctx context.Context, pod *metav1.PartialObjectMetadata, owner *metav1.OwnerReference) *corev1.ObjectReference {
	if owner == nil {
		return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
	}
	if owner.Kind == "ReplicaSet" {
		set := &metav1.PartialObjectMetadata{}
		set.SetGroupVersionKind(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"})
		if err := a.cluster.Live.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: owner.Name}, set); err == nil {
			if deployment := metav1.GetControllerOf(set); deployment != nil {
				owner = deployment
			}
		}
	}
	return &corev1.ObjectReference{APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: pod.Namespace, Name: owner.Name, UID: owner.UID}
}
