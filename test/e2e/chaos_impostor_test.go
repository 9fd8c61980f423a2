//go:build e2e && chaos

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// impersonate puts a server in the place of the webhook that the API server
// trusts and that answers wrongly, and waits until the API server calls it. The
// webhook must be away: it would take its caBundle back.
func (c *creator) impersonate(t *testing.T, answer string) {
	t.Helper()
	cert, key := serving(t, "spile-webhook."+release+".svc")
	labels := fmt.Sprintf(`{"impostor":%q}`, answer)
	must(t, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"impostor-%[1]s","namespace":%[2]q},"type":"kubernetes.io/tls","data":{"tls.crt":%[3]q,"tls.key":%[4]q}}
		{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"impostor-%[1]s","namespace":%[2]q},"spec":{"selector":{"matchLabels":%[5]s},"template":{"metadata":{"labels":%[5]s},
		"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"app","image":"ghcr.io/spile-dev/spile-e2e-app:%[6]s","imagePullPolicy":"IfNotPresent","args":["impostor","-answer",%[1]q],
		"volumeMounts":[{"name":"certs","mountPath":"/certs"}]}],"volumes":[{"name":"certs","secret":{"secretName":"impostor-%[1]s","defaultMode":292}}]}}}}`,
		answer, release, cert, key, labels, env("E2E_TAG", "e2e")), "kubectl", "apply", "-f", "-")
	kubectl(t, "-n", release, "rollout", "status", "deployment/impostor-"+answer, "--timeout=120s")
	kubectl(t, "patch", "mutatingwebhookconfiguration", "spile-webhook", "--type=json", "-p",
		fmt.Sprintf(`[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":%q}]`, cert))
	service(t, fmt.Sprintf(`{"spec":{"selector":{"impostor":%q,"app.kubernetes.io/name":null,"app.kubernetes.io/instance":null,"app.kubernetes.io/component":null},
		"ports":[{"name":"https","port":443,"targetPort":8443}]}}`, answer))
	calls := func() string {
		return kubectl(t, "get", "--raw", "/metrics")
	}
	before := failures(calls())
	for range 50 {
		if _, err := c.create(); err != nil {
			t.Error(err)
		}
		if failures(calls()) > before {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("the API server does not call the impostor that answers %q", answer)
}

// failures counts, in the API server's metrics, what failed open.
func failures(metrics string) (n int) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "apiserver_admission_webhook_fail_open_count{") && strings.Contains(line, `name="inject.spile.dev"`) {
			v, _ := json.Number(strings.Fields(line)[1]).Int64()
			n += int(v)
		}
	}
	return n
}
