package webhook

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A LimitRange's default counts against what the pod as a whole requests.
func TestDefaultRequestInPodResources(t *testing.T) {
	p, raw := readCase(t, "testdata/inject/pod_resources_fit.in.yaml")
	c := testConfig()
	c.Resources = *c.Resources.DeepCopy()
	delete(c.Resources.Requests, corev1.ResourceCPU)
	if d, _, err := Inject(raw, p, c); err != nil || d.Reason != Injected {
		t.Fatalf("without a LimitRange: reason %q, error %v", d.Reason, err)
	}
	p.LimitRanges = []corev1.LimitRange{{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")},
	}}}}}
	if d, _, err := Inject(raw, p, c); err != nil || d.Reason != ReasonPodResources {
		t.Errorf("reason %q, error %v, want %q", d.Reason, err, ReasonPodResources)
	}
}

// What a pod's owner and image are called is not bounded by Kubernetes; what is
// added to the pod is.
func TestAddedIsBounded(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	yes := true
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{AnnotationInject: "enabled"}
	pod.OwnerReferences = append(pod.OwnerReferences, metav1.OwnerReference{Kind: "ReplicaSet", Name: long, Controller: &yes})
	pod.Spec.Containers = []corev1.Container{{Name: "cart", Image: "cart:" + long}}
	d := Decide(pod, Place{Namespace: &corev1.Namespace{}}, testConfig())
	if d.Sidecar == nil {
		t.Fatalf("not injected: %s", d.Message)
	}
	if size := d.Sidecar.Container.Size(); size > maxAdded {
		t.Errorf("the container has %d bytes, of %d that are reckoned with", size, maxAdded)
	}
}
