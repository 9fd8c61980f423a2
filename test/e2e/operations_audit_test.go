//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/spile-dev/spile/webhook"
)

// scrape returns the metrics of every replica of the webhook, line by line.
func scrape(t *testing.T) (lines []string) {
	t.Helper()
	for _, p := range get[corev1.PodList](t, "-n", release, "pods").Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		out, err := command("", "kubectl", "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:8080/proxy/metrics", release, p.Name))
		if err != nil {
			t.Logf("not scraped: %v", err) // it may have ended meanwhile
			continue
		}
		for line := range strings.Lines(out) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// gauge is the sum of a series over all replicas.
func gauge(t *testing.T, series string) float64 {
	t.Helper()
	return total(t, scrape(t), series)
}

func total(t *testing.T, lines []string, series string) (sum float64) {
	t.Helper()
	for _, line := range lines {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}

// testMetrics: each reason has a series from the start, admissions are counted
// and timed.
func testMetrics(t *testing.T) {
	lines := scrape(t)
	for _, r := range webhook.Reasons() {
		if !slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, fmt.Sprintf("spile_webhook_admissions_total{reason=%q,result=\"skipped\"} ", r))
		}) {
			t.Errorf("no series for reason %s", r)
		}
	}
	counted := total(t, lines, `spile_webhook_admissions_total{reason="",result="injected"}`)
	timed := total(t, lines, `spile_webhook_admission_duration_seconds_count{result="injected"}`)
	took := total(t, lines, `spile_webhook_admission_duration_seconds_sum{result="injected"}`)
	if counted == 0 || counted != timed {
		t.Errorf("%v injected, %v of them timed", counted, timed)
	}
	t.Logf("%v injections took %.2f ms each", timed, 1000*took/timed)
}

// testDowntime creates a hundred pods without a webhook: they are created, and
// reported within a minute of its return.
func (c cluster) testDowntime(t *testing.T) {
	const pods = 100
	kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=0")
	kubectl(t, "-n", release, "wait", "pod", "--all", "--for=delete", "--timeout=90s")
	var manifest strings.Builder
	for i := range pods {
		fmt.Fprintf(&manifest, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: away-%d, labels: {app: away}}\nspec:\n"+
			"  nodeSelector: {spile.dev/none: none}\n  containers: [{name: app, image: \"app:1\"}]\n", i)
	}
	must(t, manifest.String(), "kubectl", "-n", bare, "create", "-f", "-")
	kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=2")
	kubectl(t, "-n", release, "rollout", "status", "deployment/spile-webhook", "--timeout=120s")
	testReport(t, 4+pods, time.Now())
	if event(t, bare, "InjectionMissing", "Pod", "away-7") == nil {
		t.Error("no event on a pod without owner")
	}
	kubectl(t, "-n", bare, "delete", "pod", "-l", "app=away", "--wait=false", "--grace-period=0", "--force")
}

// testUpgrade: Helm leaves the certificates alone, and running pods too.
func testUpgrade(t *testing.T) {
	bundle := func() string {
		c := get[admissionregistrationv1.MutatingWebhookConfiguration](t, "mutatingwebhookconfiguration", "spile-webhook")
		return string(c.Webhooks[0].ClientConfig.CABundle)
	}
	secret := func() string {
		return string(get[corev1.Secret](t, "-n", release, "secret", "spile-webhook-cert").Data["tls.crt"])
	}
	ca, cert, pods := bundle(), secret(), uids(t)
	for _, args := range [][]string{install("podAnnotations.round=one", "logLevel=debug"), {"rollback", "spile", "-n", release, "--wait"}} {
		must(t, "", "helm", args...)
		if ca == "" || bundle() != ca || secret() != cert {
			t.Errorf("helm %s changed the certificates", args[0])
		}
	}
	if now := uids(t); !slices.Equal(now, pods) {
		t.Errorf("running pods %v, were %v", now, pods)
	}
}

// testRestarts: pods that may be evicted become injected, one after the other;
// those of a budget that allows no disruption stay.
func testRestarts(t *testing.T) {
	const interval = 15 * time.Second
	protected := get[corev1.PodList](t, "-n", bare, "pods", "-l", "app=budgeted").Items
	must(t, "", "helm", install("audit.restart.enabled=true", "audit.restart.interval="+interval.String(), "audit.interval=2s")...)
	await(t, 3*time.Minute, func() string {
		injected := 0
		pods := get[corev1.PodList](t, "-n", bare, "pods", "-l", "app=free").Items
		for _, p := range pods {
			if sidecar(p) != nil && ready(p) {
				injected++
			}
		}
		if injected != 2 || len(pods) != 2 {
			return fmt.Sprintf("%d of %d pods of free are injected", injected, len(pods))
		}
		return ""
	})
	var created []time.Time
	for _, p := range get[corev1.PodList](t, "-n", bare, "pods", "-l", "app=free").Items {
		created = append(created, p.CreationTimestamp.Time)
	}
	if apart := created[0].Sub(created[1]).Abs(); apart < interval-2*time.Second {
		t.Errorf("two pods were replaced %s apart, want at least %s", apart, interval)
	}
	time.Sleep(2 * interval)
	for _, was := range protected {
		now := get[corev1.Pod](t, "-n", bare, "pod", was.Name)
		if now.UID != was.UID || now.DeletionTimestamp != nil {
			t.Errorf("pod %s was evicted against its budget", was.Name)
		}
	}
	await(t, 30*time.Second, func() string {
		lines := scrape(t)
		evictions, left := total(t, lines, "spile_webhook_evictions_total"), total(t, lines, fmt.Sprintf("spile_webhook_bare_pods{namespace=%q}", bare))
		if evictions != 2 || left != 2 {
			return fmt.Sprintf("%v evictions, want 2; %v bare pods are left, want the budget's 2", evictions, left)
		}
		return ""
	})
}
