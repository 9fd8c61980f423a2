package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
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
)

const (
	webhookName = "inject.spile.dev"
	// firstMinor of Kubernetes 1 has native sidecars without a feature gate.
	firstMinor = 29
)

func (c *checker) version(ctx context.Context) error {
	var v struct{ Minor, GitVersion string }
	if err := c.api.get(ctx, "/version", &v); err != nil {
		return err
	}
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	switch {
	case err != nil:
		c.find(caution, "version", fmt.Sprintf("make sure that it is Kubernetes 1.%d or later", firstMinor), "the minor version of Kubernetes is %q", v.Minor)
	case minor < firstMinor:
		c.find(wrong, "version", "upgrade the cluster", "Kubernetes %s has no native sidecars, which need 1.%d", v.GitVersion, firstMinor)
	default:
		c.find(fine, "version", "", "Kubernetes %s", v.GitVersion)
	}
	return nil
}

// unknown tells of what could not be looked at.
func (c *checker) unknown(check, what string, err error) {
	advice := "check again"
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
		case olderKubelet(info.KubeletVersion):
			c.find(wrong, "nodes", fmt.Sprintf("upgrade it to Kubernetes 1.%d or later, or keep annotated pods from it", firstMinor),
				"node %s runs kubelet %s without native sidecars: injected pods do not start there", n.Name, info.KubeletVersion)
		case strings.HasPrefix(n.Name, "gk3-"):
			c.find(caution, "nodes", "let the cluster's administrator allow NET_RAW and BPF; the findings below say whether pods pass",
				"node %s is GKE Autopilot's, which restricts capabilities", n.Name)
		case info.OperatingSystem == "windows":
			c.find(caution, "nodes", "nothing to do", "node %s runs Windows, its pods are not injected", n.Name)
		case info.Architecture != "" && info.Architecture != "amd64" && info.Architecture != "arm64":
			c.find(wrong, "nodes", "keep annotated pods from it", "node %s is of architecture %s, there are images for amd64 and arm64", n.Name, info.Architecture)
		case m == nil:
			c.find(caution, "nodes", "see that it is 5.8 or later", "node %s runs kernel %q", n.Name, info.KernelVersion)
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

var kubeletPattern = regexp.MustCompile(`^v1\.(\d+)\.`)

// olderKubelet reports whether a kubelet, which may be three minor versions
// behind the API server, has no native sidecars.
func olderKubelet(version string) bool {
	m := kubeletPattern.FindStringSubmatch(version)
	if m == nil {
		return false
	}
	minor, err := strconv.Atoi(m[1])
	return err == nil && minor < firstMinor
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
			c.namespaceSelector, c.objectSelector = w.NamespaceSelector, w.ObjectSelector
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
	const advice = "see why in the log of the webhook (or cert-manager's cainjector), which keeps it"
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
		c.find(wrong, "webhook", "see why: kubectl -n "+namespace+" get pods; kubectl -n "+namespace+" logs -l app.kubernetes.io/component=webhook", "service %s/%s has no ready pod", namespace, service)
	case 1:
		c.find(caution, "webhook", "run two: replicaCount=2", "service %s/%s has one ready pod: new pods are not injected while it restarts", namespace, service)
	default:
		c.find(fine, "webhook", "", "%d ready pods behind service %s/%s", len(ready), namespace, service)
	}
}
