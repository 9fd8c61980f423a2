package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// caBundle is an authority that is valid until then, as base64 of PEM.
func caBundle(t *testing.T, until time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

const (
	pathWebhooks   = "GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	pathEndpoints  = "GET /apis/discovery.k8s.io/v1/namespaces/spile-system/endpointslices"
	pathNamespaces = "GET /api/v1/namespaces"
	pathPods       = "GET /api/v1/namespaces/shop/pods"
	pathCreate     = "POST /api/v1/namespaces/shop/pods"
)

// answers of an API server of a cluster in which all is well, by method and path.
func answers(t *testing.T) map[string]string {
	webhooks := func(bundle string) string {
		return fmt.Sprintf(`{"items":[{"metadata":{"name":"spile-webhook"},"webhooks":[{"name":"inject.spile.dev","failurePolicy":"Ignore",
			"clientConfig":{"caBundle":%q,"service":{"namespace":"spile-system","name":"spile-webhook"}}}]}]}`, bundle)
	}
	return map[string]string{
		"GET /version":      `{"major":"1","minor":"33+","gitVersion":"v1.33.1"}`,
		"GET /api/v1/nodes": `{"items":[{"metadata":{"name":"a"},"status":{"nodeInfo":{"kernelVersion":"6.12.3-cloud","architecture":"arm64","operatingSystem":"linux"}}}]}`,
		pathWebhooks:        webhooks(caBundle(t, time.Now().AddDate(1, 0, 0))),
		"expired":           webhooks(caBundle(t, time.Now().AddDate(0, 0, -1))),
		"no bundle":         webhooks(""),
		pathEndpoints: `{"items":[{"metadata":{"labels":{"kubernetes.io/service-name":"spile-webhook"}},
			"endpoints":[{"addresses":["10.0.0.1"]},{"addresses":["10.0.0.2"],"conditions":{"ready":true}},{"addresses":["10.0.0.3"],"conditions":{"ready":false}}]},
			{"metadata":{"labels":{"kubernetes.io/service-name":"other"}},"endpoints":[{"addresses":["10.0.0.9"]}]}]}`,
		pathNamespaces: `{"items":[{"metadata":{"name":"plain"}},{"metadata":{"name":"off","annotations":{"spile.dev/inject":"disabled"}}},
			{"metadata":{"name":"shop","annotations":{"spile.dev/inject":"enabled"}}}]}`,
		pathCreate: `{"metadata":{"annotations":{"spile.dev/status":"{\"container\":\"spile-sidecar\"}"}}}`,
		pathPods:   `{"items":[{"metadata":{"name":"x"},"spec":{"initContainers":[{"name":"spile-sidecar"}]}}]}`,
	}
}

func TestCheck(t *testing.T) {
	pods := func(items string) string { return `{"items":[` + items + `]}` }
	for _, c := range []struct {
		name   string
		change func(answers map[string]string)
		status int
		want   []string // lines, in part
	}{
		{"all is well", func(map[string]string) {}, 0, []string{
			"ok       version      Kubernetes v1.33.1", "1 with kernel 6.12: eBPF filter", "1 authorities are trusted", "2 ready pods", "shop: pods are injected", "shop: 1 pods have the sidecar",
		}},
		{
			"old cluster", func(a map[string]string) { a["GET /version"] = `{"minor":"28","gitVersion":"v1.28.0"}` }, 1,
			[]string{"error    version      Kubernetes v1.28.0 has no native sidecars, which need 1.29; upgrade the cluster"},
		},
		{"a kubelet behind the API server", func(a map[string]string) {
			a["GET /api/v1/nodes"] = `{"items":[{"metadata":{"name":"old"},"status":{"nodeInfo":{"kernelVersion":"6.12","kubeletVersion":"v1.28.15-eks-1"}}},
				{"metadata":{"name":"new"},"status":{"nodeInfo":{"kernelVersion":"6.12","kubeletVersion":"v1.31.0"}}}]}`
		}, 1, []string{"error    nodes        node old runs kubelet v1.28.15-eks-1 without native sidecars", "1 with kernel 6.12: eBPF filter"}},
		{"a namespace that is not selected", func(a map[string]string) {
			a[pathWebhooks] = strings.Replace(a[pathWebhooks], `"failurePolicy"`, `"namespaceSelector":{"matchLabels":{"traced":"yes"}},"failurePolicy"`, 1)
		}, 1, []string{"error    namespace    shop: pods are not injected: the webhook is not called, for it selects namespaces by traced=yes; give it the labels"}},
		{"pods that are not selected", func(a map[string]string) {
			a[pathWebhooks] = strings.Replace(a[pathWebhooks], `"failurePolicy"`, `"objectSelector":{"matchExpressions":[{"key":"traced","operator":"Exists"}]},"failurePolicy"`, 1)
			a[pathCreate] = `{"metadata":{}}`
			a[pathPods] = pods(`{"metadata":{"name":"x"}}`)
		}, 0, []string{"warning  namespace    shop: what becomes of pods cannot be tried: the webhook selects them by traced; see"}},
		{"pods that were not injected", func(a map[string]string) {
			a[pathPods] = pods(`{"metadata":{"name":"x","annotations":{"spile.dev/status":"{\"reason\":\"name_conflict\"}"}}},
				{"metadata":{"name":"y","annotations":{"spile.dev/status":"{\"reason\":\"host_network\"}"}}}`)
		}, 0, []string{"warning  pods         shop: 1 pods were not injected: host_network; nothing to do", "warning  pods         shop: 1 pods were not injected: name_conflict; rename"}},
		{"nodes", func(a map[string]string) {
			a["GET /api/v1/nodes"] = `{"items":[{"metadata":{"name":"old"},"status":{"nodeInfo":{"kernelVersion":"4.18.0-553.el8"}}},
				{"metadata":{"name":"win"},"status":{"nodeInfo":{"operatingSystem":"windows"}}},{"metadata":{"name":"ibm"},"status":{"nodeInfo":{"kernelVersion":"6.1","architecture":"s390x"}}}]}`
		}, 1, []string{"warning  nodes        node old runs kernel 4.18", "node win runs Windows", "error    nodes        node ibm is of architecture s390x"}},
		{"not installed", func(a map[string]string) { a[pathWebhooks] = `{"items":[]}` }, 1, []string{"error    webhook      Spile is not installed", "helm install"}},
		{"expired", func(a map[string]string) { a[pathWebhooks] = a["expired"] }, 1, []string{"error    certificate  the authority in mutatingwebhookconfiguration spile-webhook expired on"}},
		{"no authority", func(a map[string]string) { a[pathWebhooks] = a["no bundle"] }, 1, []string{"error    certificate  mutatingwebhookconfiguration spile-webhook has no caBundle"}},
		{"no servers", func(a map[string]string) { a[pathEndpoints] = `{"items":[]}` }, 1, []string{"error    webhook      service spile-system/spile-webhook has no ready pod"}},
		{"not called", func(a map[string]string) { a[pathCreate] = `{"metadata":{}}` }, 1, []string{"error    namespace    shop: the webhook was not called"}},
		{"refused by a level", func(a map[string]string) {
			a[pathCreate] = `{"metadata":{"annotations":{"spile.dev/status":"{\"reason\":\"pod_security\",\"message\":\"namespace shop enforces\\u001b[31m\"}"}}}`
		}, 1, []string{"error    namespace    shop: pods are not injected: pod_security: namespace shop enforces"}},
		{"rejected for the sidecar's sake", func(a map[string]string) {
			a["REFUSE "+pathCreate] = `violates PodSecurity "baseline:latest"`
		}, 1, []string{`error    namespace    shop: pods are rejected because of the sidecar: violates PodSecurity "baseline:latest" (403); annotate it spile.dev/inject=disabled`}},
		{
			"may not create pods", func(a map[string]string) { delete(a, pathCreate) }, 0,
			[]string{"warning  namespace    shop: what the webhook makes of pods cannot be tried: forbidden (403); see what rejects pods there"},
		},
		{"nobody asks", func(a map[string]string) {
			a[pathNamespaces] = `{"items":[{"metadata":{"name":"default"}}]}`
			a["POST /api/v1/namespaces/default/pods"] = a[pathCreate]
		}, 0, []string{"warning  namespaces   no namespace is annotated; kubectl annotate", "ok       namespace    default: pods are injected"}},
		{"bare pods and a missing image", func(a map[string]string) {
			a[pathPods] = pods(`{"metadata":{"name":"bare"}},{"metadata":{"name":"done"},"status":{"phase":"Succeeded"}},
				{"metadata":{"name":"off","annotations":{"spile.dev/inject":"disabled"}}},
				{"metadata":{"name":"y","namespace":"shop"},"spec":{"initContainers":[{"name":"spile-sidecar"}]},"status":{"initContainerStatuses":[
				{"name":"spile-sidecar","image":"i:1","state":{"waiting":{"reason":"ImagePullBackOff"}}}]}}`)
		}, 1, []string{"warning  pods         shop: 1 pods run without the sidecar", "error    pods         shop: the sidecar of pod y does not start: ImagePullBackOff ; let the nodes pull i:1"}},
		{
			"may not look", func(a map[string]string) { delete(a, "GET /api/v1/nodes"); delete(a, pathPods) }, 0,
			[]string{"warning  nodes        nodes cannot be looked at: forbidden (403); check again as somebody who may", "warning  pods         pods of shop"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := answers(t)
			c.change(a)
			startCluster(t, a)
			status, stdout, stderr := spile(t, "check")
			if status != c.status || stderr != "" {
				t.Errorf("exit status %d, standard error %q, want %d", status, stderr, c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("output lacks %q:\n%s", want, stdout)
				}
			}
			for line := range strings.Lines(stdout) {
				if !strings.HasPrefix(line, "ok ") && !strings.Contains(line, "; ") {
					t.Errorf("says not what to do: %s", line)
				}
			}
			if strings.Contains(stdout, "\x1b") {
				t.Errorf("output has control characters: %q", stdout)
			}
		})
	}
}

// startCluster serves answers, and 403 for all else, and points KUBECONFIG at it.
func startCluster(t *testing.T, answers map[string]string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if refusal, ok := answers["REFUSE "+r.Method+" "+r.URL.Path]; ok && !bytes.Contains(body, []byte(`"spile.dev/inject":"disabled"`)) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"kind":"Status","message":%q}`, refusal)
			return
		}
		if answer, ok := answers[r.Method+" "+r.URL.Path]; ok {
			fmt.Fprint(w, answer)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","message":"forbidden"}`)
	}))
	t.Cleanup(server.Close)
	config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],
		"contexts":[{"name":"c","context":{"cluster":"c"}}]}`, server.URL)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", path)
}

func TestCheckJSON(t *testing.T) {
	startCluster(t, answers(t))
	_, stdout, _ := spile(t, "check", "-o", "json")
	for line := range strings.Lines(stdout) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Severity != fine || f.Check == "" || f.Message == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestCheckWithoutCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, args := range [][]string{{"check"}, {"check", "--context", "none"}} {
		if status, stdout, stderr := spile(t, args...); status != 1 || stdout != "" || !strings.HasPrefix(stderr, "spile check: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d, output %q, standard error %q", args, status, stdout, stderr)
		}
	}
	if status, _, stderr := spile(t, "check", "-o", "xml"); status != 2 || !strings.Contains(stderr, "want table or json") {
		t.Errorf("exit status %d, standard error %q", status, stderr)
	}
}
