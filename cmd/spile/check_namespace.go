package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spile-dev/spile/webhook"
)

// maxNamespaces bounds the annotated namespaces that are looked at.
const maxNamespaces = 100

// namespaces creates a pod in every annotated namespace, as a dry run, and looks
// at what the webhook made of it.
func (c *checker) namespaces(ctx context.Context) {
	all, err := list[metav1.PartialObjectMetadata](ctx, c.api, "/api/v1/namespaces")
	if err != nil {
		c.unknown("namespaces", "namespaces", err)
		return
	}
	var annotated []string
	for _, ns := range all {
		value, ok := ns.Annotations[webhook.AnnotationInject]
		switch {
		case !ok || value == "disabled" || value == "false":
		case !webhook.Selects(c.namespaceSelector, ns.Labels):
			c.find(wrong, "namespace", "give it the labels, or kubectl annotate namespace "+ns.Name+" "+webhook.AnnotationInject+"-",
				"%s: pods are not injected: the webhook is not called, for it selects namespaces by %s", ns.Name, metav1.FormatLabelSelector(c.namespaceSelector))
		default:
			annotated = append(annotated, ns.Name)
		}
	}
	if len(annotated) == 0 {
		c.find(caution, "namespaces", "kubectl annotate namespace NAMESPACE "+webhook.AnnotationInject+"=enabled", "no namespace is annotated")
		if webhook.Selects(c.namespaceSelector, map[string]string{corev1.LabelMetadataName: metav1.NamespaceDefault}) {
			c.probe(ctx, metav1.NamespaceDefault)
		}
		return
	}
	if len(annotated) > maxNamespaces {
		c.find(caution, "namespaces", "see the others' pods yourself", "%d namespaces are annotated, the first %d are looked at", len(annotated), maxNamespaces)
		annotated = annotated[:maxNamespaces]
	}
	for _, name := range annotated {
		c.probe(ctx, name)
		c.pods(ctx, name)
	}
}

// probe tells what becomes of a pod in a namespace, by creating one as a dry run.
func (c *checker) probe(ctx context.Context, namespace string) {
	const check = "namespace"
	consent := map[string]string{}
	if namespace == metav1.NamespaceDefault {
		consent[webhook.AnnotationInject] = "enabled"
	}
	made, err := c.create(ctx, namespace, consent)
	if err != nil {
		c.rejected(ctx, namespace, err)
		return
	}
	var status webhook.Status
	if json.Unmarshal([]byte(made.Annotations[webhook.AnnotationStatus]), &status) != nil {
		if !webhook.Selects(c.objectSelector, made.Labels) {
			c.find(caution, check, "see the status of pods that it selects", "%s: what becomes of pods cannot be tried: the webhook selects them by %s",
				namespace, metav1.FormatLabelSelector(c.objectSelector))
			return
		}
		c.find(wrong, check, "see the log of the webhook, and let the API server reach its port (firewall, NetworkPolicy)",
			"%s: the webhook was not called, or its answer not used", namespace)
		return
	}
	if status.Container == "" {
		c.find(wrong, check, remedy(status.Reason, namespace), "%s: pods are not injected: %s: %s", namespace, status.Reason, status.Message)
		return
	}
	c.find(fine, check, "", "%s: pods are injected", namespace)
}

func (c *checker) create(ctx context.Context, namespace string, annotations map[string]string) (made corev1.Pod, err error) {
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	pod.GenerateName, pod.Annotations = "spile-check-", annotations
	if c.objectSelector != nil {
		pod.Labels = c.objectSelector.MatchLabels
	}
	pod.Spec.Containers = []corev1.Container{{
		Name: "check", Image: "registry.k8s.io/pause:3.10", Resources: probeResources(), SecurityContext: probeSecurity(),
	}}
	err = c.api.call(ctx, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All", pod, &made)
	return made, err
}

// rejected tells whether a pod was rejected because of the sidecar: a pod that
// opts out is then admitted.
func (c *checker) rejected(ctx context.Context, namespace string, because error) {
	const check = "namespace"
	var r *refusal
	if _, err := c.create(ctx, namespace, map[string]string{webhook.AnnotationInject: "disabled"}); err == nil && errors.As(because, &r) {
		c.find(wrong, check, "annotate it "+webhook.AnnotationInject+"=disabled until that policy admits the capabilities BPF and NET_RAW; if it is the cluster's default Pod Security level, set webhook.podSecurityDefault of the chart",
			"%s: pods are rejected because of the sidecar: %v", namespace, because)
		return
	}
	advice := "see what rejects pods there"
	if errors.As(because, &r) && r.code == http.StatusForbidden && strings.Contains(r.message, "cannot create resource") {
		advice = "check again as somebody who may create pods there"
	}
	c.find(caution, check, advice, "%s: what the webhook makes of pods cannot be tried: %v", namespace, because)
}

// remedy for pods that are not injected.
func remedy(r webhook.Reason, namespace string) string {
	switch r {
	case webhook.ReasonPodSecurity:
		return "see Guard in docs/injection.md for how to keep the level for all but the sidecar"
	case webhook.ReasonSystemNamespace:
		return "remove the annotation: kubectl annotate namespace " + namespace + " " + webhook.AnnotationInject + "-"
	case webhook.ReasonInvalidAnnotation:
		return "kubectl annotate namespace " + namespace + " " + webhook.AnnotationInject + "=enabled --overwrite"
	case webhook.ReasonLimitRange, webhook.ReasonResourceQuota:
		return "change it, or sidecar.resources of the chart"
	case webhook.ReasonPodResources:
		return "give the pods as a whole (spec.resources) what sidecar.resources of the chart needs"
	case webhook.ReasonNameConflict:
		return "rename their container or volume that has a name of Spile's"
	case webhook.ReasonHostNetwork, webhook.ReasonHostUsers, webhook.ReasonWindows, webhook.ReasonFargate:
		return "nothing to do: such pods cannot be captured"
	case webhook.ReasonNoNativeSidecars:
		return "upgrade the cluster"
	}
	return "see docs/injection.md for the reason"
}

// probeResources satisfy a quota that demands them.
func probeResources() corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// probeSecurity satisfies the Pod Security level restricted, so that what is
// rejected is rejected for the sidecar's sake.
func probeSecurity() *corev1.SecurityContext {
	yes, no := true, false
	return &corev1.SecurityContext{
		RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// pods looks at the pods that a namespace has.
func (c *checker) pods(ctx context.Context, namespace string) {
	pods, err := list[corev1.Pod](ctx, c.api, "/api/v1/namespaces/"+namespace+"/pods")
	if err != nil {
		c.unknown("pods", "pods of "+namespace, err)
		return
	}
	injected, bare := 0, 0
	skipped := map[webhook.Reason]int{}
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		has := slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == webhook.ContainerName })
		value := p.Annotations[webhook.AnnotationInject]
		status := p.Annotations[webhook.AnnotationStatus]
		var s webhook.Status
		switch {
		case has:
			injected++
			c.start(p)
		case value == "disabled" || value == "false" || !webhook.Selects(c.objectSelector, p.Labels):
		case status == "":
			bare++
		case json.Unmarshal([]byte(status), &s) == nil && s.Reason != webhook.Injected:
			skipped[s.Reason]++
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		c.find(caution, "pods", remedy(reason, namespace), "%s: %d pods were not injected: %s", namespace, skipped[reason], reason)
	}
	if bare > 0 {
		c.find(caution, "pods", "create them anew: kubectl rollout restart deployment -n "+namespace,
			"%s: %d pods run without the sidecar, created before the annotation or while the webhook was away", namespace, bare)
	}
	if injected > 0 {
		c.find(fine, "pods", "", "%s: %d pods have the sidecar", namespace, injected)
	}
}

// start tells of a sidecar that does not start.
func (c *checker) start(p *corev1.Pod) {
	for _, s := range p.Status.InitContainerStatuses {
		if s.Name != webhook.ContainerName || s.State.Waiting == nil {
			continue
		}
		advice := "kubectl -n " + p.Namespace + " describe pod " + p.Name
		if strings.Contains(s.State.Waiting.Reason, "Image") {
			advice = "let the nodes pull " + s.Image
		}
		if s.State.Waiting.Reason != "PodInitializing" && s.State.Waiting.Reason != "ContainerCreating" {
			c.find(wrong, "pods", advice, "%s: the sidecar of pod %s does not start: %s %s", p.Namespace, p.Name, s.State.Waiting.Reason, s.State.Waiting.Message)
		}
	}
}
