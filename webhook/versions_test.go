package webhook

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The pods of k8s.io/api's own compatibility tests have every field that the
// API has, in this version and in the two before: each survives injection.
func TestEveryFieldOfEveryVersionSurvives(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	pods, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "testdata", "*", "core.v1.Pod.json"))
	if err != nil || len(pods) < 2 {
		t.Fatalf("pods %q: %v", pods, err)
	}
	for _, path := range pods {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			pod, patched := injectEveryField(t, data)
			if !strings.Contains(string(patched), `"`+ContainerName+`"`) {
				t.Fatalf("not injected: %s", patched)
			}
			unchanged(t, pod, patched)
		})
	}
}

// injectEveryField injects a pod after taking from it what rules that out.
func injectEveryField(t *testing.T, data []byte) (pod, patched []byte) {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	spec := v["spec"].(map[string]any)
	delete(spec, "hostNetwork")
	delete(spec, "resources")
	delete(spec["os"].(map[string]any), "name")
	spec["hostUsers"] = true
	v["metadata"].(map[string]any)["annotations"] = map[string]any{AnnotationInject: "enabled"}
	pod, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := readCase(t, "testdata/inject/bare_pod.in.yaml")
	_, ops, err := Inject(pod, p, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	return pod, apply(t, pod, ops)
}
