//go:build e2e && chaos

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const certManager = "spile-e2e-cert-manager"

// TestCertManager has cert-manager make the webhook's certificates, and make new
// ones while pods are created: each must be injected. CERT_MANAGER_IMAGE has its
// controllers and its cainjector, CERT_MANAGER_CRDS is the folder of its
// CustomResourceDefinitions (make certmanager-test).
func TestCertManager(t *testing.T) {
	image, crds := os.Getenv("CERT_MANAGER_IMAGE"), os.Getenv("CERT_MANAGER_CRDS")
	if image == "" || crds == "" {
		t.Skip("CERT_MANAGER_IMAGE or CERT_MANAGER_CRDS is not set; make certmanager-test sets them")
	}
	prepare(t, chaos, certManager)
	t.Cleanup(func() {
		if err := uninstall(); err != nil { // first, while its objects have a meaning
			t.Error(err)
		}
		kubectl(t, "delete", "clusterrolebinding", certManager, "--ignore-not-found")
		kubectl(t, "delete", "--ignore-not-found", "-f", crds)
	})
	kubectl(t, "apply", "--server-side", "-f", crds)
	cluster{}.apply(t, "certmanager.yaml", map[string]any{"Namespace": certManager, "Image": image})
	for _, part := range []string{"controller", "cainjector"} {
		kubectl(t, "-n", certManager, "rollout", "status", "deployment/"+part, "--timeout=120s")
	}
	must(t, "", "helm", install("certManager.enabled=true", "certManager.duration=1h", "certManager.renewBefore=30m")...)
	kubectl(t, "create", "namespace", chaos)
	kubectl(t, "annotate", "namespace", chaos, annotation+"=enabled")
	(cluster{values: map[string]any{"AppImage": "app:1"}}).awaitInjection(t, chaos)
	first := served(t)

	c := newCreator(t)
	r := c.run(t, 100, few, func(t *testing.T, _ int) {
		renew(t)
		start := time.Now()
		for fresh := false; !fresh; time.Sleep(2 * time.Second) {
			fresh = true
			for pod, serial := range served(t) {
				fresh = fresh && serial != first[pod]
			}
			if time.Since(start) > 4*time.Minute {
				t.Error("a replica still serves its first certificate")
				return
			}
		}
		t.Logf("every replica serves the new certificate %s after it was asked for", time.Since(start).Round(time.Second))
	})
	t.Logf("%d creations meanwhile, %d rejected, %d injected", len(r.took), r.rejected, r.injected)
	if r.rejected > 0 || r.injected != len(r.took) {
		t.Errorf("want all injected; first rejection: %s", r.first)
	}
	for _, p := range get[corev1.PodList](t, "-n", release, "pods", "-l", "app.kubernetes.io/component=webhook").Items {
		if restarts(p) != 0 {
			t.Errorf("%s restarted", p.Name)
		}
	}
}

// renew asks for a new certificate as cmctl renew does.
func renew(t *testing.T) {
	t.Helper()
	certificate := get[map[string]any](t, "-n", release, "certificate", "spile-webhook")
	status, _ := certificate["status"].(map[string]any)
	conditions, _ := status["conditions"].([]any)
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": append(conditions, map[string]any{
		"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test", "lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
	})}})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", release, "patch", "certificate", "spile-webhook", "--subresource=status", "--type=merge", "-p", string(patch))
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`)

// served returns the serial number of the certificate that each replica serves.
func served(t *testing.T) map[string]string {
	t.Helper()
	serials := map[string]string{}
	for _, p := range get[corev1.PodList](t, "-n", release, "pods", "-l", "app.kubernetes.io/component=webhook").Items {
		serials[p.Name] = servedBy(t, p.Name)
	}
	return serials
}

func servedBy(t *testing.T, pod string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", "-n", release, "port-forward", "pod/"+pod, ":10250")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	for s := bufio.NewScanner(out); s.Scan(); {
		m := forwarding.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		// The API server verifies it; here its number is of interest alone.
		conn, err := tls.Dial("tcp", m[1], &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	t.Fatalf("no connection to %s", pod)
	return ""
}
