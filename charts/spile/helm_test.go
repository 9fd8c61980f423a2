package chart

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// helm runs the helm command. Without one the test is skipped, unless
// REQUIRE_HELM=1 says that there must be one.
func helm(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	path, err := exec.LookPath("helm")
	if err != nil {
		if os.Getenv("REQUIRE_HELM") == "1" {
			t.Fatalf("REQUIRE_HELM=1, but: %v", err)
		}
		t.Skipf("needs helm: %v", err)
	}
	cmd := exec.Command(path, args...)
	// Neither a cluster nor the caller's plugins have a say.
	cmd.Env = append(os.Environ(), "KUBECONFIG=/nonexistent", "HELM_PLUGINS="+t.TempDir())
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s%s", err, out.String(), errOut.String())
	}
	return out.String(), nil
}

func template(t *testing.T, set ...string) (string, error) {
	t.Helper()
	args := []string{"template", "spile", ".", "--namespace", "spile-system", "--kube-version", "1.29.0"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	return helm(t, args...)
}

// object is any rendered object, by kind and name.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	raw []byte
}

func render(t *testing.T, set ...string) []object {
	t.Helper()
	out, err := template(t, append([]string{endpoint}, set...)...)
	if err != nil {
		t.Fatal(err)
	}
	var objects []object
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(out)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		o := object{raw: doc}
		if err := yaml.Unmarshal(doc, &o); err != nil {
			t.Fatalf("%v in %s", err, doc)
		}
		if o.Kind != "" {
			objects = append(objects, o)
		}
	}
}

// find decodes the only object of a kind, strictly: a field that Kubernetes
// does not know is a fault of the chart.
func find[T any](t *testing.T, objects []object, kind string) *T {
	t.Helper()
	i := slices.IndexFunc(objects, func(o object) bool { return o.Kind == kind })
	if i < 0 {
		t.Fatalf("no %s", kind)
	}
	v := new(T)
	if err := yaml.UnmarshalStrict(objects[i].raw, v); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return v
}

func kinds(objects []object) []string {
	var all []string
	for _, o := range objects {
		all = append(all, o.Kind)
	}
	slices.Sort(all)
	return all
}

func sortedDocuments(s string) []string {
	docs := strings.Split(s, "---\n")
	slices.Sort(docs)
	return docs
}
