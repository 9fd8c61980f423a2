package webhook

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// identity is what a pod is to OpenTelemetry: what its main container says by
// OTEL_* variables, before resource.opentelemetry.io/ annotations, before what the
// OpenTelemetry semantic conventions derive of a pod, as far as it is known before
// the pod exists. What is not (name, uid, node) is
// left to the kubelet as $(SPILE_POD_NAME) and its kind.
type identity struct {
	serviceName string            // ready for OTEL_SERVICE_NAME
	attributes  map[string]string // values percent-encoded or a reference
}

const (
	// resource.opentelemetry.io/<attribute> on a pod sets a resource attribute.
	attributePrefix = "resource.opentelemetry.io/"

	maxAttributes      = 32
	maxAttributeLength = 256

	podNameReference  = "$(" + envPodName + ")"
	podUIDReference   = "$(" + envPodUID + ")"
	nodeNameReference = "$(" + envNodeName + ")"
)

func identify(pod *corev1.Pod, namespace string, c Config) (identity, []string) {
	a := map[string]string{}
	set := func(attributes map[string]string) {
		for k, v := range attributes {
			a[k] = percentEncode(v)
		}
	}
	workload := owners(pod)
	chosen, warnings := annotated(pod.Annotations)
	main := mainContainer(pod)
	maps.Copy(chosen, explicit(main))

	set(c.ResourceAttributes)
	set(map[string]string{"k8s.namespace.name": namespace, "service.namespace": namespace})
	set(workload)
	if v := serviceVersion(pod, main); checkAttribute("service.version", v) == nil {
		a["service.version"] = percentEncode(v)
	}
	a["k8s.pod.name"] = podNameReference
	a["k8s.pod.uid"] = podUIDReference
	a["k8s.node.name"] = nodeNameReference
	a["service.instance.id"] = percentEncode(namespace) + "." + podNameReference + "." + percentEncode(main.Name)
	set(chosen)

	// OTEL_SERVICE_NAME takes precedence over the attribute and is not encoded.
	delete(a, "service.name")
	name := strings.ReplaceAll(chosen["service.name"], "$", "$$")
	if name == "" {
		name = serviceName(pod, workload, c)
	}
	return identity{serviceName: name, attributes: a}, warnings
}

// annotated reads resource.opentelemetry.io/ annotations, bounded so that no
// annotation can make the container unstartable.
func annotated(annotations map[string]string) (attributes map[string]string, warnings []string) {
	attributes = map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, attributePrefix)
		if !ok {
			continue
		}
		err := checkAttribute(name, annotations[key])
		if err == nil && len(attributes) == maxAttributes {
			err = fmt.Errorf("there are more than %d", maxAttributes)
		}
		if err == nil {
			attributes[name] = annotations[key]
		} else if len(warnings) < maxWarnings {
			warnings = append(warnings, fmt.Sprintf("annotation %s on the pod is ignored: %v", quote(key), err))
		}
	}
	return attributes, warnings
}

func checkAttribute(name, value string) error {
	switch {
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f || notWord(r) && r != '.' && r != '-' }):
		return fmt.Errorf("%s is not an attribute name (letters, digits, '.', '_' and '-')", quote(name))
	case value == "":
		return fmt.Errorf("the value of %s is empty", name)
	case len(value) > maxAttributeLength:
		return fmt.Errorf("the value of %s has more than %d bytes", name, maxAttributeLength)
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return errors.New("the value of " + name + " is not text")
	}
	return nil
}

// owners names the workload that controls pod. Kubernetes does not look at the
// name in a reference: what cannot be an attribute is no workload's.
func owners(pod *corev1.Pod) map[string]string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || checkAttribute("k8s.owner.name", owner.Name) != nil {
		return nil
	}
	a := map[string]string{}
	switch owner.Kind {
	case "ReplicaSet":
		a["k8s.replicaset.name"] = owner.Name
		// A Deployment names its ReplicaSets <deployment>-<pod-template-hash>.
		if hash := pod.Labels["pod-template-hash"]; hash != "" {
			if deployment, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && deployment != "" {
				a["k8s.deployment.name"] = deployment
			}
		}
	case "Deployment":
		// Of a template that is looked at before its Deployment exists.
		a["k8s.deployment.name"] = owner.Name
	case "StatefulSet":
		a["k8s.statefulset.name"] = owner.Name
	case "DaemonSet":
		a["k8s.daemonset.name"] = owner.Name
	case "Job":
		a["k8s.job.name"] = owner.Name
		if cronJob := cronJobOf(owner.Name); cronJob != "" {
			a["k8s.cronjob.name"] = cronJob
		}
	case "CronJob":
		a["k8s.cronjob.name"] = owner.Name
	}
	return a
}

var scheduledJob = regexp.MustCompile(`^(.+)-([0-9]{8})$`)

// cronJobOf derives a CronJob's name from that of a Job that it created, or
// returns "". The controller appends the scheduled time in minutes since 1970;
// numbers before 2019 are taken for something else, such as a date (20261123).
func cronJobOf(job string) string {
	m := scheduledJob.FindStringSubmatch(job)
	if m == nil {
		return ""
	}
	const year2019 = 25_772_000
	if minutes, err := strconv.Atoi(m[2]); err != nil || minutes < year2019 {
		return ""
	}
	return m[1]
}

// serviceName for a pod without a service.name annotation.
func serviceName(pod *corev1.Pod, workload map[string]string, c Config) string {
	if c.ServiceNameFromLabels {
		for _, label := range []string{"app.kubernetes.io/instance", "app.kubernetes.io/name"} {
			if v := pod.Labels[label]; v != "" {
				return v
			}
		}
	}
	for _, kind := range []string{"deployment", "replicaset", "statefulset", "daemonset", "cronjob", "job"} {
		if v := workload["k8s."+kind+".name"]; v != "" {
			return v
		}
	}
	if pod.Name != "" {
		return pod.Name
	}
	return podNameReference
}

// mainContainer is the one that the pod is about, if it says so, or the first.
func mainContainer(pod *corev1.Pod) corev1.Container {
	name := pod.Annotations["kubectl.kubernetes.io/default-container"]
	for _, c := range pod.Spec.Containers {
		if c.Name == name {
			return c
		}
	}
	if len(pod.Spec.Containers) == 0 {
		return corev1.Container{}
	}
	return pod.Spec.Containers[0]
}

// serviceVersion is the label that says so, or else the tag and digest of the image.
func serviceVersion(pod *corev1.Pod, main corev1.Container) string {
	if v := pod.Labels["app.kubernetes.io/version"]; v != "" {
		return v
	}
	return imageVersion(main.Image)
}

// imageVersion is the tag and digest of an image reference: "1.2", "1.2@sha256:…",
// or "" if there is neither.
func imageVersion(image string) string {
	rest := strings.TrimPrefix(image, repository(image))
	return strings.TrimPrefix(strings.TrimPrefix(rest, ":"), "@")
}

// encode returns the attributes as OTEL_RESOURCE_ATTRIBUTES wants them: sorted,
// "key=value", separated by commas.
func (id identity) encode() string {
	pairs := make([]string, 0, len(id.attributes))
	for _, key := range slices.Sorted(maps.Keys(id.attributes)) {
		pairs = append(pairs, key+"="+id.attributes[key])
	}
	return strings.Join(pairs, ",")
}

// percentEncode escapes what W3C Baggage, whose syntax OTEL_RESOURCE_ATTRIBUTES
// borrows, does not allow in a value, and '$', which Kubernetes expands.
func percentEncode(v string) string {
	var b strings.Builder
	for i := range len(v) {
		if c := v[i]; isAlphanumeric(c) || strings.IndexByte("-._~:/@+!*'()", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
