//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// check runs spile check and looks at its exit status and its findings. Each
// that is not fine says what to do.
func check(t *testing.T, status int, want ...string) {
	t.Helper()
	out, err := exec.Command(env("E2E_SPILE", "../../bin/spile"), "check").Output()
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	t.Logf("spile check, exit status %d\n%s", got, out)
	if got != status {
		t.Errorf("exit status %d, want %d", got, status)
	}
	for _, w := range want {
		if !strings.Contains(string(out), w) {
			t.Errorf("does not say %q", w)
		}
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "ok ") && !strings.Contains(line, "; ") {
			t.Errorf("says not what to do: %s", line)
		}
	}
}

// testCheckBroken breaks one thing after the other. It ends with a release that
// can be uninstalled.
func (c cluster) testCheckBroken(t *testing.T) {
	t.Run("Pod Security level", func(t *testing.T) {
		kubectl(t, "label", "namespace", bare, "pod-security.kubernetes.io/enforce=baseline")
		time.Sleep(time.Second)
		check(t, 1, bare+": pods are not injected: pod_security", "docs/injection.md")
		kubectl(t, "label", "namespace", bare, "pod-security.kubernetes.io/enforce-")
	})
	t.Run("a policy that the webhook does not know", func(t *testing.T) {
		const policy = `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicy","metadata":{"name":"e2e-no-capabilities"},"spec":{
			"matchConstraints":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"` + bare + `"}},"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}]},
			"validations":[{"message":"no capabilities here","expression":"!has(object.spec.initContainers) || object.spec.initContainers.all(c, !has(c.securityContext) || !has(c.securityContext.capabilities) || !has(c.securityContext.capabilities.add))"}]}}
			{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicyBinding","metadata":{"name":"e2e-no-capabilities"},"spec":{"policyName":"e2e-no-capabilities","validationActions":["Deny"]}}`
		must(t, policy, "kubectl", "apply", "-f", "-")
		t.Cleanup(func() { must(t, policy, "kubectl", "delete", "-f", "-") })
		pod := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"p-"},"spec":{"containers":[{"name":"app","image":"app:1"}]}}`)
		await(t, time.Minute, func() string {
			if _, err := newAPIServer(t).dryRunPod(bare, pod); err == nil {
				return "the policy is not in force"
			}
			return ""
		})
		check(t, 1, bare+": pods are rejected because of the sidecar", "no capabilities here")
	})
	t.Run("missing permissions", func(t *testing.T) {
		binding := kubectl(t, "get", "clusterrolebinding", "spile-webhook", "-o", "yaml")
		kubectl(t, "delete", "clusterrolebinding", "spile-webhook")
		kubectl(t, "-n", release, "delete", "pod", "--all", "--force", "--grace-period=0")
		time.Sleep(10 * time.Second)
		check(t, 1, "has no ready pod", "kubectl -n "+release+" logs", "the webhook was not called")
		must(t, binding, "kubectl", "apply", "-f", "-")
		kubectl(t, "-n", release, "rollout", "status", "deployment/spile-webhook", "--timeout=240s")
	})
	t.Run("no replicas and an expired authority", func(t *testing.T) {
		kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=0")
		kubectl(t, "-n", release, "wait", "pod", "--all", "--for=delete", "--timeout=90s")
		kubectl(t, "patch", "mutatingwebhookconfiguration", "spile-webhook", "--type=json", "-p",
			fmt.Sprintf(`[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":%q}]`, expired(t)))
		check(t, 1, "has no ready pod", "expired on", bare+": the webhook was not called")
		kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=2")
		kubectl(t, "-n", release, "rollout", "status", "deployment/spile-webhook", "--timeout=120s")
		c.awaitInjection(t, bare)
	})
}

// expired is an authority that was valid until yesterday, as base64 of PEM.
func expired(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(0, 0, -1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
