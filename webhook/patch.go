package webhook

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
)

// Operation is a JSON patch operation (RFC 6902). Op is always "add": what a pod
// has, also what this version of Spile does not know, stays as it is.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Status is the value of the annotation spile.dev/status, as JSON.
type Status struct {
	// Version of the injector.
	Version string `json:"version"`
	// Container that was added.
	Container string `json:"container,omitempty"`
	// Reason and Message why none was.
	Reason  Reason `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// Patch returns the operations that carry d out on a pod. It reads the pod as
// it came over the wire, not through a Go type, which would lose fields newer
// than the type. A second round on the result has nothing to do.
func Patch(raw []byte, d Decision) ([]Operation, error) {
	status, ok := d.status()
	if !ok {
		return nil, nil
	}
	var pod object
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, fmt.Errorf("parsing pod: %w", err)
	}
	metadata, err := pod.child("metadata")
	if err != nil {
		return nil, err
	}
	spec, err := pod.child("spec")
	if err != nil {
		return nil, err
	}

	ops, err := annotate(metadata, AnnotationStatus, status)
	if err != nil || d.Sidecar == nil {
		return ops, err
	}
	ops = append(ops, appendTo(spec, "volumes", "/spec/volumes", d.Sidecar.Volumes)...)
	return append(ops, appendTo(spec, "initContainers", "/spec/initContainers", []corev1.Container{d.Sidecar.Container})...), nil
}

// status to be written, if any: pods that nobody asked to inject are left alone,
// those that have the sidecar already keep what they were told then, and the
// largest must not grow.
func (d Decision) status() (string, bool) {
	s := Status{Version: d.version, Reason: d.Reason, Message: d.Message}
	switch {
	case d.Sidecar != nil:
		s.Container = d.Sidecar.Container.Name
	case !d.Asked || d.Reason == ReasonAlreadyInjected || d.Reason == ReasonTooLarge:
		return "", false
	}
	b, err := json.Marshal(s)
	return string(b), err == nil
}

// object is a JSON object whose values are kept as they are.
type object map[string]json.RawMessage

func (o object) child(name string) (object, error) {
	if !o.has(name) {
		return nil, fmt.Errorf("the pod has no %s", name)
	}
	var c object
	if err := json.Unmarshal(o[name], &c); err != nil {
		return nil, fmt.Errorf("parsing %s of the pod: %w", name, err)
	}
	return c, nil
}

func (o object) has(name string) bool {
	v, ok := o[name]
	return ok && string(v) != "null"
}

// annotate sets an annotation. It does nothing if the value is there, or if
// there is no room for it: the status is not worth a rejected pod.
func annotate(metadata object, key, value string) ([]Operation, error) {
	const path = "/metadata/annotations"
	if !metadata.has("annotations") {
		return []Operation{{"add", path, map[string]string{key: value}}}, nil
	}
	var annotations map[string]string
	if err := json.Unmarshal(metadata["annotations"], &annotations); err != nil {
		return nil, fmt.Errorf("parsing annotations of the pod: %w", err)
	}
	if annotations[key] == value {
		return nil, nil
	}
	annotations[key] = value
	if validation.ValidateAnnotationsSize(annotations) != nil {
		return nil, nil
	}
	return []Operation{{"add", path + "/" + escape(key), value}}, nil
}

// appendTo appends to an array that may be missing or null.
func appendTo[T any](parent object, name, path string, values []T) (ops []Operation) {
	if !parent.has(name) && len(values) > 0 {
		return []Operation{{"add", path, values}}
	}
	for _, v := range values {
		ops = append(ops, Operation{"add", path + "/-", v})
	}
	return ops
}

// escape makes a key a reference token of a JSON pointer (RFC 6901 section 3).
func escape(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
