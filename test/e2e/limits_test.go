//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/spile-dev/spile/webhook"
)

// TestLimits holds the decisions about LimitRanges and ResourceQuotas against
// the admission plugins of a real API server, by dry runs, for each golden case
// of the webhook that has some: a pod that is admitted without the webhook is
// admitted with it, and one that was not injected for their sake would have been
// rejected with the sidecar. It needs no webhook: pods are injected here.
func TestLimits(t *testing.T) {
	sidecar := goldenSidecar(t)
	const class = "priorityclass/high" // of a quota's scope
	if _, err := command("", "kubectl", "get", class); err != nil {
		kubectl(t, "create", "priorityclass", "high", "--value=1")
		t.Cleanup(func() { kubectl(t, "delete", class) })
	}
	for _, pattern := range []string{"limit_range_*.in.yaml", "quota_*.in.yaml", "pod_resources_*.in.yaml"} {
		inputs, err := filepath.Glob(filepath.Join(goldenCases, "inject", pattern))
		if err != nil || len(inputs) == 0 {
			t.Fatalf("no inputs %s: %v", pattern, err)
		}
		for _, input := range inputs {
			t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
				t.Parallel()
				checkLimits(t, input, sidecar)
			})
		}
	}
}

func checkLimits(t *testing.T, input string, sidecar webhook.Config) {
	data, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	namespace := "spile-e2e-limits-" + strings.ReplaceAll(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), "_", "-")
	namespace = strings.TrimRight(namespace[:min(len(namespace), 63)], "-")
	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
	place := webhook.Place{Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Annotations: map[string]string{annotation: "enabled"},
	}}}
	docs := strings.Split(string(data), "\n---\n")
	limit(t, namespace, docs[1:len(docs)-1])
	place.LimitRanges = get[corev1.LimitRangeList](t, "-n", namespace, "limitranges").Items
	place.ResourceQuotas = get[corev1.ResourceQuotaList](t, "-n", namespace, "resourcequotas").Items
	pod := awaitServiceAccount(t, namespace, docs[len(docs)-1])
	if pod == nil {
		t.Log("the API server rejects the pod without the sidecar, too")
		return
	}
	d, injected := injectInto(t, pod, place, sidecar)
	if d.Sidecar != nil {
		if out, err := dryRunRaw(namespace, injected); err != nil {
			t.Errorf("admitted without the sidecar, rejected with it: %v%s", err, out)
		}
		return
	}
	_, forced := injectInto(t, pod, webhook.Place{Namespace: place.Namespace}, sidecar)
	if forced == nil {
		return // the pod's own resources are the reason
	}
	if _, err := dryRunRaw(namespace, forced); err == nil {
		t.Errorf("not injected (%s: %s), though the API server admits it injected", d.Reason, d.Message)
	}
}

// limit makes LimitRanges and ResourceQuotas and waits until the latter are counted.
func limit(t *testing.T, namespace string, docs []string) {
	t.Helper()
	for _, doc := range docs {
		must(t, doc, "kubectl", "-n", namespace, "apply", "-f", "-")
		if !strings.Contains(doc, "kind: ResourceQuota") {
			continue
		}
		for range 60 {
			if q := get[corev1.ResourceQuota](t, "-n", namespace, "resourcequota", "quota"); len(q.Status.Hard) == len(q.Spec.Hard) {
				break
			}
			time.Sleep(250 * time.Millisecond)
		}
		var q corev1.ResourceQuota
		if err := yaml.Unmarshal([]byte(doc), &q); err != nil {
			t.Fatal(err)
		}
		if len(q.Status.Used) > 0 {
			used, err := json.Marshal(map[string]any{"status": map[string]any{"used": q.Status.Used}})
			if err != nil {
				t.Fatal(err)
			}
			kubectl(t, "-n", namespace, "patch", "resourcequota", "quota", "--subresource=status", "--type=merge", "-p", string(used))
		}
	}
}

// awaitServiceAccount returns the pod as a webhook sees it, after the built-in
// plugins, or nil if the API server rejects it.
func awaitServiceAccount(t *testing.T, namespace, manifest string) []byte {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		_, err = dryRunRaw(namespace, raw)
		if err == nil {
			return raw
		}
		if !strings.Contains(err.Error(), "serviceaccount") && !strings.Contains(err.Error(), "status unknown for quota") {
			t.Log(err)
			return nil
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Fatal(err)
	return nil
}

func injectInto(t *testing.T, raw []byte, place webhook.Place, c webhook.Config) (webhook.Decision, []byte) {
	t.Helper()
	d, ops, err := webhook.Inject(raw, place, c)
	if err != nil {
		t.Fatal(err)
	}
	if d.Sidecar == nil {
		return d, nil
	}
	return d, patched(t, raw, ops)
}

func patched(t *testing.T, raw []byte, ops []webhook.Operation) []byte {
	t.Helper()
	if len(ops) == 0 {
		return raw
	}
	encoded, err := json.Marshal(ops)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(encoded)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(raw)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func dryRunRaw(namespace string, pod []byte) (string, error) {
	return command(string(pod), "kubectl", "-n", namespace, "create", "--dry-run=server", "-f", "-")
}
