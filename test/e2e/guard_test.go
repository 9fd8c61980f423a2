//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/spile-dev/spile/webhook"
)

const guarded = "spile-e2e-guard"

// TestGuard abuses the sidecar's privileges on the API server, under the chart's
// ValidatingAdmissionPolicy. It needs no webhook: pods are injected here.
func TestGuard(t *testing.T) {
	rendered := must(t, "", "helm", "template", guarded, "../../charts/spile", "--kube-version", "1.37.0", "--set", "guard.enabled=true",
		"--set", "guard.namespaceSelector.matchLabels.spile\\.dev/guard=e2e", "--set", "otlp.endpoint=http://$(SPILE_HOST_IP):4318",
		"--show-only", "templates/guard.yaml")
	remove := func() {
		if _, err := command(rendered, "kubectl", "delete", "--ignore-not-found", "-f", "-"); err != nil {
			t.Error(err)
		}
		kubectl(t, "delete", "namespace", guarded, "--ignore-not-found", "--timeout=120s")
	}
	remove()
	t.Cleanup(remove)
	kubectl(t, "create", "namespace", guarded)
	kubectl(t, "label", "namespace", guarded, "spile.dev/guard=e2e")
	must(t, rendered, "kubectl", "apply", "-f", "-")

	good := injected(t, webhook.DefaultConfig("ghcr.io/spile-dev/spile-sidecar:0.1.0", "http://$(SPILE_HOST_IP):4318"))
	awaitDenial(t)
	t.Run("the webhook's pod is admitted", func(t *testing.T) {
		if err := create(t, good); err != nil {
			t.Error(err)
		}
	})
	for name, abuse := range abuses() {
		t.Run(name, func(t *testing.T) {
			pod := good.DeepCopy()
			abuse.change(pod)
			err := create(t, pod)
			if err == nil || !strings.Contains(err.Error(), abuse.message) {
				t.Errorf("%v, want a denial that says %q", err, abuse.message)
			}
		})
	}
	t.Run("a pod that exists", func(t *testing.T) { abuseExisting(t, good) })
}

// injected is a pod as the webhook makes it, with every tuning annotation.
func injected(t *testing.T, c webhook.Config) *corev1.Pod {
	t.Helper()
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	pod.GenerateName = "guarded-"
	pod.Annotations = map[string]string{
		annotation: "enabled", "spile.dev/sample-ratio": "0.5", "spile.dev/log-level": "debug", "spile.dev/routes": "/a/{id}",
		"spile.dev/capture-headers": "x-a", "spile.dev/exclude-ports": "9090", "spile.dev/exclude-paths": "/healthz",
	}
	// Nothing must run: the node does not exist.
	pod.Spec.NodeSelector = map[string]string{"spile.dev/none": "none"}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "app:1", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	place := webhook.Place{Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: guarded}}}
	_, raw = injectInto(t, raw, place, c)
	out := &corev1.Pod{}
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// create sends a pod as a dry run and returns the API server's answer.
func create(t *testing.T, pod *corev1.Pod) error {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	_, err = command(string(raw), "kubectl", "-n", guarded, "create", "--dry-run=server", "-f", "-")
	return err
}

// awaitDenial waits until the API server has learnt of the policy.
func awaitDenial(t *testing.T) {
	t.Helper()
	bad := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	bad.GenerateName = "bad-"
	bad.Spec.Containers = []corev1.Container{{Name: "app", Image: "app:1"}}
	bad.Spec.HostPID = true
	for range 60 {
		if create(t, bad) != nil {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Fatal("the policy is not in force")
}

type abuse struct {
	change  func(*corev1.Pod)
	message string // in the denial
}

func abuses() map[string]abuse {
	side := func(f func(*corev1.Container)) func(*corev1.Pod) {
		return func(p *corev1.Pod) { f(sidecar(*p)) }
	}
	app := func(f func(*corev1.Container)) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{}
			f(&p.Spec.Containers[0])
		}
	}
	add := func(caps ...corev1.Capability) *corev1.Capabilities { return &corev1.Capabilities{Add: caps} }
	yes := true
	exec := &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh"}}}
	const own, shape, mounts, environment, context = "image that this release", "neither lifecycle hooks", "mount nothing but", "environment that Spile", "security context that Spile"
	return map[string]abuse{
		"another image":        {side(func(c *corev1.Container) { c.Image = "evil:1" }), own},
		"another tag":          {side(func(c *corev1.Container) { c.Image = "ghcr.io/spile-dev/spile-sidecar:evil" }), own},
		"command":              {side(func(c *corev1.Container) { c.Command = []string{"/bin/sh"} }), own},
		"args":                 {side(func(c *corev1.Container) { c.Args = []string{"--evil"} }), own},
		"working directory":    {side(func(c *corev1.Container) { c.WorkingDir = "/tmp" }), own},
		"standard input":       {side(func(c *corev1.Container) { c.Stdin = true }), own},
		"not a native sidecar": {side(func(c *corev1.Container) { c.RestartPolicy = nil }), own},
		"postStart":            {side(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PostStart: exec} }), shape},
		"preStop":              {side(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PreStop: exec} }), shape},
		"probe": {side(func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: exec.Exec}}
		}), shape},
		"port": {side(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80}} }), shape},
		"mounted volume": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "x", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
			side(func(c *corev1.Container) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "x", MountPath: "/x"})
			})(p)
		}, mounts},
		"mount over the binary": {side(func(c *corev1.Container) { c.VolumeMounts[0].MountPath = "/spile-sidecar" }), mounts},
		"token instead of the empty directory": {func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x"}}
		}, mounts},
		"API token":        {side(func(c *corev1.Container) { c.VolumeMounts = nil }), mounts},
		"another variable": {side(func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "GODEBUG", Value: "x"}) }), environment},
		"another endpoint": {side(func(c *corev1.Container) {
			c.Env = append(c.Env, corev1.EnvVar{Name: "OTEL_EXPORTER_OTLP_ENDPOINT", Value: "http://evil"})
		}), environment},
		"a Secret as the service name": {side(func(c *corev1.Container) {
			c.Env = append(c.Env, corev1.EnvVar{Name: "OTEL_SERVICE_NAME", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k"}}})
		}), environment},
		"variables from a Secret": {side(func(c *corev1.Container) {
			c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}
		}), environment},
		"privileged sidecar": {side(func(c *corev1.Container) {
			c.SecurityContext.Privileged, c.SecurityContext.AllowPrivilegeEscalation = &yes, nil
		}), context},
		"more capabilities": {side(func(c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = append(c.SecurityContext.Capabilities.Add, "SYS_ADMIN")
		}), context},
		"nothing dropped":      {side(func(c *corev1.Container) { c.SecurityContext.Capabilities.Drop = nil }), context},
		"privilege escalation": {side(func(c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = &yes }), context},
		"writable root":        {side(func(c *corev1.Container) { c.SecurityContext.ReadOnlyRootFilesystem = nil }), context},
		"unconfined sidecar":   {side(func(c *corev1.Container) { c.SecurityContext.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined }), context},
		"lookalike among the containers": {func(p *corev1.Pod) {
			c := *sidecar(*p)
			c.RestartPolicy = nil
			p.Spec.InitContainers = nil
			p.Spec.Containers = append(p.Spec.Containers, c)
		}, "no other container may be named"},
		"the same under another name": {side(func(c *corev1.Container) { c.Name = "spile-sidecar-2" }), "baseline: these capabilities"},
		"forged status": {func(p *corev1.Pod) {
			p.Spec.InitContainers = nil
			p.Annotations["spile.dev/status"] = `{"version":"0.1.0","container":"app"}`
			app(func(c *corev1.Container) { c.SecurityContext.Capabilities = add("BPF") })(p)
		}, "baseline: these capabilities"},
		"the application's NET_RAW": {app(func(c *corev1.Container) { c.SecurityContext.Capabilities = add("NET_RAW") }), "baseline: these capabilities"},
		"privileged application":    {app(func(c *corev1.Container) { c.SecurityContext.Privileged = &yes }), "baseline: no privileged"},
		"host network":              {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "baseline: no host namespaces"},
		"host path": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "root", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
		}, "baseline: no hostPath"},
		"host port": {app(func(c *corev1.Container) { c.Ports[0].HostPort = 80 }), "baseline: no host ports"},
		"sysctl": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		}, "baseline: safe sysctls"},
		"unconfined pod": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}
		}, "baseline: seccomp"},
		"SELinux role": {app(func(c *corev1.Container) { c.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Role: "r"} }), "baseline: SELinux"},
		"probe of another host": {app(func(c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: "10.0.0.1", Port: intstr.FromInt32(80)}}}
		}), "baseline: probes"},
	}
}

// abuseExisting changes a pod that has been admitted.
func abuseExisting(t *testing.T, pod *corev1.Pod) {
	pod = pod.DeepCopy()
	pod.Name = "existing"
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	must(t, string(raw), "kubectl", "-n", guarded, "create", "-f", "-")
	deny := func(name, message string, args ...string) {
		t.Run(name, func(t *testing.T) {
			if _, err := command("", "kubectl", append([]string{"-n", guarded}, args...)...); err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%v, want a denial that says %q", err, message)
			}
		})
	}
	deny("another image of the sidecar", "image that this release", "set", "image", "pod/existing", "spile-sidecar=evil:1", "--dry-run=server")
	for name, ephemeral := range map[string]struct{ container, message string }{
		"ephemeral container with NET_RAW":     {`{"name":"debug","image":"x","securityContext":{"capabilities":{"add":["NET_RAW"]}}}`, "baseline: these capabilities"},
		"privileged ephemeral container":       {`{"name":"debug","image":"x","securityContext":{"privileged":true}}`, "baseline: no privileged"},
		"ephemeral container in the sidecar":   {`{"name":"debug","image":"x","targetContainerName":"spile-sidecar"}`, "nor debug it"},
		"ephemeral container called a sidecar": {`{"name":"debug","image":"x","lifecycle":null,"securityContext":{"capabilities":{"add":["BPF"]}}}`, "baseline: these capabilities"},
	} {
		deny(name, ephemeral.message, "patch", "pod", "existing", "--subresource=ephemeralcontainers", "--dry-run=server",
			"-p", `{"spec":{"ephemeralContainers":[`+ephemeral.container+`]}}`)
	}
	kubectl(t, "-n", guarded, "patch", "pod", "existing", "--subresource=ephemeralcontainers", "--dry-run=server",
		"-p", `{"spec":{"ephemeralContainers":[{"name":"debug","image":"x","targetContainerName":"app"}]}}`)
	debug := []string{"debug", "existing", "--image=busybox:1", "--profile=baseline", "--attach=false"}
	deny("kubectl debug of the sidecar", "nor debug it", append(debug, "--target=spile-sidecar", "--container=d1")...)
	deny("kubectl debug with more capabilities", "baseline: these capabilities", append(debug, "--target=app", "--profile=netadmin", "--container=d2")...)
	kubectl(t, append([]string{"-n", guarded}, append(debug, "--target=app", "--container=d3")...)...)
	kubectl(t, "-n", guarded, "label", "pod", "existing", "metadata=may-change")
}
