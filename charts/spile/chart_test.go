// Package chart tests the chart with the helm command.
package chart

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spile-dev/spile/webhook"
)

var update = flag.Bool("update", false, "write the golden files")

const endpoint = "otlp.endpoint=http://tempo.monitoring:4318"

func TestLint(t *testing.T) {
	if _, err := helm(t, "lint", ".", "--strict", "--set", endpoint); err != nil {
		t.Error(err)
	}
}

func TestGolden(t *testing.T) {
	out, err := template(t, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "default.golden.yaml")
	if *update {
		if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run go test -update", err)
	}
	// The order of kinds is that of the helm version.
	if diff := cmp.Diff(sortedDocuments(string(want)), sortedDocuments(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWrongValues(t *testing.T) {
	tests := []struct {
		name string
		set  []string
		want string // in the message
	}{
		{"no endpoint", nil, "otlp.endpoint is required: the URL of an OTLP receiver"},
		{"endpoint without scheme", []string{"otlp.endpoint=tempo:4318"}, "/otlp/endpoint"},
		{"protocol", []string{endpoint, "otlp.protocol=http"}, "'http/protobuf', 'http/json', 'grpc'"},
		{"unknown value", []string{endpoint, "optl.endpoint=x"}, "'optl' not allowed"},
		{"unknown value below", []string{endpoint, "webhook.timeout=1"}, "'timeout' not allowed"},
		{"failure policy", []string{endpoint, "webhook.failurePolicy=ignore"}, "'Ignore', 'Fail'"},
		{"timeout", []string{endpoint, "webhook.timeoutSeconds=31"}, "/webhook/timeoutSeconds"},
		{"digest", []string{endpoint, "sidecar.image.digest=abc"}, "/sidecar/image/digest"},
		{"pull policy", []string{endpoint, "image.pullPolicy=Sometimes"}, "'Always', 'IfNotPresent', 'Never'"},
		{"env without value", []string{endpoint, "sidecar.env[0].name=A"}, "/sidecar/env/0"},
		{"gpu", []string{endpoint, "sidecar.resources.limits.gpu=1"}, "'gpu' not allowed"},
		{"replicas", []string{endpoint, "replicaCount=two"}, "/replicaCount"},
		{"interval of audits", []string{endpoint, "audit.interval=20"}, "/audit/interval"},
		{"Pod Security level", []string{endpoint, "webhook.podSecurityDefault=none"}, "/webhook/podSecurityDefault"},
		{"duration of cert-manager's certificate", []string{endpoint, "certManager.duration=90d"}, "/certManager/duration"},
		{"flag", []string{endpoint, "extraArgs[0]=cert-validity=1h"}, "/extraArgs/0"},
		{"guard", []string{endpoint, "guard.enabled=yes please"}, "/guard/enabled"},
		{"port of metrics", []string{endpoint, "webhook.port=8080"}, "/webhook/port"},
		{"namespace without endpoint", []string{endpoint, "otlp.namespaces.shop.protocol=grpc"}, "/otlp/namespaces/shop"},
		{"headers from a ConfigMap", []string{endpoint, "otlp.files.headers.configMap=a", "otlp.files.headers.key=b"}, "/otlp/files/headers"},
		{"key without certificate", []string{endpoint, "otlp.files.clientKey.secret=a", "otlp.files.clientKey.key=b"}, "/otlp/files"},
		{"sampler", []string{endpoint, "sidecar.traces.sampler=sometimes"}, "/sidecar/traces/sampler"},
		{"ratio", []string{endpoint, "sidecar.traces.sampler=traceidratio", "sidecar.traces.samplerArgument=2"}, "/sidecar/traces/samplerArgument"},
		{"ratio without its sampler", []string{endpoint, "sidecar.traces.samplerArgument=0.1"}, "/sidecar/traces/sampler"},
		{"no audits by interval", []string{endpoint, "audit.interval=0s"}, "/audit/interval"},
		{"audits without a pause", []string{endpoint, "audit.interval=0.5s"}, "/audit/interval"},
		{"quantity", []string{endpoint, "sidecar.resources.requests.memory=32MB"}, "/sidecar/resources/requests/memory"},
		{"variable that is worked out", []string{endpoint, "sidecar.env[0].name=OTEL_SERVICE_NAME", "sidecar.env[0].value=a"}, "/sidecar/env/0/name"},
		{"name of an attribute", []string{endpoint, "sidecar.resourceAttributes.a b=c"}, "'a b' does not match"},
		{"name of a Secret", []string{endpoint, "otlp.files.headers.secret=A_B", "otlp.files.headers.key=b"}, "/otlp/files/headers/secret"},
		{"nobody's ServiceAccount", []string{endpoint, "serviceAccount.create=false"}, "serviceAccount.name is required"},
		{"propagator", []string{endpoint, "sidecar.traces.propagators[0]=jaeger"}, "/sidecar/traces/propagators"},
		{"unmatched routes", []string{endpoint, "sidecar.traces.routes.unmatched=path"}, "/sidecar/traces/routes"},
		{"exporter of metrics", []string{endpoint, "sidecar.metrics.exporter=statsd"}, "/sidecar/metrics/exporter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := template(t, tt.set...)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("message lacks %q:\n%v", tt.want, err)
			}
		})
	}
}

func TestOldKubernetesIsRefused(t *testing.T) {
	_, err := helm(t, "template", "spile", ".", "--kube-version", "1.28.9", "--set", endpoint)
	if err == nil || !strings.Contains(err.Error(), ">=1.29.0") {
		t.Errorf("got %v", err)
	}
}

func TestWebhookConfiguration(t *testing.T) {
	objects := render(t, "webhook.namespaceSelector.matchLabels.team=a", "webhook.namespaceSelector.matchExpressions[0].key=x",
		"webhook.namespaceSelector.matchExpressions[0].operator=Exists")
	w := find[admissionregistrationv1.MutatingWebhookConfiguration](t, objects, "MutatingWebhookConfiguration").Webhooks[0]
	if *w.FailurePolicy != admissionregistrationv1.Ignore || *w.TimeoutSeconds != 2 ||
		*w.SideEffects != admissionregistrationv1.SideEffectClassNone || *w.ReinvocationPolicy != admissionregistrationv1.IfNeededReinvocationPolicy {
		t.Errorf("policies: %+v", w)
	}
	if len(w.ClientConfig.CABundle) > 0 {
		t.Error("a caBundle in the chart would overwrite the webhook's at every upgrade")
	}
	want := &metav1.LabelSelector{
		MatchLabels: map[string]string{"team": "a"},
		MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "kubernetes.io/metadata.name", Operator: "NotIn", Values: []string{"kube-system", "kube-public", "kube-node-lease", "spile-system"}},
			{Key: "x", Operator: "Exists"},
		},
	}
	if diff := cmp.Diff(want, w.NamespaceSelector); diff != "" {
		t.Errorf("namespaceSelector (-want +got):\n%s", diff)
	}
}

// The webhook reads what the chart writes.
func TestSidecarConfiguration(t *testing.T) {
	objects := render(t, "otlp.protocol=grpc", "otlp.compression=gzip", "otlp.timeout=5000", "otlp.headers.api-key=a b\\,c",
		"sidecar.image.digest=sha256:"+strings.Repeat("0", 64), "sidecar.env[0].name=OTEL_EXPORTER_OTLP_COMPRESSION", "sidecar.env[0].value=none",
		"otlp.namespaces.no.endpoint=http://other:4318", "webhook.namespaceSelector.matchLabels.traced=yes", "webhook.objectSelector.matchExpressions[0].key=x",
		"webhook.objectSelector.matchExpressions[0].operator=Exists",
		"sidecar.resourceAttributes.k8s\\.cluster\\.name=test", "sidecar.serviceNameFromLabels=true", "webhook.podSecurityDefault=baseline")
	data := find[corev1.ConfigMap](t, objects, "ConfigMap").Data["sidecar.yaml"]
	c, err := webhook.ParseConfig([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if want := "ghcr.io/spile-dev/spile-sidecar@sha256:" + strings.Repeat("0", 64); c.Image != want {
		t.Errorf("image %s, want %s", c.Image, want)
	}
	want := []webhook.EnvVar{
		{Name: "OTEL_EXPORTER_OTLP_COMPRESSION", Value: "none"},
		{Name: "OTEL_EXPORTER_OTLP_ENDPOINT", Value: "http://tempo.monitoring:4318"},
		{Name: "OTEL_EXPORTER_OTLP_HEADERS", Value: "api-key=a%20b%2Cc"},
		{Name: "OTEL_EXPORTER_OTLP_PROTOCOL", Value: "grpc"},
		{Name: "OTEL_EXPORTER_OTLP_TIMEOUT", Value: "5000"},
	}
	if diff := cmp.Diff(want, c.Env); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	if len(c.Namespaces["no"].Env) == 0 { // a boolean in YAML 1.1
		t.Errorf("namespaces %+v", c.Namespaces)
	}
	if c.NamespaceSelector.MatchLabels["traced"] != "yes" || c.ObjectSelector.MatchExpressions[0].Key != "x" {
		t.Errorf("selectors %v and %v", c.NamespaceSelector, c.ObjectSelector)
	}
	if c.PodSecurityDefault != "baseline" || !c.ServiceNameFromLabels || c.ResourceAttributes["k8s.cluster.name"] != "test" {
		t.Errorf("configuration %+v", c)
	}
}

func TestDefaultSidecarIsThatOfTheCommandLine(t *testing.T) {
	data := find[corev1.ConfigMap](t, render(t), "ConfigMap").Data["sidecar.yaml"]
	got, err := webhook.ParseConfig([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(webhook.DefaultConfig(got.Image, "http://tempo.monitoring:4318"), got); diff != "" {
		t.Errorf("sidecar (-command line +chart):\n%s", diff)
	}
}

// The permissions are what the webhook needs for what is enabled, by group,
// resource and verb.
func TestPermissions(t *testing.T) {
	base := []string{
		"/limitranges get list watch", "/namespaces get list watch", "/resourcequotas get list watch",
		"admissionregistration.k8s.io/mutatingwebhookconfigurations[spile-webhook] get list watch patch",
	}
	audit := []string{"/pods get list watch", "apps/replicasets get", "events.k8s.io/events create patch"}
	tests := []struct {
		name string
		set  []string
		want []string
	}{
		{"default", nil, append(slices.Clone(base), audit...)},
		{"no audit", []string{"audit.enabled=false", "audit.restart.enabled=true"}, base},
		{"restarts", []string{"audit.restart.enabled=true"}, slices.Concat(base, audit, []string{"/pods/eviction create"})},
		{"cert-manager", []string{"certManager.enabled=true", "audit.enabled=false"}, base[:3]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, rule := range find[rbacv1.ClusterRole](t, render(t, tt.set...), "ClusterRole").Rules {
				for _, resource := range rule.Resources {
					if len(rule.ResourceNames) > 0 {
						resource += fmt.Sprint(rule.ResourceNames)
					}
					got = append(got, fmt.Sprintf("%s/%s %s", rule.APIGroups[0], resource, strings.Join(rule.Verbs, " ")))
				}
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("permissions (-want +got):\n%s", diff)
			}
		})
	}
}

// Every variable that the webhook can set passes the guard.
func TestGuardKnowsTheEnvironment(t *testing.T) {
	policy := find[admissionregistrationv1.ValidatingAdmissionPolicy](t, render(t, "guard.enabled=true"), "ValidatingAdmissionPolicy")
	i := slices.IndexFunc(policy.Spec.Validations, func(v admissionregistrationv1.Validation) bool {
		return strings.Contains(v.Message, "environment")
	})
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}}}
	pod.Annotations = map[string]string{
		"spile.dev/inject": "enabled", "spile.dev/sample-ratio": "1", "spile.dev/log-level": "info", "spile.dev/routes": "/a",
		"spile.dev/capture-headers": "a", "spile.dev/exclude-ports": "1", "spile.dev/exclude-paths": "/a",
	}
	d := webhook.Decide(pod, webhook.Place{Namespace: &corev1.Namespace{}}, webhook.DefaultConfig("x", "http://tempo.monitoring:4318"))
	for _, e := range d.Sidecar.Container.Env {
		want := e.Name
		if e.ValueFrom != nil { // of another field, a tenant could choose the value
			want += "=" + e.ValueFrom.FieldRef.FieldPath
		}
		if !strings.Contains(policy.Spec.Validations[i].Expression, strconv.Quote(want)) {
			t.Errorf("the guard does not know %s", want)
		}
	}
}

func TestChangeOfSidecarRestartsTheWebhook(t *testing.T) {
	checksum := func(set ...string) string {
		return find[appsv1.Deployment](t, render(t, set...), "Deployment").Spec.Template.Annotations["checksum/sidecar"]
	}
	if checksum() == checksum("sidecar.image.tag=other") {
		t.Error("the pod template is the same for another sidecar")
	}
}

// A node short of CPU must not have the webhook restarted on top.
func TestLivenessIsPatient(t *testing.T) {
	probe := find[appsv1.Deployment](t, render(t), "Deployment").Spec.Template.Spec.Containers[0].LivenessProbe
	if probe.TimeoutSeconds < 5 {
		t.Errorf("timeout of %d s", probe.TimeoutSeconds)
	}
}

func TestVariants(t *testing.T) {
	base := kinds(render(t))
	tests := []struct {
		name          string
		set           []string
		added, absent []string
	}{
		{"cert-manager", []string{"certManager.enabled=true"}, []string{"Certificate", "Issuer"}, []string{"Secret"}},
		{"cert-manager without audit", []string{"certManager.enabled=true", "audit.enabled=false"}, nil, []string{"Role", "RoleBinding", "Secret", "Lease"}},
		{"guard", []string{"guard.enabled=true"}, []string{"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}, nil},
		{"cert-manager with an issuer", []string{"certManager.enabled=true", "certManager.issuerRef.name=corp"}, []string{"Certificate"}, []string{"Issuer", "Secret"}},
		{"one replica", []string{"replicaCount=1"}, nil, []string{"PodDisruptionBudget"}},
		{"roles by somebody else", []string{"rbac.create=false", "serviceAccount.create=false", "serviceAccount.name=x"}, nil, []string{"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"}},
		{"no network policy", []string{"networkPolicy.enabled=false"}, nil, []string{"NetworkPolicy"}},
		{"alerts", []string{"prometheusRule.enabled=true"}, []string{"PrometheusRule"}, nil},
		{"further objects", []string{"extraObjects[0].apiVersion=v1", "extraObjects[0].kind=Endpoints", "extraObjects[0].metadata.name=x"}, []string{"Endpoints"}, nil},
		{"Prometheus operator", []string{"serviceMonitor.enabled=true"}, []string{"ServiceMonitor"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := kinds(render(t, tt.set...))
			for _, kind := range tt.added {
				if !slices.Contains(got, kind) || slices.Contains(base, kind) {
					t.Errorf("%s is not added", kind)
				}
			}
			for _, kind := range tt.absent {
				if slices.Contains(got, kind) {
					t.Errorf("%s is there", kind)
				}
			}
		})
	}
}

// An object of another release must not have the same name.
func TestNamesFollowTheRelease(t *testing.T) {
	out, err := helm(t, "template", "second", ".", "--namespace", "other", "--kube-version", "1.29.0", "--set", endpoint)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "  name: "); ok && !strings.HasPrefix(name, "second-spile-webhook") {
			t.Errorf("name %s", name)
		}
	}
}
