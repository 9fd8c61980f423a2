package audit

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/spile-dev/spile/webhook"
)

var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// recorder keeps events as "level event kind/name: message".
type recorder struct{ events []string }

func (r *recorder) Eventf(regarding, _ runtime.Object, level, reason, _, note string, args ...any) {
	o := regarding.(*corev1.ObjectReference)
	r.events = append(r.events, fmt.Sprintf("%s %s %s/%s: %.30s", level, reason, o.Kind, o.Name, fmt.Sprintf(note, args...)))
}

var _ events.EventRecorder = (*recorder)(nil)

func owned(kind, name string) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID("uid-" + name), Controller: &yes}}
}

func pod(namespace, name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(epoch.Add(-time.Minute)),
	}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Image: "app:1"}}
	if change != nil {
		change(p)
	}
	return p
}

type fixture struct {
	*Auditor
	client  client.Client
	events  *recorder
	evicted []string
	refuse  error
	reads   int
	clock   time.Time
}

func newFixture(t *testing.T, c Config, objects ...client.Object) *fixture {
	t.Helper()
	f := &fixture{events: &recorder{}, clock: epoch}
	f.client = fake.NewClientBuilder().WithObjects(objects...).Build()
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	c.Sidecar.Image = "sidecar:1"
	place := func(_ context.Context, name string) (webhook.Place, error) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1", Labels: map[string]string{corev1.LabelMetadataName: name}}}
		if name == "shop" {
			ns.Annotations = map[string]string{webhook.AnnotationInject: "enabled"}
		}
		return webhook.Place{Namespace: ns}, nil
	}
	evict := func(_ context.Context, pod types.NamespacedName, _ types.UID) error {
		if f.refuse != nil {
			return f.refuse
		}
		f.evicted = append(f.evicted, pod.Name)
		return nil
	}
	f.Auditor = New(c, Cluster{Pods: f.client, Live: counting{f.client, &f.reads}, Place: place, Evict: evict, Events: f.events}, m, slog.New(slog.DiscardHandler))
	f.now = func() time.Time { return f.clock }
	return f
}

// counting counts the reads of whole pods.
type counting struct {
	client.Reader
	n *int
}

func (c counting) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if _, ok := o.(*corev1.Pod); ok {
		*c.n++
	}
	return c.Reader.Get(ctx, key, o, opts...)
}

func (f *fixture) bare(t *testing.T, namespace string) float64 {
	t.Helper()
	var m dto.Metric
	if err := f.metrics.bare.WithLabelValues(namespace).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetGauge().GetValue()
}

func TestPass(t *testing.T) {
	status := func(s string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Annotations = map[string]string{webhook.AnnotationStatus: s}
			p.OwnerReferences = owned("StatefulSet", p.Name+"-set")
		}
	}
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-6c7", OwnerReferences: owned("Deployment", "cart")}}
	f := newFixture(t, Config{}, set,
		pod("shop", "new", status(`{"version":"1","container":"spile-sidecar"}`)),
		pod("shop", "skipped", status(`{"version":"1","reason":"host_network","message":"the pod uses the node's network"}`)),
		pod("shop", "old", func(p *corev1.Pod) {
			status(`{"container":"spile-sidecar"}`)(p)
			p.CreationTimestamp = metav1.NewTime(epoch.Add(-time.Hour))
		}),
		pod("shop", "forged", status(`nonsense`)),
		pod("shop", "cart-6c7-a", func(p *corev1.Pod) { p.OwnerReferences = owned("ReplicaSet", "cart-6c7") }),
		pod("shop", "cart-6c7-b", func(p *corev1.Pod) { p.OwnerReferences = owned("ReplicaSet", "cart-6c7") }),
		pod("shop", "alone", nil),
		pod("shop", "finished", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("shop", "host", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		pod("shop", "off", func(p *corev1.Pod) { p.Annotations = map[string]string{webhook.AnnotationInject: "disabled"} }),
		pod("plain", "asks", func(p *corev1.Pod) { p.Annotations = map[string]string{webhook.AnnotationInject: "enabled"} }),
		pod("plain", "does-not", nil),
		pod("kube-system", "system", func(p *corev1.Pod) { p.Annotations = map[string]string{webhook.AnnotationInject: "enabled"} }),
	)
	for range 3 {
		if err := f.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(f.events.events)
	want := []string{
		"Normal Injected StatefulSet/new-set: added container spile-sidecar ",
		"Warning InjectionMissing Deployment/cart: pod cart-6c7-a runs without th",
		"Warning InjectionMissing Pod/alone: pod alone runs without the Spi",
		"Warning InjectionMissing Pod/asks: pod asks runs without the Spil",
		"Warning InjectionSkipped StatefulSet/skipped-set: host_network: the pod uses the",
	}
	if diff := cmp.Diff(want, f.events.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if shop, plain := f.bare(t, "shop"), f.bare(t, "plain"); shop != 3 || plain != 1 {
		t.Errorf("%v bare pods in shop and %v in plain, want 3 and 1", shop, plain)
	}
	if f.reads != 6 {
		t.Errorf("%d pods read in full in three passes, want each of 6 once", f.reads)
	}
	for _, name := range []string{"cart-6c7-a", "cart-6c7-b", "alone"} {
		if err := f.client.Delete(t.Context(), pod("shop", name, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.pass(t.Context()); err != nil || f.bare(t, "shop") != 0 {
		t.Errorf("error %v, %v bare pods in shop after their end", err, f.bare(t, "shop"))
	}
}

// Pods that the API server does not ask the webhook about are not missed, nor evicted.
func TestPassHeedsSelectors(t *testing.T) {
	asks := func(labels map[string]string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Labels, p.Annotations = labels, map[string]string{webhook.AnnotationInject: "enabled"}
			p.OwnerReferences = owned("StatefulSet", p.Name+"-set")
		}
	}
	f := newFixture(t, Config{RestartInterval: time.Second, Sidecar: webhook.Config{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "shop"}},
		ObjectSelector:    &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "batch", Operator: metav1.LabelSelectorOpDoesNotExist}}},
	}},
		pod("shop", "a", asks(nil)), pod("shop", "b", asks(map[string]string{"batch": "yes"})), pod("plain", "c", asks(nil)))
	for range 3 {
		f.clock = f.clock.Add(time.Minute)
		if err := f.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if shop, plain := f.bare(t, "shop"), f.bare(t, "plain"); shop != 1 || plain != 0 {
		t.Errorf("%v bare pods in shop and %v in plain, want 1 and 0", shop, plain)
	}
	for _, name := range f.evicted {
		if name != "a" {
			t.Errorf("evicted %s", name)
		}
	}
}

// More new pods than a pass may read: the next pass goes on.
func TestPassIsBounded(t *testing.T) {
	var objects []client.Object
	for i := range maxJudged + 50 {
		objects = append(objects, pod("shop", fmt.Sprint("p", i), nil))
	}
	f := newFixture(t, Config{}, objects...)
	for _, want := range []int{maxJudged, maxJudged + 50, maxJudged + 50} {
		if err := f.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.bare(t, "shop"); f.reads != want || int(got) != want {
			t.Errorf("%d pods read, %v bare, want %d", f.reads, got, want)
		}
	}
}

func TestRestart(t *testing.T) {
	of := func(set string, age time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.OwnerReferences = owned("ReplicaSet", set)
			p.CreationTimestamp = metav1.NewTime(epoch.Add(-age))
		}
	}
	f := newFixture(t, Config{RestartInterval: time.Minute},
		pod("shop", "a-young", of("a", time.Minute)),
		pod("shop", "a-old", of("a", time.Hour)),
		pod("shop", "b", of("b", 2*time.Hour)),
		pod("shop", "job", func(p *corev1.Pod) { p.OwnerReferences = owned("Job", "job") }),
		pod("shop", "alone", nil),
	)
	pass := func(after time.Duration, want ...string) {
		t.Helper()
		f.clock = f.clock.Add(after)
		if err := f.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, f.evicted); diff != "" {
			t.Fatalf("evicted (-want +got):\n%s", diff)
		}
		for _, name := range f.evicted {
			if err := client.IgnoreNotFound(f.client.Delete(t.Context(), pod("shop", name, nil))); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.refuse = apierrors.NewTooManyRequests("disruption budget", 0)
	pass(0)
	f.refuse = nil
	pass(20 * time.Second)
	pass(40*time.Second, "b")
	pass(20*time.Second, "b")
	pass(time.Minute, "b", "a-old")
	// The new pod of a is bare, too: the webhook is still away, or something else
	// is wrong. Its pods are left alone for an hour.
	if err := f.client.Create(t.Context(), pod("shop", "a-new", of("a", -3*time.Minute))); err != nil {
		t.Fatal(err)
	}
	pass(time.Minute, "b", "a-old")
	pass(10*time.Minute, "b", "a-old")
	pass(time.Hour, "b", "a-old", "a-young")
}
