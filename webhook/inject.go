package webhook

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/json"
)

// Inject decides on a pod as it came over the wire, in JSON, and returns the
// operations that carry the decision out; none if there is nothing to change.
// It fails if raw is not a pod.
func Inject(raw []byte, p Place, c Config) (Decision, []Operation, error) {
	pod := &corev1.Pod{}
	// Kubernetes' field names are case-sensitive, encoding/json's are not.
	if err := json.UnmarshalCaseSensitivePreserveInts(raw, pod); err != nil {
		return Decision{}, nil, fmt.Errorf("parsing pod: %w", err)
	}
	d := Decide(pod, p, c)
	ops, err := Patch(raw, d)
	return d, ops, err
}
