//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// cluster is what KUBECONFIG points at, reached by kubectl and helm.
type cluster struct {
	values map[string]any // of the templates in testdata
}

// command runs a program to its end and returns its standard output.
func command(stdin string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", cmd, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// must is command for what the test cannot go on without.
func must(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	out, err := command(stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kubectl tries again where no connection was made, as on a busy machine.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	for range 3 {
		out, err := command("", "kubectl", args...)
		if err == nil {
			return out
		}
		if !strings.Contains(err.Error(), "Unable to connect to the server") {
			t.Fatal(err)
		}
	}
	return must(t, "", "kubectl", args...)
}

// get decodes what kubectl get prints as JSON.
func get[T any](t *testing.T, args ...string) (v T) {
	t.Helper()
	out := kubectl(t, append([]string{"get", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("decoding kubectl get %s: %v", strings.Join(args, " "), err)
	}
	return v
}

// render fills in a template of testdata with the cluster's values and more.
func (c cluster) render(t *testing.T, name string, more map[string]any) string {
	t.Helper()
	tmpl, err := template.New(name).Option("missingkey=error").ParseFiles(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	for _, m := range []map[string]any{c.values, more} {
		for k, v := range m {
			values[k] = v
		}
	}
	var out strings.Builder
	if err := tmpl.Execute(&out, values); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (c cluster) apply(t *testing.T, name string, more map[string]any) {
	t.Helper()
	must(t, c.render(t, name, more), "kubectl", "apply", "-f", "-")
}

// dryRun returns the pod that the API server would make.
func (c cluster) dryRun(t *testing.T, namespace string, hostNetwork bool, annotations map[string]string) (pod corev1.Pod) {
	t.Helper()
	manifest := c.render(t, "pod.yaml", map[string]any{"Namespace": namespace, "Annotations": annotations, "HostNetwork": hostNetwork})
	out := must(t, manifest, "kubectl", "create", "--dry-run=server", "-o", "json", "-f", "-")
	if err := json.Unmarshal([]byte(out), &pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// rollout waits until a Deployment is complete and returns its one pod.
func rollout(t *testing.T, namespace, name string) corev1.Pod {
	t.Helper()
	kubectl(t, "-n", namespace, "rollout", "status", "deployment/"+name, "--timeout=120s")
	return onePod(t, namespace, "app="+name)
}

func onePod(t *testing.T, namespace, selector string) corev1.Pod {
	t.Helper()
	pods := get[corev1.PodList](t, "-n", namespace, "pods", "-l", selector)
	if len(pods.Items) != 1 {
		t.Fatalf("%d pods with %s in %s, want 1", len(pods.Items), selector, namespace)
	}
	return pods.Items[0]
}

// runJob makes a Job and waits until it completes; it returns the Job's one pod.
func (c cluster) runJob(t *testing.T, manifest, namespace, job string, more map[string]any) corev1.Pod {
	t.Helper()
	more["Namespace"], more["Job"] = namespace, job
	c.apply(t, manifest, more)
	return awaitJob(t, namespace, job)
}

// awaitJob waits until a Job completes, or fails the test with its logs; it returns
// the Job's one pod.
func awaitJob(t *testing.T, namespace, job string) corev1.Pod {
	t.Helper()
	var conditions []batchv1.JobCondition
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(250 * time.Millisecond) {
		conditions = get[batchv1.Job](t, "-n", namespace, "job", job).Status.Conditions
		is := func(kind batchv1.JobConditionType) bool {
			return slices.ContainsFunc(conditions, func(c batchv1.JobCondition) bool { return c.Type == kind && c.Status == corev1.ConditionTrue })
		}
		if is(batchv1.JobComplete) {
			return onePod(t, namespace, "job-name="+job)
		}
		if is(batchv1.JobFailed) {
			break
		}
	}
	logs, _ := command("", "kubectl", "-n", namespace, "logs", "job/"+job, "--all-containers", "--tail=50")
	t.Fatalf("job %s has not completed: %+v\n%s", job, conditions, logs)
	return corev1.Pod{}
}

// loadImages hands every archive in dir to the command line load; an empty
// command means that the cluster has the images or can pull them.
func loadImages(t *testing.T, load, dir string) {
	t.Helper()
	if load == "" {
		t.Skip("E2E_LOAD is not set: the cluster is expected to have the images or to pull them")
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no image archives in %s (run make e2e): %v", dir, err)
	}
	args := strings.Fields(load)
	for _, archive := range archives {
		must(t, "", args[0], append(args[1:], archive)...)
	}
}

// env returns an environment variable, or a default where it is empty.
func env(name, fallback string) string { return cmp.Or(os.Getenv(name), fallback) }

// diagnose logs what helps to understand a failure.
func diagnose(t *testing.T, namespaces ...string) {
	show := func(args ...string) string {
		out, err := command("", "kubectl", args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		return out
	}
	for _, ns := range namespaces {
		show("-n", ns, "get", "pods", "-o", "wide")
		show("-n", ns, "get", "events", "--sort-by=.lastTimestamp")
		for pod := range strings.FieldsSeq(show("-n", ns, "get", "pods", "-o", "name")) {
			show("-n", ns, "logs", pod, "--all-containers", "--prefix", "--tail=20")
		}
	}
}
