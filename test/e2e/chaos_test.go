//go:build e2e && chaos

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	chaos = "spile-e2e-chaos"
	// creations at a time: few where the time of each is of interest, many where
	// they wait for the webhook.
	few, many = 2, 16
)

// TestChaos creates pods, as dry runs through the whole of admission, while the
// webhook is killed, hangs, answers garbage, rotates its certificates every few
// seconds and is upgraded. None may be rejected; how many were injected and how
// long it took is told for each phase. CHAOS_CREATIONS is their number (10000).
func TestChaos(t *testing.T) {
	total, err := strconv.Atoi(env("CHAOS_CREATIONS", "10000"))
	if err != nil || total < 100 {
		t.Fatalf("CHAOS_CREATIONS=%s: want a number from 100", os.Getenv("CHAOS_CREATIONS"))
	}
	if out := must(t, "", "helm", "list", "-n", release, "-q"); out != "" {
		t.Fatalf("helm release %s is installed in namespace %s already: uninstall it first", strings.TrimSpace(out), release)
	}
	t.Cleanup(func() {
		if _, err := command("", "helm", "uninstall", "spile", "-n", release, "--ignore-not-found", "--wait"); err != nil {
			t.Error(err)
		}
		kubectl(t, "delete", "namespace", release, chaos, "--ignore-not-found", "--timeout=180s")
	})
	t.Run("load images", func(t *testing.T) { loadImages(t, env("E2E_LOAD", ""), env("E2E_IMAGES", "../../bin/images")) })
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
	phase("no webhook", 10, few, nil)
	install := []string{
		"upgrade", "--install", "spile", "../../charts/spile", "-n", release, "--create-namespace",
		"--set", "otlp.endpoint=http://collector:4318", "--set", "image.tag=" + env("E2E_TAG", "e2e"), "--set", "sidecar.image.tag=" + env("E2E_TAG", "e2e"),
		"--wait", "--timeout", "180s",
	}
	must(t, "", "helm", install...)
	(cluster{values: map[string]any{"AppImage": "app:1"}}).awaitInjection(t, chaos)
	if r := phase("healthy", 20, few, nil); r.injected != len(r.took) {
		t.Errorf("healthy: %d of %d were injected", r.injected, len(r.took))
	}
	phase("upgrade and rollback", 20, few, func(t *testing.T, round int) {
		must(t, "", "helm", append(slices.Clone(install), "--set-string", "podAnnotations.round="+strconv.Itoa(round))...)
		must(t, "", "helm", "rollback", "spile", "-n", release, "--wait")
	})
	shortLived(t)
	if r := phase("certificates of 30 s", 20, few, func(*testing.T, int) { time.Sleep(45 * time.Second) }); r.injected != len(r.took) {
		t.Errorf("certificates: %d of %d were injected", r.injected, len(r.took))
	}
	phase("killed every second", 10, many, func(t *testing.T, _ int) {
		kubectl(t, "-n", release, "delete", "pod", "-l", "app.kubernetes.io/component=webhook", "--force", "--grace-period=0")
		time.Sleep(time.Second)
	})
	service(t, `{"spec":{"ports":[{"name":"https","port":443,"targetPort":"metrics"}]}}`)
	phase("garbage answers", 10, few, nil)
	service(t, `{"spec":{"ports":[{"name":"https","port":443,"targetPort":"https"}]}}`)
	kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=0")
	kubectl(t, "-n", release, "wait", "pod", "--all", "--for=delete", "--timeout=90s")
	phase("refused", 9, few, nil)
	blackhole(t)
	phase("hanging", 1, many, nil)
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
	client *http.Client
	url    string
	body   []byte
}

func newCreator(t *testing.T) *creator {
	t.Helper()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &creator{client, strings.TrimSuffix(base.String(), "/") + "/api/v1/namespaces/" + chaos + "/pods?dryRun=All", []byte(
		`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"chaos-"},"spec":{"containers":[{"name":"app","image":"app:1"}]}}`)}
	for range 100 { // until the namespace has its service account
		if _, err := c.create(); err == nil {
			return c
		}
		time.Sleep(100 * time.Millisecond)
	}
	_, err = c.create()
	t.Fatal(err)
	return nil
}

func (c *creator) create() (injected bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(c.body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusCreated {
		return false, fmt.Errorf("status %d: %s", resp.StatusCode, data)
	}
	var pod corev1.Pod
	if err := json.Unmarshal(data, &pod); err != nil {
		return false, err
	}
	return sidecar(pod) != nil, nil
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
