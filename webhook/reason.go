package webhook

// Reason says in one word why a pod was not injected. The word is the same as
// log key, metric label, event message and in the status annotation.
type Reason string

// The reasons, in the order in which they are looked for.
const (
	// Injected is the empty reason.
	Injected Reason = ""

	// ReasonSystemNamespace: kube-system, kube-public, kube-node-lease or the
	// injector's own namespace.
	ReasonSystemNamespace Reason = "system_namespace"
	// ReasonMirrorPod: the API server's image of a static pod; changing it
	// changes nothing on the node.
	ReasonMirrorPod Reason = "mirror_pod"
	// ReasonNotEnabled: neither the pod nor its namespace asks.
	ReasonNotEnabled Reason = "not_enabled"
	// ReasonDisabled: the pod or its namespace opts out.
	ReasonDisabled Reason = "disabled"
	// ReasonInvalidAnnotation: spile.dev/inject has an unknown value.
	ReasonInvalidAnnotation Reason = "invalid_annotation"
	// ReasonAlreadyInjected: the pod has the sidecar, judged by its content.
	ReasonAlreadyInjected Reason = "already_injected"
	// ReasonNameConflict: a container or volume of the pod has a name of ours
	// but is not ours; adding a second one would make the pod invalid.
	ReasonNameConflict Reason = "name_conflict"
	// ReasonWindows: there is no Linux network namespace to tap.
	ReasonWindows Reason = "windows"
	// ReasonNoNativeSidecars: before Kubernetes 1.29 the sidecar would be an init
	// container that never ends, and the pod would never start.
	ReasonNoNativeSidecars Reason = "no_native_sidecars"
	// ReasonFargate: AWS Fargate does not run the sidecar's capabilities.
	ReasonFargate Reason = "fargate"
	// ReasonHostNetwork: the sidecar would capture the whole node.
	ReasonHostNetwork Reason = "host_network"
	// ReasonHostUsers: with hostUsers false, capabilities do not reach the
	// kernel facilities that capturing needs.
	ReasonHostUsers Reason = "host_users"
	// ReasonPodSecurity: the Pod Security level of the namespace, or of the
	// cluster where the namespace sets none, would reject the pod.
	ReasonPodSecurity Reason = "pod_security"
	// ReasonPodResources: the pod's own resources leave no room for the sidecar's.
	ReasonPodResources Reason = "pod_resources"
	// ReasonTooLarge: with the sidecar the pod could exceed what etcd stores.
	ReasonTooLarge Reason = "too_large"
	// ReasonLimitRange: a LimitRange of the namespace would reject the pod.
	ReasonLimitRange Reason = "limit_range"
	// ReasonResourceQuota: a ResourceQuota of the namespace would reject the pod.
	ReasonResourceQuota Reason = "resource_quota"
)

// Reasons lists every reason, so that metrics can start at zero and
// documentation can be checked.
func Reasons() []Reason {
	return []Reason{
		ReasonSystemNamespace, ReasonMirrorPod, ReasonNotEnabled, ReasonDisabled, ReasonInvalidAnnotation,
		ReasonAlreadyInjected, ReasonNameConflict, ReasonWindows, ReasonNoNativeSidecars, ReasonFargate, ReasonHostNetwork,
		ReasonHostUsers, ReasonPodSecurity, ReasonPodResources, ReasonTooLarge, ReasonLimitRange, ReasonResourceQuota,
	}
}
