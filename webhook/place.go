package webhook

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Place is where a pod is about to be created.
type Place struct {
	Namespace *corev1.Namespace
	// LimitRanges and ResourceQuotas of the namespace, any of which may reject a
	// pod for what the sidecar adds to it.
	LimitRanges    []corev1.LimitRange
	ResourceQuotas []corev1.ResourceQuota
	// Minor version of Kubernetes 1, 0 if it is not known.
	Minor int
}

// nativeSidecars is the first minor version that has them without a feature gate.
const nativeSidecars = 29

// refusal finds what in the namespace would reject pod with s and does not
// reject it without: the admission plugins LimitRanger and ResourceQuota.
func (p Place) refusal(pod *corev1.Pod, s *Sidecar) (Reason, string) {
	r := p.defaulted(s.Container.Resources)
	for name, limit := range r.Limits {
		if request := r.Requests[name]; request.Cmp(limit) > 0 {
			return ReasonLimitRange, fmt.Sprintf("the namespace's LimitRange sets the sidecar's %s limit to %s, below its request %s",
				name, limit.String(), request.String())
		}
	}
	whole := p.total(&pod.Spec, r)
	for i := range p.LimitRanges {
		l := &p.LimitRanges[i]
		for _, item := range l.Spec.Limits {
			message := ""
			switch item.Type {
			case corev1.LimitTypeContainer:
				message = outside(item, r)
			case corev1.LimitTypePod:
				// What rejects the pod as it came is not our doing.
				if outside(item, p.total(&pod.Spec, corev1.ResourceRequirements{})) == "" {
					message = outside(item, whole)
				}
			}
			if message != "" {
				return ReasonLimitRange, fmt.Sprintf("LimitRange %s would reject the %s with the sidecar: %s; see sidecar.resources of the chart",
					l.Name, item.Type, message)
			}
		}
	}
	for i := range p.ResourceQuotas {
		if message := exceeded(&p.ResourceQuotas[i], pod, r, whole); message != "" {
			return ReasonResourceQuota, fmt.Sprintf("ResourceQuota %s would reject the pod with the sidecar: %s",
				p.ResourceQuotas[i].Name, message)
		}
	}
	return Injected, ""
}

// defaulted is what r becomes in the namespace: a request is its limit if it is
// not set, then the defaults of LimitRanges apply.
func (p Place) defaulted(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	d := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	maps.Copy(d.Requests, r.Limits)
	maps.Copy(d.Requests, r.Requests)
	maps.Copy(d.Limits, r.Limits)
	for _, l := range p.LimitRanges {
		for _, item := range l.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer {
				limits, requests := defaultsOf(item)
				fill(d.Limits, limits)
				fill(d.Requests, requests)
			}
		}
	}
	return d
}

// defaultsOf are a LimitRange's defaults for containers. Those that it does not
// name the API server adds when it stores it, so only one in a file lacks them:
// the limit is the most, the request the limit or, without one, the least.
func defaultsOf(item corev1.LimitRangeItem) (limits, requests corev1.ResourceList) {
	limits, requests = corev1.ResourceList{}, corev1.ResourceList{}
	for _, list := range []corev1.ResourceList{item.Max, item.Default} {
		maps.Copy(limits, list)
	}
	for _, list := range []corev1.ResourceList{item.Min, limits, item.DefaultRequest} {
		maps.Copy(requests, list)
	}
	return limits, requests
}

func fill(list, defaults corev1.ResourceList) {
	for name, q := range defaults {
		if _, ok := list[name]; !ok {
			list[name] = q
		}
	}
}

// outside says how r violates a LimitRange's item, as LimitRanger judges; "" if
// it does not.
func outside(item corev1.LimitRangeItem, r corev1.ResourceRequirements) string {
	for _, name := range slices.Sorted(maps.Keys(item.Min)) {
		least := item.Min[name]
		request, ok := r.Requests[name]
		if !ok || request.Cmp(least) < 0 {
			return fmt.Sprintf("the %s request %s is below the minimum %s", name, shown(request, ok), least.String())
		}
		if limit, ok := r.Limits[name]; ok && limit.Cmp(least) < 0 {
			return fmt.Sprintf("the %s limit %s is below the minimum %s", name, limit.String(), least.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(item.Max)) {
		most := item.Max[name]
		limit, ok := r.Limits[name]
		request := r.Requests[name]
		if !ok || limit.Cmp(most) > 0 || request.Cmp(most) > 0 {
			return fmt.Sprintf("the %s limit %s is not within the maximum %s", name, shown(limit, ok), most.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(item.MaxLimitRequestRatio)) {
		ratio := item.MaxLimitRequestRatio[name]
		request, limit := r.Requests[name], r.Limits[name]
		if request.IsZero() || limit.IsZero() || limit.AsApproximateFloat64() > ratio.AsApproximateFloat64()*request.AsApproximateFloat64() {
			return fmt.Sprintf("the %s limit %s is more than %s times the request %s", name, shown(limit, !limit.IsZero()), ratio.String(), shown(request, !request.IsZero()))
		}
	}
	return ""
}

func shown(q resource.Quantity, set bool) string {
	if !set {
		return "(none)"
	}
	return q.String()
}

// total is what the admission plugins count for a pod with one more native
// sidecar at the end of its init containers.
func (p Place) total(spec *corev1.PodSpec, sidecar corev1.ResourceRequirements) corev1.ResourceRequirements {
	requests := func(r corev1.ResourceRequirements) corev1.ResourceList { return p.defaulted(r).Requests }
	limits := func(r corev1.ResourceRequirements) corev1.ResourceList { return p.defaulted(r).Limits }
	t := corev1.ResourceRequirements{
		Requests: sum(spec, sidecar.Requests, requests),
		Limits:   sum(spec, sidecar.Limits, limits),
	}
	if spec.Resources != nil {
		maps.Copy(t.Requests, spec.Resources.Requests)
		maps.Copy(t.Limits, spec.Resources.Limits)
	}
	return t
}

func sum(spec *corev1.PodSpec, sidecar corev1.ResourceList, of func(corev1.ResourceRequirements) corev1.ResourceList) corev1.ResourceList {
	running, restarting, starting := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range spec.Containers {
		accumulate(running, of(spec.Containers[i].Resources))
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			accumulate(running, of(c.Resources))
			accumulate(restarting, of(c.Resources))
			highest(starting, restarting)
			continue
		}
		now := maps.Clone(restarting)
		accumulate(now, of(c.Resources))
		highest(starting, now)
	}
	accumulate(running, sidecar)
	highest(running, starting)
	return running
}

func accumulate(list, more corev1.ResourceList) {
	for name, q := range more {
		s := list[name].DeepCopy()
		s.Add(q)
		list[name] = s
	}
}

func highest(list, other corev1.ResourceList) {
	for name, q := range other {
		if have, ok := list[name]; !ok || q.Cmp(have) > 0 {
			list[name] = q
		}
	}
}
