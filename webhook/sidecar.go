package webhook

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// ContainerName of the sidecar, an init container with restartPolicy Always.
	ContainerName = "spile-sidecar"
	// volumeName of an empty directory that stands where the API token would be.
	volumeName = "spile-no-token"

	tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// Names of the variables that describe the pod to its sidecar.
const (
	envPodName            = "SPILE_POD_NAME"
	envPodUID             = "SPILE_POD_UID"
	envNodeName           = "SPILE_NODE_NAME"
	envPodIP              = "SPILE_POD_IP"
	envHostIP             = "SPILE_HOST_IP"
	envServiceName        = "OTEL_SERVICE_NAME"
	envResourceAttributes = "OTEL_RESOURCE_ATTRIBUTES"
	envContainerPorts     = "SPILE_CONTAINER_PORTS"
	envGoMemLimit         = "GOMEMLIMIT"
)

// maxContainerPorts bounds SPILE_CONTAINER_PORTS; spans of further ports name no container.
const maxContainerPorts = 256

// Sidecar is what is appended to a pod.
type Sidecar struct {
	Container corev1.Container
	// Volumes that it mounts: one that hides the pod's API token, if the pod mounts
	// that, and one with Files, if there are any.
	Volumes []corev1.Volume
}

func newSidecar(pod *corev1.Pod, namespace string, s settings, c Config) (*Sidecar, []string) {
	c = c.in(namespace)
	id, warnings := identify(pod, namespace, c)
	always := corev1.ContainerRestartPolicyAlways
	sidecar := &Sidecar{Container: corev1.Container{
		Name:            ContainerName,
		Image:           c.Image,
		ImagePullPolicy: c.ImagePullPolicy,
		RestartPolicy:   &always,
		Env:             environment(pod, id, s, c),
		Resources:       c.Resources,
		SecurityContext: securityContext(),
	}}
	if auto := pod.Spec.AutomountServiceAccountToken; auto == nil || *auto {
		hideToken(sidecar)
	}
	mountFiles(sidecar, c.Files)
	return sidecar, warnings
}

// securityContext grants what attaching needs and nothing else. It leaves
// nothing to the pod's own securityContext: with runAsNonRoot inherited, the
// kubelet would refuse to start the sidecar, and so the pod.
func securityContext() *corev1.SecurityContext {
	var root int64
	no, yes := false, true
	return &corev1.SecurityContext{
		// Kubernetes sets no ambient capabilities: another user would have none.
		RunAsUser:                &root,
		RunAsNonRoot:             &no,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities: &corev1.Capabilities{
			Drop: []corev1.Capability{"ALL"},
			Add:  []corev1.Capability{"BPF", "NET_RAW"},
		},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// hideToken mounts an empty directory where ServiceAccount admission would
// mount the pod's API token: it runs again after a webhook changed the pod, and
// gives the token to every container that has nothing at that path. The kubelet
// evicts a pod whose directory takes more than the limit, and the directory
// itself takes a block: 64 KiB on some file systems.
func hideToken(s *Sidecar) {
	size := resource.MustParse("1Mi")
	s.Volumes = append(s.Volumes, corev1.Volume{
		Name:         volumeName,
		VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}},
	})
	s.Container.VolumeMounts = append(s.Container.VolumeMounts, corev1.VolumeMount{Name: volumeName, MountPath: tokenPath, ReadOnly: true})
}

// environment in an order such that $(SPILE_POD_NAME) and its kind, which
// Kubernetes expands from the variables before, can be used in what follows.
func environment(pod *corev1.Pod, id identity, s settings, c Config) []corev1.EnvVar {
	env := []corev1.EnvVar{
		fromField(envPodName, "metadata.name"),
		fromField(envPodUID, "metadata.uid"),
		fromField(envNodeName, "spec.nodeName"),
		fromField(envPodIP, "status.podIP"),
		fromField(envHostIP, "status.hostIP"),
		{Name: envServiceName, Value: id.serviceName},
		{Name: envResourceAttributes, Value: id.encode()},
	}
	for _, e := range c.Env {
		if !slices.ContainsFunc(s, func(o EnvVar) bool { return o.Name == e.Name }) {
			env = append(env, corev1.EnvVar{Name: e.Name, Value: e.Value})
		}
	}
	for _, e := range s {
		env = append(env, corev1.EnvVar{Name: e.Name, Value: e.Value})
	}
	if ports := containerPorts(&pod.Spec); ports != "" {
		env = append(env, corev1.EnvVar{Name: envContainerPorts, Value: ports})
	}
	if limit := c.Resources.Limits.Memory(); !limit.IsZero() {
		// 36 of 64 MiB. With what the Go runtime does not count, the rings, the maps and
		// the program itself, that comes to less than 48 MiB.
		env = append(env, corev1.EnvVar{Name: envGoMemLimit, Value: strconv.FormatInt(limit.Value()/16*9, 10)})
	}
	return env
}

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		// The API server's default, written out so that an injected pod reads back as it was sent.
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path},
	}}
}

// containerPorts lists the declared TCP ports as "cart=8080+8081,proxy=9090".
func containerPorts(spec *corev1.PodSpec) string {
	var parts []string
	n := 0
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		ports := map[int]bool{}
		for _, p := range c.Ports {
			if (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && n < maxContainerPorts {
				ports[int(p.ContainerPort)] = true
				n++
			}
		}
		if len(ports) == 0 || c.Name == ContainerName {
			continue
		}
		var numbers []string
		for _, p := range slices.Sorted(maps.Keys(ports)) {
			numbers = append(numbers, strconv.Itoa(p))
		}
		parts = append(parts, c.Name+"="+strings.Join(numbers, "+"))
	}
	return strings.Join(parts, ",")
}
