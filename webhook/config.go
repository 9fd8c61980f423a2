package webhook

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// Config describes the sidecar and where it never goes. It is the same for
// every pod; only the operator of the cluster writes it.
type Config struct {
	// Image of the sidecar, for example ghcr.io/spile-dev/spile-sidecar:0.1.0.
	Image string `json:"image"`
	// ImagePullPolicy is Always, IfNotPresent or Never; empty leaves it to Kubernetes.
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// Resources of the sidecar. Explicit, because a container without them
	// inherits the defaults of the namespace's LimitRange.
	Resources corev1.ResourceRequirements `json:"resources"`
	// Env is set on every sidecar: the exporter's OTEL_EXPORTER_OTLP_* and what
	// else the operator wants. A value may refer to $(SPILE_POD_IP) and its kind.
	Env []EnvVar `json:"env,omitempty"`
	// Files of credentials for the exporter.
	Files Files `json:"files,omitzero"`
	// Namespaces whose spans go elsewhere, by name.
	Namespaces map[string]Destination `json:"namespaces,omitempty"`
	// ResourceAttributes are added to OTEL_RESOURCE_ATTRIBUTES of every sidecar,
	// for example k8s.cluster.name. What is known of the pod itself wins.
	ResourceAttributes map[string]string `json:"resourceAttributes,omitempty"`
	// ServiceNameFromLabels prefers app.kubernetes.io/instance and
	// app.kubernetes.io/name over the workload's name as service.name.
	ServiceNameFromLabels bool `json:"serviceNameFromLabels,omitempty"`
	// PodSecurityDefault is the Pod Security level that the cluster enforces in
	// namespaces without the label, which only its operator knows: it is part of
	// the API server's configuration. Empty means privileged, Kubernetes' default.
	PodSecurityDefault string `json:"podSecurityDefault,omitempty"`
	// ExcludedNamespaces are never touched, beside the system's namespaces.
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`
	// NamespaceSelector and ObjectSelector are those of the webhook configuration.
	// The API server applies them; here they say which pods it does not ask about.
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	ObjectSelector    *metav1.LabelSelector `json:"objectSelector,omitempty"`

	// Version of the injector, written into the status annotation.
	Version string `json:"-"`
}

// EnvVar is one environment variable with a literal value.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// DefaultConfig is what the chart configures where its values say nothing but
// the endpoint, the URL of an OTLP receiver.
func DefaultConfig(image, endpoint string) Config {
	return Config{
		Image:           image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("10m"),
				corev1.ResourceMemory: resource.MustParse("32Mi"),
			},
			Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
		},
		Env: []EnvVar{
			{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint},
			{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"},
		},
	}
}

// ParseConfig reads a Config from YAML or JSON and validates it. An unknown
// field is an error.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return Config{}, fmt.Errorf("parsing sidecar configuration: %w", err)
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// computedEnv are the variables that describe the pod; they are worked out for
// each pod and cannot be configured.
var computedEnv = []string{
	envPodName, envPodUID, envNodeName, envPodIP, envHostIP,
	envServiceName, envResourceAttributes, envContainerPorts, envGoMemLimit,
}

var (
	// RFC 1123 names and the reference grammar of container images, loosely:
	// the container runtime has the last word.
	imagePattern   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$`)
	envNamePattern = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)
)

// Validate reports every fault of c, joined.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !imagePattern.MatchString(c.Image) {
		fault("image: %q is not an image reference such as registry/repository:tag", c.Image)
	}
	pull := []corev1.PullPolicy{"", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever}
	if !slices.Contains(pull, c.ImagePullPolicy) {
		fault("imagePullPolicy: %q is none of Always, IfNotPresent, Never", c.ImagePullPolicy)
	}
	if !slices.Contains([]string{"", podSecurityPrivileged, "baseline", "restricted"}, c.PodSecurityDefault) {
		fault("podSecurityDefault: %q is none of privileged, baseline, restricted", c.PodSecurityDefault)
	}
	errs = append(errs, validateResources(c.Resources)...)
	seen := map[string]bool{}
	for _, e := range c.Env {
		switch {
		case !envNamePattern.MatchString(e.Name):
			fault("env: %q is not a variable name (A-Z, 0-9 and _)", e.Name)
		case slices.Contains(computedEnv, e.Name):
			fault("env: %s is worked out for each pod and cannot be set", e.Name)
		case seen[e.Name]:
			fault("env: %s is set twice", e.Name)
		}
		seen[e.Name] = true
	}
	if len(c.ResourceAttributes) > maxAttributes {
		fault("resourceAttributes: more than %d", maxAttributes)
	}
	for _, k := range slices.Sorted(maps.Keys(c.ResourceAttributes)) {
		if err := checkAttribute(k, c.ResourceAttributes[k]); err != nil {
			fault("resourceAttributes: %w", err)
		}
	}
	if _, err := metav1.LabelSelectorAsSelector(c.NamespaceSelector); err != nil {
		fault("namespaceSelector: %w", err)
	}
	if _, err := metav1.LabelSelectorAsSelector(c.ObjectSelector); err != nil {
		fault("objectSelector: %w", err)
	}
	errs = append(errs, c.Files.validate("")...)
	errs = append(errs, c.validateNamespaces()...)
	return errors.Join(errs...)
}

// Selects reports whether the API server asks about pod, of namespace ns.
func (c Config) Selects(pod *corev1.Pod, ns *corev1.Namespace) bool {
	return Selects(c.NamespaceSelector, ns.Labels) && Selects(c.ObjectSelector, pod.Labels)
}

// Selects reports whether s, of a webhook configuration, selects an object with
// these labels: without a selector, or with an invalid one, any.
func Selects(s *metav1.LabelSelector, with map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return s == nil || err != nil || selector.Matches(labels.Set(with))
}

func validateResources(r corev1.ResourceRequirements) (errs []error) {
	if len(r.Claims) > 0 {
		errs = append(errs, errors.New("resources: claims are not supported"))
	}
	allowed := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	for kind, list := range map[string]corev1.ResourceList{"requests": r.Requests, "limits": r.Limits} {
		for name, q := range list {
			if !slices.Contains(allowed, name) {
				errs = append(errs, fmt.Errorf("resources.%s: %q is none of cpu, memory, ephemeral-storage", kind, name))
			}
			if q.Sign() < 0 {
				errs = append(errs, fmt.Errorf("resources.%s.%s: %s is negative", kind, name, q.String()))
			}
		}
	}
	for name, limit := range r.Limits {
		if request, ok := r.Requests[name]; ok && request.Cmp(limit) > 0 {
			errs = append(errs, fmt.Errorf("resources: the %s request %s exceeds the limit %s", name, request.String(), limit.String()))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}
