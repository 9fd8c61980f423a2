package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spile-dev/spile/webhook"
)

const (
	webhookName = "inject.spile.dev"
	// firstMinor of Kubernetes 1 has native sidecars without a feature gate.
	firstMinor = 29
	// maxNamespaces bounds the annotated namespaces that are looked at.
	maxNamespaces = 100
)

func (c *checker) version(ctx context.Context) error {
	var v struct{ Minor, GitVersion string }
	if err := c.api.get(ctx, "/version", &v); err != nil {
		return err
	}
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	switch {
	case err != nil:
		c.find(caution, "version", "", "the minor version of Kubernetes is %q", v.Minor)
	case minor < firstMinor:
		c.find(wrong, "version", "upgrade the cluster", "Kubernetes %s has no native sidecars, which need 1.%d", v.GitVersion, firstMinor)
	default:
		c.find(fine, "version", "", "Kubernetes %s", v.GitVersion)
	}
	return nil
}

// unknown tells of what could not be looked at.
func (c *checker) unknown(check, what string, err error) {
	advice := ""
	var r *refusal
	if errors.As(err, &r) && r.code == http.StatusForbidden {
		advice = "check again as somebody who may"
	}
	c.find(caution, check, advice, "%s cannot be looked at: %v", what, err)
}

var kernelPattern = regexp.MustCompile(`^(\d+)\.(\d+)`)

// nodes groups the nodes by what Spile can do there.
func (c *checker) nodes(ctx context.Context) {
	nodes, err := list[corev1.Node](ctx, c.api, "/api/v1/nodes")
	if err != nil {
		c.unknown("nodes", "nodes", err)
		return
	}
	kernels := map[string]int{}
	for _, n := range nodes {
		info := n.Status.NodeInfo
		m := kernelPattern.FindStringSubmatch(info.KernelVersion)
		switch {
		case info.OperatingSystem == "windows":
			c.find(caution, "nodes", "", "node %s runs Windows, its pods are not injected", n.Name)
		case info.Architecture != "" && info.Architecture != "amd64" && info.Architecture != "arm64":
			c.find(wrong, "nodes", "keep annotated pods from it", "node %s is of architecture %s, there are images for amd64 and arm64", n.Name, info.Architecture)
		case m == nil:
			c.find(caution, "nodes", "", "node %s runs kernel %q", n.Name, info.KernelVersion)
		default:
			major, _ := strconv.Atoi(m[1])
			minor, _ := strconv.Atoi(m[2])
			if major < 5 || major == 5 && minor < 8 {
				c.find(caution, "nodes", "upgrade its kernel to 5.8 or later", "node %s runs kernel %s without CAP_BPF: sidecars there copy more packets", n.Name, info.KernelVersion)
				continue
			}
			kernels[m[0]]++
		}
	}
	for _, kernel := range slices.Sorted(maps.Keys(kernels)) {
		c.find(fine, "nodes", "", "%d with kernel %s: eBPF filter", kernels[kernel], kernel)
	}
}

// webhook looks at the webhook's configuration and servers; false if there is none.
func (c *checker) webhook(ctx context.Context) bool {
	configs, err := list[admissionregistrationv1.MutatingWebhookConfiguration](ctx, c.api, "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations")
	if err != nil {
		c.unknown("webhook", "webhook configurations", err)
		return true
	}
	found := 0
	for _, config := range configs {
		for _, w := range config.Webhooks {
			if w.Name != webhookName {
				continue
			}
			found++
			c.authority(config.Name, w.ClientConfig.CABundle)
			if w.FailurePolicy != nil && *w.FailurePolicy == admissionregistrationv1.Fail {
				c.find(caution, "webhook", "set webhook.failurePolicy=Ignore", "with failurePolicy Fail no pod is created while the webhook is away")
			}
			if s := w.ClientConfig.Service; s != nil {
				c.servers(ctx, s.Namespace, s.Name)
			}
		}
	}
	switch {
	case found == 0:
		c.find(wrong, "webhook", "install it: helm install spile charts/spile -n spile-system --create-namespace --set otlp.endpoint=URL", "Spile is not installed: no webhook %s", webhookName)
	case found > 1:
		c.find(wrong, "webhook", "uninstall all releases but one", "%d webhooks are named %s", found, webhookName)
	}
	return found > 0
}

// authority looks at whom the API server trusts.
func (c *checker) authority(name string, bundle []byte) {
	const advice = "look at the log of the webhook, which keeps it"
	var until time.Time
	n := 0
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		n++
		if cert.NotAfter.After(until) {
			until = cert.NotAfter
		}
	}
	switch {
	case n == 0:
		c.find(wrong, "certificate", advice, "mutatingwebhookconfiguration %s has no caBundle: the API server cannot call the webhook", name)
	case !c.now().Before(until):
		c.find(wrong, "certificate", advice, "the authority in mutatingwebhookconfiguration %s expired on %s", name, until.Format(time.DateOnly))
	default:
		c.find(fine, "certificate", "", "%d authorities are trusted, until %s", n, until.Format(time.DateOnly))
	}
}

func (c *checker) servers(ctx context.Context, namespace, service string) {
	parts, err := list[discoveryv1.EndpointSlice](ctx, c.api, "/apis/discovery.k8s.io/v1/namespaces/"+namespace+"/endpointslices")
	if err != nil {
		c.unknown("webhook", "endpoints of service "+namespace+"/"+service, err)
		return
	}
	ready := map[string]bool{}
	for _, s := range parts {
		if s.Labels[discoveryv1.LabelServiceName] != service {
			continue
		}
		for _, e := range s.Endpoints {
			if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
				ready[e.Addresses[0]] = true
			}
		}
	}
	switch len(ready) {
	case 0:
		c.find(wrong, "webhook", "look at the pods of namespace "+namespace, "service %s/%s has no ready pod", namespace, service)
	case 1:
		c.find(caution, "webhook", "run two: replicaCount=2", "service %s/%s has one ready pod: new pods are not injected while it restarts", namespace, service)
	default:
		c.find(fine, "webhook", "", "%d ready pods behind service %s/%s", len(ready), namespace, service)
	}
}

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
		if value, ok := ns.Annotations[webhook.AnnotationInject]; ok && value != "disabled" && value != "false" {
			annotated = append(annotated, ns.Name)
		}
	}
	if len(annotated) == 0 {
		c.find(caution, "namespaces", "kubectl annotate namespace NAMESPACE "+webhook.AnnotationInject+"=enabled", "no namespace is annotated")
		c.probe(ctx, "default")
		return
	}
	if len(annotated) > maxNamespaces {
		c.find(caution, "namespaces", "", "%d namespaces are annotated, the first %d are looked at", len(annotated), maxNamespaces)
		annotated = annotated[:maxNamespaces]
	}
	for _, name := range annotated {
		c.probe(ctx, name)
		c.pods(ctx, name)
	}
}

// probe tells what becomes of a pod in a namespace.
func (c *checker) probe(ctx context.Context, namespace string) {
	const check = "namespace"
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	pod.GenerateName = "spile-check-"
	if namespace == "default" {
		pod.Annotations = map[string]string{webhook.AnnotationInject: "enabled"}
	}
	pod.Spec.Containers = []corev1.Container{{Name: "check", Image: "registry.k8s.io/pause:3.10", Resources: probeResources()}}
	var made corev1.Pod
	if err := c.api.call(ctx, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All", pod, &made); err != nil {
		c.find(caution, check, "", "%s: what the webhook makes of pods cannot be tried: %v", namespace, err)
		return
	}
	var status webhook.Status
	if json.Unmarshal([]byte(made.Annotations[webhook.AnnotationStatus]), &status) != nil {
		c.find(wrong, check, "look at the log of the webhook, and let the API server reach its port (firewall, NetworkPolicy)",
			"%s: the webhook was not called, or its answer not used", namespace)
		return
	}
	if status.Container == "" {
		c.find(wrong, check, "", "%s: pods are not injected: %s: %s", namespace, status.Reason, status.Message)
		return
	}
	c.find(fine, check, "", "%s: pods are injected", namespace)
}

// probeResources satisfy a quota that demands them.
func probeResources() corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// pods looks at the pods that a namespace has.
func (c *checker) pods(ctx context.Context, namespace string) {
	pods, err := list[corev1.Pod](ctx, c.api, "/api/v1/namespaces/"+namespace+"/pods")
	if err != nil {
		c.unknown("pods", "pods of "+namespace, err)
		return
	}
	injected, bare := 0, 0
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		has := slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == webhook.ContainerName })
		value := p.Annotations[webhook.AnnotationInject]
		switch {
		case has:
			injected++
			c.start(p)
		case value != "disabled" && value != "false" && p.Annotations[webhook.AnnotationStatus] == "":
			bare++
		}
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
		advice := ""
		if strings.Contains(s.State.Waiting.Reason, "Image") {
			advice = "let the nodes pull " + s.Image
		}
		if s.State.Waiting.Reason != "PodInitializing" && s.State.Waiting.Reason != "ContainerCreating" {
			c.find(wrong, "pods", advice, "%s: the sidecar of pod %s does not start: %s %s", p.Namespace, p.Name, s.State.Waiting.Reason, s.State.Waiting.Message)
		}
	}
}
