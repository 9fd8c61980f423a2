//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	sidecarName = "spile-sidecar"
	annotation  = "spile.dev/inject"
)

// sidecar returns the injected container of a pod, nil if it has none.
func sidecar(pod corev1.Pod) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == sidecarName {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}

func ready(pod corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func restarts(pod corev1.Pod) (n int32) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, c := range list {
			n += c.RestartCount
		}
	}
	return n
}

func serviceIP(t *testing.T, namespace, name string) string {
	t.Helper()
	return get[corev1.Service](t, "-n", namespace, "service", name).Spec.ClusterIP
}

// awaitInjection waits until the webhook, which watches namespaces, has learnt of
// an annotation.
func (c cluster) awaitInjection(t *testing.T, namespace string) {
	t.Helper()
	for range 50 {
		if sidecar(c.dryRun(t, namespace, false, nil)) != nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("pods in %s are not injected", namespace)
}

func (c cluster) testInjection(t *testing.T, p pods) {
	for _, name := range []string{"frontend", "backend"} {
		t.Run("annotated "+name, func(t *testing.T) { checkInjected(t, p[name]); checkRunning(t, p[name]) })
		t.Run("plain "+name, func(t *testing.T) {
			pod := p["plain/"+name]
			checkUntouched(t, pod)
			if !ready(pod) {
				t.Error("is not ready")
			}
		})
	}
	for name, test := range map[string]struct {
		namespace   string
		annotations map[string]string
		hostNetwork bool
		injected    bool
		reason      string // in the status annotation
	}{
		"a pod in an annotated namespace":         {namespace: shop, injected: true},
		"the pod's disabled wins":                 {namespace: shop, annotations: map[string]string{annotation: "disabled"}},
		"the pod's enabled wins":                  {namespace: plain, annotations: map[string]string{annotation: "enabled"}, injected: true},
		"a pod on the host's network":             {namespace: shop, hostNetwork: true, reason: "host_network"},
		"a pod in a namespace without annotation": {namespace: plain},
		"a system namespace":                      {namespace: "kube-system", annotations: map[string]string{annotation: "enabled"}},
		"Spile's own namespace":                   {namespace: release, annotations: map[string]string{annotation: "enabled"}},
		"a value that is neither on nor off":      {namespace: plain, annotations: map[string]string{annotation: "maybe"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := c.dryRun(t, test.namespace, test.hostNetwork, test.annotations)
			if test.injected {
				checkInjected(t, pod)
			} else if sidecar(pod) != nil {
				t.Error("was injected")
			}
			if status := pod.Annotations["spile.dev/status"]; !strings.Contains(status, test.reason) {
				t.Errorf("status annotation %q does not give the reason %q", status, test.reason)
			}
		})
	}
}

// checkInjected looks at what the webhook adds to a pod.
func checkInjected(t *testing.T, pod corev1.Pod) {
	t.Helper()
	s := sidecar(pod)
	if s == nil {
		t.Fatal("has no sidecar")
	}
	if last := pod.Spec.InitContainers[len(pod.Spec.InitContainers)-1]; last.Name != sidecarName {
		t.Errorf("the last init container is %s: the sidecar was not appended", last.Name)
	}
	if s.RestartPolicy == nil || *s.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Error("the sidecar has no restartPolicy Always, it is an init container that never ends")
	}
	if len(pod.Spec.Containers) != 1 {
		t.Errorf("%d containers, want the application's one", len(pod.Spec.Containers))
	}
	status := pod.Annotations["spile.dev/status"]
	if !json.Valid([]byte(status)) || !strings.Contains(status, sidecarName) {
		t.Errorf("status annotation %q, want JSON that names the container", status)
	}
}

func checkRunning(t *testing.T, pod corev1.Pod) {
	t.Helper()
	if !ready(pod) || restarts(pod) != 0 {
		t.Errorf("ready %t, %d restarts", ready(pod), restarts(pod))
	}
	for _, c := range pod.Status.InitContainerStatuses {
		if c.Name == sidecarName && (c.State.Running == nil || c.Started == nil || !*c.Started) {
			t.Errorf("the sidecar is not running: %+v", c.State)
		}
	}
	log := kubectl(t, "-n", pod.Namespace, "logs", pod.Name, "-c", sidecarName)
	if !strings.Contains(log, `"msg":"capturing"`) || !strings.Contains(log, `"rung":"ebpf"`) {
		t.Errorf("the sidecar does not capture by the eBPF filter; it logged:\n%s", log)
	}
}

func checkUntouched(t *testing.T, pod corev1.Pod) {
	t.Helper()
	if n := len(pod.Spec.InitContainers); n != 0 {
		t.Errorf("has %d init containers", n)
	}
	for name := range pod.Annotations {
		if strings.HasPrefix(name, "spile.dev/") {
			t.Errorf("has the annotation %s", name)
		}
	}
}

// testCapabilities reads, from the node, the status of every thread of the
// sidecars there: Linux keeps capabilities per thread.
func (c cluster) testCapabilities(t *testing.T, p pods) {
	c.runJob(t, "threads.yaml", plain, "threads", map[string]any{"Node": p["frontend"].Spec.NodeName})
	var threads []map[string]string
	out := kubectl(t, "-n", plain, "logs", "job/threads")
	if err := json.Unmarshal([]byte(out), &threads); err != nil {
		t.Fatalf("decoding %q: %v", out, err)
	}
	processes := map[string]bool{}
	for _, thread := range threads {
		processes[thread["Tgid"]] = true
	}
	want := 0
	for _, name := range []string{"frontend", "backend"} {
		if p[name].Spec.NodeName == p["frontend"].Spec.NodeName {
			want++
		}
	}
	if len(processes) != want {
		t.Errorf("%d sidecar processes on the node, want %d", len(processes), want)
	}
	for field, value := range map[string]string{
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		t.Run(field, func(t *testing.T) {
			for _, thread := range threads {
				if thread[field] != value {
					t.Errorf("thread %s: %s, want %s", thread["Pid"], thread[field], value)
				}
			}
		})
	}
}
