package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/spile-dev/spile/internal/golden"
)

// testConfig is what testdata/sidecar.yaml says.
var testConfig = sync.OnceValue(func() Config {
	data, err := os.ReadFile("testdata/sidecar.yaml")
	if err != nil {
		panic(err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		panic(err)
	}
	c.Version = "0.1.0"
	return c
})

// Each testdata/inject/*.in.yaml is a Namespace, what limits it, and a Pod; the golden file is
// the pod as it is created, with the decision above it. The second round must
// find nothing to do.
func TestInjectGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/inject/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			p, raw := readCase(t, input)
			d, once := inject(t, raw, p)
			if again, twice := inject(t, once, p); !bytes.Equal(once, twice) {
				t.Errorf("second round (reason %q) changes the pod: %s", again.Reason, cmp.Diff(string(once), string(twice)))
			}
			golden.Compare(t, strings.TrimSuffix(input, ".in.yaml")+".golden.yaml", string(render(t, d, once)))
		})
	}
}

// readCase reads a Namespace, what else is in it and, last, a Pod.
func readCase(t *testing.T, path string) (Place, []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := Place{Namespace: &corev1.Namespace{}}
	docs := bytes.Split(data, []byte("\n---\n"))
	for _, doc := range docs[:len(docs)-1] {
		var v any = p.Namespace
		switch {
		case bytes.Contains(doc, []byte("kind: LimitRange")):
			p.LimitRanges = append(p.LimitRanges, corev1.LimitRange{})
			v = &p.LimitRanges[len(p.LimitRanges)-1]
		case bytes.Contains(doc, []byte("kind: ResourceQuota")):
			p.ResourceQuotas = append(p.ResourceQuotas, corev1.ResourceQuota{})
			v = &p.ResourceQuotas[len(p.ResourceQuotas)-1]
		}
		if err := yaml.UnmarshalStrict(doc, v); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := yaml.YAMLToJSON(docs[len(docs)-1])
	if err != nil {
		t.Fatal(err)
	}
	return p, raw
}

// inject returns the patched pod in canonical form.
func inject(t *testing.T, raw []byte, p Place) (Decision, []byte) {
	t.Helper()
	d, ops, err := Inject(raw, p, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	if (d.Sidecar != nil) != (d.Reason == Injected) {
		t.Errorf("reason %q with sidecar %v", d.Reason, d.Sidecar)
	}
	return d, canonical(t, apply(t, raw, ops))
}

func apply(t *testing.T, raw []byte, ops []Operation) []byte {
	t.Helper()
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
		t.Fatalf("applying %s: %v", encoded, err)
	}
	return out
}

func canonical(t *testing.T, raw []byte) []byte {
	t.Helper()
	var v any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func render(t *testing.T, d Decision, pod []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	reason := "injected"
	if d.Reason != Injected {
		reason = string(d.Reason)
	}
	fmt.Fprintf(&b, "# %s\n", reason)
	for _, w := range d.Warnings {
		fmt.Fprintf(&b, "# warning: %s\n", w)
	}
	out, err := yaml.JSONToYAML(pod)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(out)
	return b.Bytes()
}

// Every reason has a golden case, named after it or listed as its header.
func TestEveryReasonHasAGoldenCase(t *testing.T) {
	goldens, err := filepath.Glob("testdata/inject/*.golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Reason]bool{}
	for _, path := range goldens {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(data), "\n")
		seen[Reason(strings.TrimPrefix(first, "# "))] = true
	}
	for _, r := range Reasons() {
		// The version is no document, see TestOldKubernetes, and a megabyte is no golden.
		if r == ReasonNoNativeSidecars || r == ReasonTooLarge {
			continue
		}
		if !seen[r] {
			t.Errorf("no golden case ends with reason %q", r)
		}
	}
}

func TestOldKubernetes(t *testing.T) {
	p, raw := readCase(t, "testdata/inject/job.in.yaml")
	for minor, want := range map[int]Reason{0: Injected, 28: ReasonNoNativeSidecars, 29: Injected, 37: Injected} {
		p.Minor = minor
		if d, _ := inject(t, raw, p); d.Reason != want {
			t.Errorf("Kubernetes 1.%d: reason %q, want %q", minor, d.Reason, want)
		}
	}
}

// Where a namespace does not say, the cluster's default level is in force.
func TestPodSecurityDefault(t *testing.T) {
	for file, want := range map[string]map[string]Reason{
		"bare_pod":                {"": Injected, "privileged": Injected, "baseline": ReasonPodSecurity, "restricted": ReasonPodSecurity},
		"pod_security":            {"": ReasonPodSecurity, "privileged": ReasonPodSecurity},
		"pod_security_privileged": {"baseline": Injected},
	} {
		p, raw := readCase(t, "testdata/inject/"+file+".in.yaml")
		for level, want := range want {
			c := testConfig()
			c.PodSecurityDefault = level
			if d, _, err := Inject(raw, p, c); err != nil || d.Reason != want {
				t.Errorf("%s, default %q: reason %q (%v), want %q", file, level, d.Reason, err, want)
			}
		}
	}
}

func TestInjectRefusesWhatIsNoPod(t *testing.T) {
	ns := &corev1.Namespace{}
	ns.Name = "shop"
	ns.Annotations = map[string]string{AnnotationInject: "enabled"}
	for _, raw := range []string{
		``, `[]`, `"pod"`, `{`, `{"metadata":{"annotations":[]}}`, `{"spec":{"containers":{}}}`,
		`{"metadata":{}}`, `{"spec":{}}`, `{"metadata":null,"spec":{}}`,
	} {
		if _, ops, err := Inject([]byte(raw), Place{Namespace: ns}, testConfig()); err == nil {
			t.Errorf("Inject(%s) = %v, want an error", raw, ops)
		}
	}
}

// A pod whose annotations fill the limit of 256 KiB is injected without a status.
func TestStatusDoesNotExceedAnnotationLimit(t *testing.T) {
	ns := &corev1.Namespace{}
	ns.Name = "shop"
	pod := map[string]any{
		"metadata": map[string]any{"annotations": map[string]string{
			AnnotationInject: "enabled",
			"big":            strings.Repeat("x", 256<<10-len(AnnotationInject)-len("enabled")-len("big")),
		}},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "cart"}}},
	}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	_, ops, err := Inject(raw, Place{Namespace: ns}, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if strings.HasPrefix(op.Path, "/metadata") {
			t.Errorf("unexpected operation on %s", op.Path)
		}
	}
	if len(ops) != 2 {
		t.Errorf("got %d operations, want volume and container", len(ops))
	}
}

func BenchmarkInject(b *testing.B) {
	raw := []byte(`{"metadata":{"generateName":"cart-7d5b9c6f4d-","labels":{"pod-template-hash":"7d5b9c6f4d"},"annotations":{"spile.dev/inject":"enabled"},
		"ownerReferences":[{"kind":"ReplicaSet","name":"cart-7d5b9c6f4d","controller":true}]},"spec":{"containers":[{"name":"cart","image":"cart:1","ports":[{"containerPort":8080}]}]}}`)
	ns := &corev1.Namespace{}
	ns.Name = "shop"
	c := testConfig()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Inject(raw, Place{Namespace: ns}, c); err != nil {
			b.Fatal(err)
		}
	}
}
