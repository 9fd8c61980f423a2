package webhook

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// demanded of every container by a quota that counts it; ephemeral storage is not.
var demanded = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
}

// exceeded says how q would reject pod because of a sidecar with resources r,
// with which the pod uses whole; "" if it would not.
func exceeded(q *corev1.ResourceQuota, pod *corev1.Pod, r, whole corev1.ResourceRequirements) string {
	before := isBestEffort(&pod.Spec)
	after := before && !counts(r)
	if !scoped(q, pod, after) {
		return ""
	}
	hard := q.Status.Hard
	if len(hard) == 0 {
		hard = q.Spec.Hard
	}
	// With the sidecar a pod leaves the class BestEffort, and may come under a
	// quota that did not concern it.
	newly := before != after && !scoped(q, pod, before)
	has, uses := counted(r), counted(whole)
	uses[corev1.ResourcePods], uses["count/pods"] = resource.MustParse("1"), resource.MustParse("1")
	for _, name := range slices.Sorted(maps.Keys(hard)) {
		limit := hard[name]
		if slices.Contains(demanded, name) && !podLevel(&pod.Spec) {
			if _, ok := has[name]; !ok {
				return fmt.Sprintf("it demands %s of every container, which sidecar.resources of the chart does not set", name)
			}
			if newly {
				return fmt.Sprintf("it demands %s of every container, now that the pod is not of class BestEffort", name)
			}
		}
		adds := has[name]
		if adds.IsZero() && !newly {
			continue
		}
		used := q.Status.Used[name].DeepCopy()
		used.Add(uses[name])
		if used.Cmp(limit) > 0 {
			return fmt.Sprintf("%s would be %s of %s", name, used.String(), limit.String())
		}
	}
	return ""
}

// counted are the names by which quotas count a pod that uses r.
func counted(r corev1.ResourceRequirements) corev1.ResourceList {
	c := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := r.Requests[name]; ok {
			c[name], c["requests."+name] = q, q
		}
		if q, ok := r.Limits[name]; ok {
			c["limits."+name] = q
		}
	}
	return c
}

// scoped reports whether q concerns pod, if that is of class BestEffort or not.
func scoped(q *corev1.ResourceQuota, pod *corev1.Pod, bestEffort bool) bool {
	requirements := []corev1.ScopedResourceSelectorRequirement{}
	for _, scope := range q.Spec.Scopes {
		requirements = append(requirements, corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		requirements = append(requirements, q.Spec.ScopeSelector.MatchExpressions...)
	}
	for _, r := range requirements {
		terminating := pod.Spec.ActiveDeadlineSeconds != nil
		match := false
		switch r.ScopeName {
		case corev1.ResourceQuotaScopeTerminating:
			match = terminating
		case corev1.ResourceQuotaScopeNotTerminating:
			match = !terminating
		case corev1.ResourceQuotaScopeBestEffort:
			match = bestEffort
		case corev1.ResourceQuotaScopeNotBestEffort:
			match = !bestEffort
		case corev1.ResourceQuotaScopePriorityClass:
			match = selects(r, pod.Spec.PriorityClassName)
		case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			match = crossesNamespaces(pod.Spec.Affinity)
		}
		if !match {
			return false
		}
	}
	return true
}

func selects(r corev1.ScopedResourceSelectorRequirement, class string) bool {
	switch r.Operator {
	case corev1.ScopeSelectorOpExists:
		return class != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return class == ""
	case corev1.ScopeSelectorOpIn:
		return class != "" && slices.Contains(r.Values, class)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(r.Values, class)
	}
	return false
}

// crossesNamespaces reports whether a term of a names or selects namespaces.
func crossesNamespaces(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	var weighted []corev1.WeightedPodAffinityTerm
	if p := a.PodAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted = append(weighted, p.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted = append(weighted, p.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	for _, w := range weighted {
		terms = append(terms, w.PodAffinityTerm)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool {
		return len(t.Namespaces) > 0 || t.NamespaceSelector != nil
	})
}

func isBestEffort(spec *corev1.PodSpec) bool {
	if podLevel(spec) {
		return false
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if counts(c.Resources) {
			return false
		}
	}
	return true
}

// counts reports whether r lifts a pod out of the class BestEffort.
func counts(r corev1.ResourceRequirements) bool {
	for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
		if list.Cpu().Sign() > 0 || list.Memory().Sign() > 0 {
			return true
		}
	}
	return false
}

func podLevel(spec *corev1.PodSpec) bool {
	return spec.Resources != nil && len(spec.Resources.Requests)+len(spec.Resources.Limits) > 0
}
