//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/spile-dev/spile/webhook"
)

const (
	limitRange = "{apiVersion: v1, kind: LimitRange, metadata: {name: l}, spec: {limits: [{type: Container, "
	quota      = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: quota}, spec: {hard: {"
)

// namespaceShapes are what a namespace may demand of pods: labels, and objects
// that limit them.
var namespaceShapes = map[string]struct {
	labels  []string
	objects []string
}{
	"open":       {},
	"privileged": {labels: []string{"pod-security.kubernetes.io/enforce=privileged"}},
	"baseline":   {labels: []string{"pod-security.kubernetes.io/enforce=baseline"}},
	"restricted": {labels: []string{"pod-security.kubernetes.io/enforce=restricted"}},
	"warned":     {labels: []string{"pod-security.kubernetes.io/warn=restricted", "pod-security.kubernetes.io/audit=restricted"}},
	"defaulted": {objects: []string{limitRange + `default: {cpu: 500m, memory: 256Mi},
		defaultRequest: {cpu: 50m, memory: 64Mi}, max: {cpu: "64", memory: 64Gi}}]}}`}},
	"narrow": {objects: []string{limitRange + `default: {cpu: 500m, memory: 256Mi},
		defaultRequest: {cpu: 50m, memory: 128Mi}, min: {memory: 100Mi}}]}}`}},
	"quota": {objects: []string{quota + `requests.cpu: "4", requests.memory: 4Gi}}}`}},
	"nearly full": {objects: []string{
		limitRange + `defaultRequest: {memory: 20Mi}}]}}`,
		quota + `requests.memory: 48Mi}}}`,
	}},
}

// TestAdmission creates every golden pod of the webhook, as dry runs, in
// namespaces of every shape, bare and as the webhook decides: what a real API
// server admits without Spile it admits with it. It needs no webhook: pods are
// injected here.
func TestAdmission(t *testing.T) {
	sidecar := goldenSidecar(t)
	inputs, err := filepath.Glob(goldenCases + "/inject/*.in.yaml")
	if err != nil || len(inputs) < 100 {
		t.Fatalf("%d golden pods: %v", len(inputs), err)
	}
	a := newAPIServer(t)
	for shape, s := range namespaceShapes {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			namespace := "spile-e2e-shape-" + strings.ReplaceAll(shape, " ", "-")
			kubectl(t, "create", "namespace", namespace)
			t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
			limit(t, namespace, s.objects)
			for _, l := range s.labels {
				kubectl(t, "label", "namespace", namespace, l)
			}
			a.awaitNamespace(t, namespace)
			m := matrix{api: a, sidecar: sidecar, place: webhook.Place{
				Namespace:      &corev1.Namespace{ObjectMeta: get[corev1.Namespace](t, "namespace", namespace).ObjectMeta},
				LimitRanges:    get[corev1.LimitRangeList](t, "-n", namespace, "limitranges").Items,
				ResourceQuotas: get[corev1.ResourceQuotaList](t, "-n", namespace, "resourcequotas").Items,
			}, reasons: map[webhook.Reason]int{}}
			m.place.Namespace.Annotations = map[string]string{annotation: "enabled"}
			m.run(t, inputs)
			t.Logf("%d of %d pods are admitted; %v", m.admitted, len(inputs), m.reasons)
			if injected := m.reasons[webhook.Injected]; injected == 0 && slices.Contains([]string{"open", "privileged", "warned", "defaulted", "quota"}, shape) {
				t.Error("no pod was injected")
			}
		})
	}
}

// matrix is one namespace's part of the test.
type matrix struct {
	api     apiServer
	sidecar webhook.Config
	place   webhook.Place

	refusal  error // the last answer, nil if it was none
	admitted int
	reasons  map[webhook.Reason]int
}

func (m *matrix) run(t *testing.T, inputs []string) {
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		bare := goldenPod(t, input)
		if !m.admits(t, bare) {
			continue // not valid here anyway
		}
		d, decided := m.decide(t, bare, m.place)
		m.admitted++
		m.reasons[d.Reason]++
		if !m.admits(t, decided) {
			t.Errorf("%s: admitted bare, rejected as decided (%q): %v", name, d.Reason, m.refusal)
		}
		if !slices.Contains([]webhook.Reason{webhook.ReasonPodSecurity, webhook.ReasonLimitRange, webhook.ReasonResourceQuota}, d.Reason) {
			continue
		}
		anywhere := webhook.Place{Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: m.place.Namespace.Name, Annotations: m.place.Namespace.Annotations,
		}}}
		if f, forced := m.decide(t, bare, anywhere); f.Sidecar != nil && m.admits(t, forced) {
			t.Errorf("%s: not injected (%s: %s), though it would be admitted", name, d.Reason, d.Message)
		}
	}
}

// admits tries again while there is no answer.
func (m *matrix) admits(t *testing.T, pod []byte) bool {
	t.Helper()
	for range 5 {
		_, m.refusal = m.api.dryRunPod(m.place.Namespace.Name, pod)
		if m.refusal == nil || errors.Is(m.refusal, errAnswer) {
			return m.refusal == nil
		}
	}
	t.Fatal(m.refusal)
	return false
}

func (m *matrix) decide(t *testing.T, bare []byte, p webhook.Place) (webhook.Decision, []byte) {
	t.Helper()
	d, ops, err := webhook.Inject(bare, p, m.sidecar)
	if err != nil {
		t.Fatal(err)
	}
	return d, patched(t, bare, ops)
}

// goldenCases is where the webhook's golden pods are.
const goldenCases = "../../webhook/testdata"

// goldenSidecar is the sidecar of the webhook's golden pods.
func goldenSidecar(t *testing.T) webhook.Config {
	t.Helper()
	config, err := os.ReadFile(goldenCases + "/sidecar.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sidecar, err := webhook.ParseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return sidecar
}

// goldenPod is the pod of a golden input, without what the test's namespaces lack.
func goldenPod(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	docs := strings.Split(string(data), "\n---\n")
	raw, err := yaml.YAMLToJSON([]byte(docs[len(docs)-1]))
	if err != nil {
		t.Fatal(err)
	}
	var pod map[string]any
	if err := json.Unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	metadata := pod["metadata"].(map[string]any)
	delete(metadata, "namespace")
	if metadata["name"] == nil && metadata["generateName"] == nil {
		metadata["generateName"] = "golden-"
	}
	spec := pod["spec"].(map[string]any)
	for _, field := range []string{"serviceAccountName", "serviceAccount", "priorityClassName", "priority", "runtimeClassName", "nodeName"} {
		delete(spec, field)
	}
	if raw, err = json.Marshal(pod); err != nil {
		t.Fatal(err)
	}
	return raw
}
