//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// ours is the label of a release's namespace that these tests made: what an
// interrupted run left there may be removed, what a user installed may not.
const ours = "spile.dev/e2e"

// TestMain removes what an interrupted run left.
func TestMain(m *testing.M) {
	if err := sweep(); err != nil {
		fmt.Fprintln(os.Stderr, "removing what an interrupted run of the tests left:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func sweep() error {
	out, err := command("", "kubectl", "get", "namespaces", "-o", "name")
	if err != nil {
		return err
	}
	var left []string
	for line := range strings.FieldsSeq(out) {
		if name := strings.TrimPrefix(line, "namespace/"); strings.HasPrefix(name, "spile-e2e-") {
			left = append(left, name)
		}
	}
	marked, err := command("", "kubectl", "get", "namespaces", "-l", ours, "-o", "name")
	if err != nil {
		return err
	}
	if marked != "" {
		return uninstall(append(left, release)...)
	}
	return deleteNamespaces(left...)
}

// uninstall removes the release and namespaces.
func uninstall(namespaces ...string) error {
	if _, err := command("", "helm", "uninstall", "spile", "-n", release, "--ignore-not-found", "--wait"); err != nil {
		return err
	}
	return deleteNamespaces(namespaces...)
}

func deleteNamespaces(names ...string) error {
	if len(names) == 0 {
		return nil
	}
	_, err := command("", "kubectl", append([]string{"delete", "namespace", "--ignore-not-found", "--timeout=180s"}, names...)...)
	return err
}

// prepare loads the images and makes the namespace of the release, which the test
// installs. At its end that is removed, with the namespaces named here.
func prepare(t *testing.T, namespaces ...string) {
	t.Helper()
	if out := must(t, "", "helm", "list", "-a", "-n", release, "-q"); out != "" {
		t.Fatalf("helm release %s is installed in namespace %s already: uninstall it first", strings.TrimSpace(out), release)
	}
	all := append([]string{release}, namespaces...)
	t.Cleanup(func() {
		if t.Failed() {
			diagnose(t, all...)
		}
		if err := uninstall(all...); err != nil {
			t.Error(err)
		}
	})
	if err := deleteNamespaces(all...); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "namespace", release)
	kubectl(t, "label", "namespace", release, ours+"=true")
	t.Run("load images", func(t *testing.T) { loadImages(t, env("E2E_LOAD", ""), env("E2E_IMAGES", "../../bin/images")) })
}
