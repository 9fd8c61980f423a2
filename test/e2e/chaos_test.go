//go:build e2e && chaos

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	chaos = "spile-e2e-chaos"
	// creations at a time: few where the time of each is of interest, many where
	// they wait for the webhook.
	few, many = 2, 16
)

// TestChaos creates pods, as dry runs through the whole of admission, while the
// webhook is installed, upgraded, killed and away, rotates its certificates every
// few seconds, hangs and answers garbage. None may be rejected; how many were injected and how
// long it took is told for each phase. CHAOS_CREATIONS is their number (10000).
func TestChaos(t *testing.T) {
	total, err := strconv.Atoi(env("CHAOS_CREATIONS", "10000"))
	if err != nil || total < 100 {
		t.Fatalf("CHAOS_CREATIONS=%s: want a number from 100", os.Getenv("CHAOS_CREATIONS"))
	}
	prepare(t, chaos)
	kubectl(t, "create", "namespace", chaos)
	kubectl(t, "annotate", "namespace", chaos, annotation+"=enabled")
	c := newCreator(t)

	t.Logf("%-26s %9s %9s %9s %9s %9s %9s", "phase", "creations", "rejected", "injected", "p50", "p99", "max")
	phase := func(name string, share, workers int, disturb func(t *testing.T, round int)) result {
		t.Helper()
		r := c.run(t, total*share/100, workers, disturb)
		t.Logf("%-26s %9d %9d %9d %9s %9s %9s", name, len(r.took), r.rejected, r.injected, r.quantile(.5), r.quantile(.99), r.quantile(1))
		if r.rejected > 0 {
			t.Errorf("%s: %d creations were rejected, the first: %s", name, r.rejected, r.first)
		}
		return r
	}
	phase("no webhook", 5, few, nil)
	phase("install and uninstall", 5, few, func(t *testing.T, _ int) {
		must(t, "", "helm", install()...)
		must(t, "", "helm", "uninstall", "spile", "-n", release, "--wait")
	})
	must(t, "", "helm", install()...)
	(cluster{values: map[string]any{"AppImage": "app:1"}}).awaitInjection(t, chaos)
	if r := phase("healthy", 20, few, nil); r.injected != len(r.took) {
		t.Errorf("healthy: %d of %d were injected", r.injected, len(r.took))
	}
	phase("upgrade and rollback", 20, few, func(t *testing.T, round int) {
		must(t, "", "helm", install("podAnnotations.round=r"+strconv.Itoa(round))...)
		must(t, "", "helm", "rollback", "spile", "-n", release, "--wait")
	})
	shortLived(t)
	if r := phase("certificates of 30 s", 20, few, func(*testing.T, int) { time.Sleep(45 * time.Second) }); r.injected != len(r.took) {
		t.Errorf("certificates: %d of %d were injected", r.injected, len(r.took))
	}
	phase("killed every second", 11, many, func(t *testing.T, _ int) {
		kubectl(t, "-n", release, "delete", "pod", "-l", "app.kubernetes.io/component=webhook", "--force", "--grace-period=0")
		time.Sleep(time.Second)
	})
	kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=0")
	kubectl(t, "-n", release, "wait", "pod", "--all", "--for=delete", "--timeout=90s")
	phase("refused", 9, few, nil)
	for _, answer := range []string{"error", "garbage", "empty", "other"} {
		c.impersonate(t, answer)
		phase("answers: "+answer, 2, few, nil)
	}
	c.impersonate(t, "hang")
	phase("answers: hang", 1, many, nil)
	blackhole(t)
	phase("no answer to packets", 1, many, nil)
}

// service changes the webhook's Service.
func service(t *testing.T, patch string) {
	t.Helper()
	kubectl(t, "-n", release, "patch", "service", "spile-webhook", "-p", patch)
	time.Sleep(2 * time.Second)
}

// shortLived has the webhook make certificates that live half a minute.
func shortLived(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=0")
	kubectl(t, "-n", release, "wait", "pod", "--all", "--for=delete", "--timeout=90s")
	kubectl(t, "-n", release, "patch", "secret", "spile-webhook-cert", "--type=json", "-p", `[{"op":"remove","path":"/data"}]`)
	kubectl(t, "-n", release, "set", "env", "deployment/spile-webhook", "SPILE_WEBHOOK_CERT_VALIDITY=30s", "SPILE_WEBHOOK_CA_VALIDITY=90s")
	kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=2")
	kubectl(t, "-n", release, "rollout", "status", "deployment/spile-webhook", "--timeout=120s")
	(cluster{values: map[string]any{"AppImage": "app:1"}}).awaitInjection(t, chaos)
}

// blackhole has the Service lead to an address where nobody is.
func blackhole(t *testing.T) {
	t.Helper()
	service(t, `{"spec":{"selector":{"nobody":"here"}}}`)
	address := env("CHAOS_BLACKHOLE", "")
	if address == "" {
		// Next to the pods: packets to documentation addresses are refused by some routers.
		ip := get[corev1.PodList](t, "-n", "kube-system", "pods", "-l", "k8s-app=kube-dns").Items[0].Status.PodIP
		address = ip[:strings.LastIndexByte(ip, '.')] + ".251"
	}
	must(t, fmt.Sprintf(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
		"metadata":{"name":"blackhole","namespace":%q,"labels":{"kubernetes.io/service-name":"spile-webhook"}},
		"ports":[{"name":"https","port":443}],"endpoints":[{"addresses":[%q]}]}`, release, address), "kubectl", "apply", "-f", "-")
	time.Sleep(2 * time.Second)
}

// creator creates pods as fast as the API server takes them.
type creator struct {
	api  apiServer
	body []byte
}

func newCreator(t *testing.T) *creator {
	t.Helper()
	c := &creator{newAPIServer(t), []byte(
		`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"chaos-"},"spec":{"containers":[{"name":"app","image":"app:1"}]}}`)}
	c.api.awaitNamespace(t, chaos)
	return c
}

func (c *creator) create() (injected bool, err error) {
	pod, err := c.api.dryRunPod(chaos, c.body)
	return sidecar(pod) != nil, err
}

// result of a phase.
type result struct {
	took               []time.Duration // sorted
	rejected, injected int
	first              string // rejection
}

func (r result) quantile(q float64) string {
	return r.took[int(q*float64(len(r.took)-1))].Round(100 * time.Microsecond).String()
}

// run creates at least n pods, workers of them at a time, and goes on while disturb, called again and
// again meanwhile, is in its last round.
func (c *creator) run(t *testing.T, n, workers int, disturb func(t *testing.T, round int)) (r result) {
	t.Helper()
	var mutex sync.Mutex
	var group sync.WaitGroup
	disturbed := disturb == nil
	for range workers {
		group.Go(func() {
			for {
				mutex.Lock()
				enough := len(r.took) >= n && disturbed
				mutex.Unlock()
				if enough {
					return
				}
				start := time.Now()
				injected, err := c.create()
				took := time.Since(start)
				mutex.Lock()
				r.took = append(r.took, took)
				if injected {
					r.injected++
				}
				if err != nil {
					if r.rejected++; r.rejected == 1 {
						r.first = err.Error()
					}
				}
				mutex.Unlock()
			}
		})
	}
	for round := 0; !disturbed; round++ {
		disturb(t, round)
		mutex.Lock()
		disturbed = len(r.took) >= n
		mutex.Unlock()
	}
	group.Wait()
	slices.Sort(r.took)
	return r
}
