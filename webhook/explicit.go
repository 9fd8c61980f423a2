package webhook

import (
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// explicit returns the resource attributes that a container gives its own SDK, by
// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, so that the spans of the two are
// of one service. Only literal values are known here. As the specification says,
// OTEL_RESOURCE_ATTRIBUTES counts as a whole or not at all.
func explicit(c corev1.Container) map[string]string {
	attributes := parseAttributes(literal(c, envResourceAttributes))
	if name := literal(c, envServiceName); name != "" && checkAttribute("service.name", name) == nil {
		attributes["service.name"] = name
	}
	return attributes
}

// literal returns the value of a variable, "" where it is not known before the
// container starts: it comes from elsewhere, or refers to other variables.
func literal(c corev1.Container, name string) (value string) {
	for _, e := range c.Env { // the last one counts
		if e.Name == name {
			value = e.Value
		}
	}
	if strings.Contains(value, "$(") {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(value, "$$", "$"))
}

func parseAttributes(list string) map[string]string {
	attributes := map[string]string{}
	for item := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		key, value, ok := strings.Cut(item, "=")
		key, errKey := url.PathUnescape(strings.TrimSpace(key))
		value, errValue := url.PathUnescape(strings.TrimSpace(value))
		if !ok || errKey != nil || errValue != nil || key == "" || len(attributes) == maxAttributes {
			return map[string]string{}
		}
		if !isOfOneProcess(key) && checkAttribute(key, value) == nil {
			attributes[key] = value
		}
	}
	return attributes
}

// isOfOneProcess reports whether an attribute says something of the container's
// process or of its SDK, and so nothing of the pod's other containers.
func isOfOneProcess(key string) bool {
	return key == "k8s.container.name" || strings.HasPrefix(key, "process.") || strings.HasPrefix(key, "telemetry.")
}
