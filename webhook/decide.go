package webhook

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Annotations that Spile reads and writes.
const (
	// AnnotationPrefix is that of all of them.
	AnnotationPrefix = "spile.dev/"

	// AnnotationInject switches injection on or off, on a namespace or a pod.
	AnnotationInject = AnnotationPrefix + "inject"
	// AnnotationStatus is written by the injector; see [Status].
	AnnotationStatus = AnnotationPrefix + "status"

	// The API server's representation of a static pod carries this.
	annotationMirror = corev1.MirrorPodAnnotationKey
	// Pod Security admission; pods are rejected by the enforced level only.
	labelPodSecurity      = "pod-security.kubernetes.io/enforce"
	podSecurityPrivileged = "privileged"
	// EKS marks the pods that a Fargate profile selects, in a webhook of its own
	// whose name sorts before ours.
	labelFargate     = "eks.amazonaws.com/fargate-profile"
	schedulerFargate = "fargate-scheduler"

	// maxObject is what etcd takes by default (--max-request-bytes), in bytes.
	maxObject = 1536 << 10
	// maxAdded is more than the sidecar, its volume and the status can have: a
	// container's attributes, lists and settings are bounded.
	maxAdded = 192 << 10
)

var systemNamespaces = []string{"kube-system", "kube-public", "kube-node-lease"}

// Decision is the outcome for one pod.
type Decision struct {
	// Reason why the pod is not injected, or [Injected].
	Reason Reason
	// Message is one sentence for people; empty if the pod is injected or
	// nobody asked.
	Message string
	// Asked reports whether the pod or its namespace asked for injection, be it
	// with a value that is not understood. A pod that nobody asked to inject is
	// not touched at all.
	Asked bool
	// Warnings for whoever created the pod: annotations that were ignored.
	Warnings []string
	// Sidecar to add; nil unless the pod is injected.
	Sidecar *Sidecar

	version string
}

// Decide says whether pod, about to be created at p, gets a sidecar and which
// one. It has no effects; a pod's own metadata.namespace may be empty, as it is
// during admission.
func Decide(pod *corev1.Pod, p Place, c Config) Decision {
	ns := p.Namespace
	d := Decision{version: c.Version}
	if slices.Contains(systemNamespaces, ns.Name) || slices.Contains(c.ExcludedNamespaces, ns.Name) {
		return d.skip(ReasonSystemNamespace, "namespace %s is never injected", ns.Name)
	}
	if _, ok := pod.Annotations[annotationMirror]; ok {
		return d.skip(ReasonMirrorPod, "the pod is the mirror of a static pod")
	}
	if d = d.consent(pod, ns); d.Reason != Injected {
		return d
	}

	var s settings
	s, d.Warnings = tune(pod.Annotations, ns.Annotations)
	sidecar, warnings := newSidecar(pod, ns.Name, s, c)
	d.Warnings = append(d.Warnings, warnings...)
	if reason, message := obstacle(pod, p, c, sidecar); reason != Injected {
		return d.skip(reason, "%s", message)
	}
	d.Sidecar = sidecar
	return d
}

func (d Decision) skip(r Reason, format string, args ...any) Decision {
	d.Reason, d.Message = r, fmt.Sprintf(format, args...)
	return d
}

// consent reads the switch: the pod's annotation wins over the namespace's.
func (d Decision) consent(pod *corev1.Pod, ns *corev1.Namespace) Decision {
	value, on := pod.Annotations[AnnotationInject]
	where := "pod"
	if !on {
		value, on = ns.Annotations[AnnotationInject]
		where = "namespace " + ns.Name
	}
	if !on {
		d.Reason = ReasonNotEnabled
		return d
	}
	switch value {
	case "enabled", "true":
		d.Asked = true
	case "disabled", "false":
		d.Reason = ReasonDisabled
	default:
		d.Asked = true
		d = d.skip(ReasonInvalidAnnotation, "annotation %s=%s on the %s: accepted are enabled, disabled, true, false",
			AnnotationInject, quote(value), where)
		d.Warnings = []string{"not injected: " + d.Message}
	}
	return d
}

// obstacle finds what stands in the way of adding s to pod: the pod would be
// rejected, would not start, or the sidecar would see what it should not.
func obstacle(pod *corev1.Pod, p Place, c Config, s *Sidecar) (Reason, string) {
	if reason, message := occupied(pod, s); reason != Injected {
		return reason, message
	}
	spec := &pod.Spec
	switch {
	case isWindows(spec):
		return ReasonWindows, "the pod runs on Windows"
	case p.Minor != 0 && p.Minor < nativeSidecars:
		return ReasonNoNativeSidecars, fmt.Sprintf("Kubernetes 1.%d has no native sidecars; they need 1.%d", p.Minor, nativeSidecars)
	case spec.SchedulerName == schedulerFargate || pod.Labels[labelFargate] != "":
		return ReasonFargate, "the pod runs on AWS Fargate, which does not run containers with the capabilities BPF and NET_RAW"
	case spec.HostNetwork:
		return ReasonHostNetwork, "the pod uses the node's network; the sidecar would capture the whole node"
	case spec.HostUsers != nil && !*spec.HostUsers:
		return ReasonHostUsers, "the pod has hostUsers: false; capabilities in a user namespace do not allow to capture"
	}
	if reason, message := c.podSecurity(p.Namespace); reason != Injected {
		return reason, message
	}
	if message := p.crowded(spec, s.Container.Resources); message != "" {
		return ReasonPodResources, message
	}
	if size := pod.Size(); size > maxObject-maxAdded {
		return ReasonTooLarge, fmt.Sprintf("the pod has %d bytes of the %d that etcd stores", size, maxObject)
	}
	return p.refusal(pod, s)
}

// occupied looks for the names of the sidecar and its volumes in pod. What an
// annotation claims does not matter. The fields compared are those that no
// other injector has a reason to change: a second round must recognise the
// sidecar after others have added mounts or variables to every container.
func occupied(pod *corev1.Pod, s *Sidecar) (Reason, string) {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.Name != s.Container.Name {
			continue
		}
		always := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		if always && repository(c.Image) == repository(s.Container.Image) && len(c.Command) == 0 && len(c.Args) == 0 {
			return ReasonAlreadyInjected, "the pod already has the sidecar"
		}
		return ReasonNameConflict, fmt.Sprintf("the pod has an init container named %s that is not the sidecar", c.Name)
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == s.Container.Name {
			return ReasonNameConflict, fmt.Sprintf("the pod has a container named %s", s.Container.Name)
		}
	}
	for i := range pod.Spec.Volumes {
		for j := range s.Volumes {
			if name := s.Volumes[j].Name; pod.Spec.Volumes[i].Name == name {
				return ReasonNameConflict, fmt.Sprintf("the pod has a volume named %s", name)
			}
		}
	}
	return Injected, ""
}

// podSecurity finds an enforced level that rejects the sidecar's capabilities. An
// unknown level is enforced as restricted, so anything but privileged does.
func (c Config) podSecurity(ns *corev1.Namespace) (Reason, string) {
	level, labelled := ns.Labels[labelPodSecurity]
	enforced := "enforces"
	if !labelled {
		level, enforced = cmp.Or(c.PodSecurityDefault, podSecurityPrivileged), "is under the cluster's default,"
	}
	if level == podSecurityPrivileged {
		return Injected, ""
	}
	return ReasonPodSecurity, fmt.Sprintf(
		"namespace %s %s Pod Security level %s, which rejects the capabilities BPF and NET_RAW; label it %s=privileged",
		ns.Name, enforced, quote(level), labelPodSecurity)
}

func isWindows(spec *corev1.PodSpec) bool {
	return (spec.OS != nil && spec.OS.Name == corev1.Windows) ||
		spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}

// crowded reports how resources of the whole pod (Kubernetes ≥ 1.32) would make
// it invalid with one more container: what all containers request, also by a
// LimitRange's default, must fit into what the pod requests. That a container's
// limit must fit into the pod's is not asked of init containers (1.37), but may be.
func (p Place) crowded(spec *corev1.PodSpec, extra corev1.ResourceRequirements) string {
	if spec.Resources == nil {
		return ""
	}
	requests := sum(spec, p.defaulted(extra).Requests, func(r corev1.ResourceRequirements) corev1.ResourceList { return p.defaulted(r).Requests })
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		all := requests[name]
		if whole, ok := spec.Resources.Requests[name]; ok && all.Cmp(whole) > 0 {
			return fmt.Sprintf("with the sidecar the containers request %s %s, the pod as a whole only %s", all.String(), name, whole.String())
		}
		whole, bounded := spec.Resources.Limits[name]
		if limit, ok := extra.Limits[name]; bounded && ok && limit.Cmp(whole) > 0 {
			return fmt.Sprintf("the sidecar's %s limit %s exceeds the pod's %s", name, limit.String(), whole.String())
		}
	}
	return ""
}

// repository is an image reference without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}

// quote makes a value of unknown origin fit for a message.
func quote(s string) string {
	const limit = 64
	if len(s) > limit {
		return fmt.Sprintf("%.*q…", limit, s)
	}
	return fmt.Sprintf("%q", s)
}
