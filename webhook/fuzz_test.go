package webhook

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// Whatever the pod is, the patch only adds, and never where something is.
func FuzzInject(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","annotations":{"spile.dev/inject":"enabled"}},"spec":{"containers":[{"name":"a"}]}}`))
	f.Add([]byte(`{"metadata":{"annotations":null},"spec":{"initContainers":null,"volumes":[]}}`))
	f.Add([]byte(`{"metadata":{"annotations":{"spile.dev/routes":"/{a}/b"}},"spec":{"initContainers":[{"name":"spile-sidecar"}]}}`))
	f.Add([]byte(`{"metadata":{"ownerReferences":[{"kind":"Job","name":"a-29921760","controller":true}]},"spec":{"resources":{"limits":{"cpu":"1"}}}}`))
	ns := &corev1.Namespace{}
	ns.Name = "shop"
	ns.Annotations = map[string]string{AnnotationInject: "enabled"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, ops, err := Inject(raw, Place{Namespace: ns}, testConfig())
		if err != nil {
			return
		}
		paths := []string{
			"/metadata/annotations", "/metadata/annotations/spile.dev~1status",
			"/spec/volumes", "/spec/volumes/-", "/spec/initContainers", "/spec/initContainers/-",
		}
		for _, op := range ops {
			if op.Op != "add" || !slices.Contains(paths, op.Path) {
				t.Errorf("operation %s on %s", op.Op, op.Path)
			}
		}
		patched := apply(t, raw, ops)
		_, again, err := Inject(patched, Place{Namespace: ns}, testConfig())
		if err != nil {
			t.Fatalf("second round: %v", err)
		}
		if len(again) > 0 {
			t.Errorf("second round has operations %v", again)
		}
		unchanged(t, raw, patched)
	})
}

// unchanged fails if something that was in before is not in after: members of
// objects may be added, items of arrays appended, null become a value.
func unchanged(t *testing.T, before, after []byte) {
	t.Helper()
	var b, a any
	if err := json.Unmarshal(before, &b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(after, &a); err != nil {
		t.Fatal(err)
	}
	if path := lost(b, a); path != "" {
		t.Errorf("%s changed", path)
	}
}

func lost(before, after any) string {
	switch b := before.(type) {
	case nil:
		return ""
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			return "/"
		}
		for k, v := range b {
			if k == AnnotationStatus {
				continue // ours: a forged one is overwritten
			}
			if p := lost(v, a[k]); p != "" {
				return "/" + k + p
			}
		}
	case []any:
		a, ok := after.([]any)
		if !ok || len(a) < len(b) {
			return "/"
		}
		for i := range b {
			if p := lost(b[i], a[i]); p != "" {
				return "/-" + p
			}
		}
	default:
		if before != after {
			return "/"
		}
	}
	return ""
}

// No annotation changes the sidecar outside these variables, and none of them
// can grow without bound or refer to another variable.
func FuzzAnnotations(f *testing.F) {
	for _, t := range tunings {
		f.Add(AnnotationPrefix+t.name, "1", "enabled")
	}
	f.Add("spile.dev/image", "evil", "enabled")
	f.Add("spile.dev/routes", "/users/{id},/a", "true")
	f.Add("spile.dev/capture-headers", "$(GOMEMLIMIT)", "enabled")
	f.Add("resource.opentelemetry.io/service.name", "$(PATH)", "enabled")
	f.Add("resource.opentelemetry.io/a.b", "c,d=e", "enabled")
	f.Add("kubectl.kubernetes.io/default-container", "cart", "enabled")

	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "cart", Image: "cart:1"}}}}
	ns := &corev1.Namespace{}
	ns.Name = "shop"
	pod.Annotations = map[string]string{AnnotationInject: "enabled"}
	plain := Decide(pod, Place{Namespace: ns}, testConfig()).Sidecar

	f.Fuzz(func(t *testing.T, key, value, inject string) {
		pod := pod.DeepCopy()
		pod.Annotations = map[string]string{AnnotationInject: inject, key: value}
		d := Decide(pod, Place{Namespace: ns}, testConfig())
		if d.Sidecar == nil {
			return
		}
		got := d.Sidecar.Container.DeepCopy()
		checkEnv(t, got.Env)
		got.Env = plain.Container.Env
		if diff := cmp.Diff(&plain.Container, got); diff != "" {
			t.Errorf("annotation %q=%q changes the container:\n%s", key, value, diff)
		}
		if diff := cmp.Diff(plain.Volumes, d.Sidecar.Volumes); diff != "" {
			t.Errorf("annotation %q=%q changes the volume:\n%s", key, value, diff)
		}
	})
}

// references are what Kubernetes expands in the variables that tenants influence.
var references = []string{"$(SPILE_POD_NAME)", "$(SPILE_POD_UID)", "$(SPILE_NODE_NAME)"}

// expand replaces references as the kubelet does.
func expand(v string) string {
	for _, r := range append(references, "$(SPILE_HOST_IP)") {
		v = strings.ReplaceAll(v, r, "x")
	}
	return strings.ReplaceAll(v, "$$", "$")
}

func checkEnv(t *testing.T, env []corev1.EnvVar) {
	t.Helper()
	var plain []EnvVar
	for _, e := range env {
		plain = append(plain, EnvVar{e.Name, expand(e.Value)})
	}
	if err := sidecarAccepts(plain); err != nil {
		t.Errorf("the sidecar does not accept its environment: %v", err)
	}
	allowed := []string{
		"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_LOG_LEVEL",
		"SPILE_ROUTES", "SPILE_CAPTURE_HEADERS", "SPILE_EXCLUDE_PORTS", "SPILE_EXCLUDE_PATHS",
	}
	tenants := append([]string{envServiceName, envResourceAttributes}, allowed...)
	seen := map[string]bool{}
	for _, e := range env {
		if seen[e.Name] {
			t.Errorf("%s is set twice", e.Name)
		}
		seen[e.Name] = true
		if !slices.Contains(tenants, e.Name) {
			continue
		}
		if len(e.Value) > 64<<10 {
			t.Errorf("%s has %d bytes", e.Name, len(e.Value))
		}
		v := e.Value
		if e.Name == envResourceAttributes || e.Name == envServiceName {
			for _, r := range references {
				v = strings.ReplaceAll(v, r, "")
			}
			v = strings.ReplaceAll(v, "$$", "")
		}
		if strings.Contains(v, "$(") {
			t.Errorf("%s=%q can be expanded", e.Name, e.Value)
		}
	}
	for _, e := range testConfig().Env {
		got := slices.IndexFunc(env, func(o corev1.EnvVar) bool { return o.Name == e.Name })
		if got < 0 || !slices.Contains(allowed, e.Name) && env[got].Value != e.Value {
			t.Errorf("the operator's %s is lost", e.Name)
		}
	}
}
