//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/spile-dev/spile/webhook"
)

// bare has workloads that are older than its annotation.
const bare = "spile-e2e-bare"

// install is the helm command for the chart of this checkout.
func install(set ...string) []string {
	tag := env("E2E_TAG", "e2e")
	args := []string{
		"upgrade", "--install", "spile", "../../charts/spile", "-n", release, "--create-namespace", "--wait", "--timeout", "180s",
		"--set", "otlp.endpoint=http://collector.nowhere:4318", "--set", "image.tag=" + tag, "--set", "sidecar.image.tag=" + tag,
	}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	return args
}

// TestOperations is what an operator does and sees, from install to uninstall.
func TestOperations(t *testing.T) {
	c := cluster{values: map[string]any{"AppImage": "ghcr.io/spile-dev/spile-e2e-app:" + env("E2E_TAG", "e2e")}}
	prepare(t, bare)
	kubectl(t, "create", "namespace", bare)
	c.apply(t, "bare.yaml", map[string]any{"Namespace": bare})
	need(t, "workloads before Spile", func(t *testing.T) {
		for _, name := range []string{"free", "budgeted"} {
			kubectl(t, "-n", bare, "rollout", "status", "deployment/"+name, "--timeout=120s")
		}
	})
	before := objects(t)
	need(t, "helm install", func(t *testing.T) { must(t, "", "helm", install()...) })
	t.Run("permissions", testPermissions)
	t.Run("hardening", testHardening)
	t.Run("an annotation takes effect at once", testAnnotationLag)
	t.Run("check: healthy, one namespace with bare pods", func(t *testing.T) {
		kubectl(t, "annotate", "namespace", bare, annotation+"=enabled")
		c.awaitInjection(t, bare)
		check(t, 0, "2 ready pods behind service", bare+": pods are injected", bare+": 4 pods run without the sidecar")
	})
	t.Run("bare pods are reported within a minute", func(t *testing.T) { testReport(t, 4, time.Now()) })
	t.Run("events on owners", c.testEvents)
	t.Run("metrics", testMetrics)
	t.Run("pods created while the webhook is away", c.testDowntime)
	t.Run("upgrade and rollback", testUpgrade)
	t.Run("restarts", testRestarts)
	t.Run("check: what is broken", c.testCheckBroken)
	t.Run("uninstall leaves nothing", func(t *testing.T) {
		pods := uids(t)
		must(t, "", "helm", "uninstall", "spile", "-n", release, "--wait")
		kubectl(t, "-n", release, "wait", "pod", "--all", "--for=delete", "--timeout=90s")
		if diff := cmp.Diff(before, objects(t)); diff != "" {
			t.Errorf("objects named after Spile (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(pods, uids(t)); diff != "" {
			t.Errorf("running pods (-before +after):\n%s", diff)
		}
	})
}

// objects named or labelled after Spile, of every kind that the cluster has, but
// for the release's own namespace and what Kubernetes itself keeps there.
func objects(t *testing.T) (names []string) {
	t.Helper()
	kinds := strings.Fields(kubectl(t, "api-resources", "--verbs=list", "-o", "name"))
	kinds = slices.DeleteFunc(kinds, func(k string) bool {
		return strings.HasPrefix(k, "events") || k == "namespaces" || strings.Contains(k, "metrics.k8s.io")
	})
	out := kubectl(t, "get", strings.Join(kinds, ","), "-A", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{"\n"}{end}`)
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		// Objects of the tests' other namespaces come and go.
		if strings.Contains(line, "spile") && !strings.Contains(line, "/spile-e2e-") && !strings.HasPrefix(line, "ServiceAccount/"+release+"/default") &&
			!strings.HasPrefix(line, "ConfigMap/"+release+"/kube-root-ca.crt") {
			names = append(names, line)
		}
	}
	slices.Sort(names)
	return names
}

// uids of the pods of the test's workloads.
func uids(t *testing.T) (uids []string) {
	t.Helper()
	for _, p := range get[corev1.PodList](t, "-n", bare, "pods", "-l", "app in (free,budgeted)").Items {
		uids = append(uids, fmt.Sprintf("%s %s ready=%t restarts=%d", p.Name, p.UID, ready(p), restarts(p)))
	}
	slices.Sort(uids)
	return uids
}

// testPermissions compares all that the webhook's account may do, in its own
// namespace and in another, with what it should, beside what every account may.
func testPermissions(t *testing.T) {
	account := "--as=system:serviceaccount:" + release + ":spile-webhook"
	anybody := canI(t, "--as=system:serviceaccount:"+release+":default", release)
	everywhere := []string{
		"events.events.k8s.io [] [create patch]",
		"limitranges [] [get list watch]", "namespaces [] [get list watch]",
		"mutatingwebhookconfigurations.admissionregistration.k8s.io [spile-webhook] [get list watch patch]",
		"pods [] [get list watch]", "replicasets.apps [] [get]", "resourcequotas [] [get list watch]",
	}
	own := append(slices.Clone(everywhere), "leases.coordination.k8s.io [spile-webhook-audit] [get update]", "secrets [spile-webhook-cert] [get list watch update]")
	for namespace, want := range map[string][]string{bare: everywhere, release: own} {
		got := slices.DeleteFunc(canI(t, account, namespace), func(s string) bool { return slices.Contains(anybody, s) })
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("permissions in %s (-want +got):\n%s", namespace, diff)
		}
	}
	for _, not := range [][]string{{"create", "pods"}, {"get", "secrets"}, {"create", "pods/eviction"}, {"update", "mutatingwebhookconfigurations"}, {"create", "leases"}} {
		if out, err := command("", "kubectl", append([]string{"auth", "can-i", "-n", bare, account}, not...)...); err == nil {
			t.Errorf("may %v in %s: %s", not, bare, out)
		}
	}
}

// canI lists permissions as "resource [names] [verbs]".
func canI(t *testing.T, account, namespace string) (rules []string) {
	t.Helper()
	out := kubectl(t, "auth", "can-i", "--list", "--no-headers", account, "-n", namespace)
	for line := range strings.Lines(out) {
		// RESOURCES  [NON-RESOURCE URLS]  [NAMES]  [VERBS]
		fields := strings.SplitN(strings.TrimSpace(line), "[", 2)
		if len(fields) < 2 {
			continue
		}
		parts := strings.Split("["+fields[1], "]")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		if len(parts) < 3 || parts[0] != "[" {
			continue // of URLs, which are the same for all
		}
		rules = append(rules, fmt.Sprintf("%s %s] %s]", strings.TrimSpace(fields[0]), parts[1], parts[2]))
	}
	slices.Sort(rules)
	return rules
}

func testHardening(t *testing.T) {
	pods := get[corev1.PodList](t, "-n", release, "pods").Items
	if len(pods) != 2 {
		t.Errorf("%d pods, want 2", len(pods))
	}
	for _, p := range pods {
		s, pc := p.Spec.Containers[0].SecurityContext, p.Spec.SecurityContext
		if !*pc.RunAsNonRoot || *pc.RunAsUser == 0 || pc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
			!*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: %+v, %+v", p.Name, pc, s)
		}
		if len(p.Spec.TopologySpreadConstraints) != 2 {
			t.Errorf("%s: spread %+v", p.Name, p.Spec.TopologySpreadConstraints)
		}
	}
	policy := get[networkingv1.NetworkPolicy](t, "-n", release, "networkpolicy", "spile-webhook")
	if len(policy.Spec.Ingress) != 1 || len(policy.Spec.Ingress[0].Ports) != 3 {
		t.Errorf("network policy %+v", policy.Spec)
	}
	// The level restricted admits the webhook itself.
	out := kubectl(t, "label", "--dry-run=server", "namespace", release, "pod-security.kubernetes.io/enforce=restricted")
	if strings.Contains(out, "violates") {
		t.Error(out)
	}
	for _, s := range get[corev1.EventList](t, "-n", release, "events").Items {
		if s.Reason == "FailedCreate" {
			t.Errorf("event %s: %s", s.Reason, s.Message)
		}
	}
}

// testAnnotationLag tells how long after kubectl annotate the webhook, which
// watches namespaces, still takes a pod for one that nobody asked to inject.
func testAnnotationLag(t *testing.T) {
	a := newAPIServer(t)
	pod := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"lag-"},"spec":{"containers":[{"name":"app","image":"app:1"}]}}`)
	for range 5 {
		kubectl(t, "annotate", "namespace", bare, annotation+"=enabled", "--overwrite")
		start, missed := time.Now(), 0
		for ; time.Since(start) < 5*time.Second; missed++ {
			made, err := a.dryRunPod(bare, pod)
			if err != nil {
				t.Fatal(err)
			}
			if sidecar(made) != nil {
				break
			}
		}
		took := time.Since(start)
		t.Logf("the first injected pod was answered after %s, %d before it were not injected", took.Round(time.Millisecond), missed)
		if took > 5*time.Second {
			t.Errorf("still not injected after %s", took)
		}
		kubectl(t, "annotate", "namespace", bare, annotation+"-")
		time.Sleep(500 * time.Millisecond)
	}
}

// event finds an event about an object, newest last.
func event(t *testing.T, namespace, reason, kind, name string) *corev1.Event {
	t.Helper()
	var found *corev1.Event
	for _, e := range get[corev1.EventList](t, "-n", namespace, "events", "--field-selector", "reason="+reason).Items {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name {
			found = &e
		}
	}
	return found
}

// await repeats f until it has nothing to complain of, for as long as it may take.
func await(t *testing.T, limit time.Duration, f func() string) {
	t.Helper()
	start := time.Now()
	for {
		fault := f()
		if fault == "" {
			t.Logf("after %s", time.Since(start).Round(time.Second))
			return
		}
		if time.Since(start) > limit {
			t.Errorf("after %s: %s", limit, fault)
			return
		}
		time.Sleep(time.Second)
	}
}

// testReport waits for the metric and the events of bare pods, a minute at most.
func testReport(t *testing.T, pods int, since time.Time) {
	t.Helper()
	await(t, time.Minute-time.Since(since), func() string {
		if n := gauge(t, fmt.Sprintf("spile_webhook_bare_pods{namespace=%q}", bare)); n != float64(pods) {
			return fmt.Sprintf("spile_webhook_bare_pods is %v, want %d", n, pods)
		}
		for _, name := range []string{"free", "budgeted"} {
			if event(t, bare, "InjectionMissing", "Deployment", name) == nil {
				return "no event InjectionMissing on deployment " + name
			}
		}
		return ""
	})
}

func (c cluster) testEvents(t *testing.T) {
	c.apply(t, "skipped.yaml", map[string]any{"Namespace": bare})
	await(t, time.Minute, func() string {
		if event(t, bare, "Injected", "StatefulSet", "injected") == nil {
			return "no event Injected"
		}
		skipped := event(t, bare, "InjectionSkipped", "DaemonSet", "skipped")
		if skipped == nil || !strings.HasPrefix(skipped.Message, string(webhook.ReasonHostNetwork)+": ") {
			return fmt.Sprintf("event InjectionSkipped is %+v", skipped)
		}
		return ""
	})
	kubectl(t, "-n", bare, "delete", "statefulset/injected", "daemonset/skipped")
}
