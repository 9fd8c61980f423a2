//go:build e2e

// Package e2e tests the whole of Spile on a real cluster, whatever KUBECONFIG
// points at, with Jaeger and, for one namespace, an OpenTelemetry Collector as the
// backends. kubectl and helm are in PATH.
//
//	E2E_LOAD      command that takes an image archive into the cluster as its
//	              last argument, such as "kind load image-archive"; empty if the
//	              cluster has the images
//	E2E_IMAGES    folder of the archives, default ../../bin/images
//	E2E_TAG       tag of Spile's images and of the test's application and Collector
//	JAEGER_IMAGE  default jaegertracing/jaeger of a fixed version
//
// It makes the namespaces spile-system and spile-e2e-*, and removes them, also what
// an interrupted run left of them.
package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

const (
	release = "spile-system"
	shop    = "spile-e2e-shop"  // annotated
	plain   = "spile-e2e-plain" // the same application, not annotated
	backend = "spile-e2e-backend"

	// requests from outside to the Deployment that calls another.
	requests = 500
	// reports is the number of requests of a Job in the annotated namespace.
	reports = 40
)

// need runs a subtest that the following ones cannot do without.
func need(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	if !t.Run(name, f) {
		t.FailNow()
	}
}

func TestSpile(t *testing.T) {
	tag := env("E2E_TAG", "e2e")
	c := cluster{values: map[string]any{
		"Backend":        backend,
		"AppImage":       "ghcr.io/spile-dev/spile-e2e-app:" + tag,
		"JaegerImage":    env("JAEGER_IMAGE", "docker.io/jaegertracing/jaeger:2.13.0"),
		"CollectorImage": "ghcr.io/spile-dev/spile-e2e-collector:" + tag,
		"Workers":        8, "Rate": 0, // of a load
	}}
	c.values["Certificate"], c.values["Key"] = serving(t, "collector."+backend)
	prepare(t, shop, plain, red, backend)
	need(t, "start the backends", func(t *testing.T) {
		c.apply(t, "jaeger.yaml", nil)
		c.apply(t, "collector.yaml", nil)
		rollout(t, backend, "jaeger")
		rollout(t, backend, "collector")
	})
	need(t, "helm install", func(t *testing.T) {
		must(t, "", "helm", "install", "spile", "../../charts/spile", "-n", release, "--create-namespace",
			"--set", "otlp.endpoint=http://jaeger."+backend+":4318",
			"--set-json", "otlp.namespaces="+collectorOnly, "--set", "sidecar.metrics.interval=500",
			"--set", "image.tag="+tag, "--set", "sidecar.image.tag="+tag, "--wait", "--timeout", "180s")
	})

	j := jaeger{namespace: backend, since: time.Now()}
	pods := pods{}
	need(t, "start the workloads", func(t *testing.T) { c.startWorkloads(t, pods) })
	t.Run("injection", func(t *testing.T) { c.testInjection(t, pods) })
	t.Run("capabilities", func(t *testing.T) { c.testCapabilities(t, pods) })
	need(t, "send requests", func(t *testing.T) { c.sendRequests(t, pods) })
	t.Run("spans", func(t *testing.T) { testSpans(t, j, pods) })
	t.Run("gRPC", func(t *testing.T) { c.testGRPC(t, j) })
	need(t, "a namespace with a backend of its own", func(t *testing.T) { c.startCatalog(t) })
	t.Run("RED metrics", func(t *testing.T) { c.testRED(t, j) })
	t.Run("kill -9 of a sidecar", func(t *testing.T) { c.testKill(t) })
	t.Run("pods start while the webhook is down", func(t *testing.T) { c.testWebhookDown(t) })
	t.Run("uninstall", func(t *testing.T) { c.testUninstall(t, pods) })
}

// pods by the name of their workload; those of the plain namespace as plain/NAME.
type pods map[string]corev1.Pod

func (c cluster) startWorkloads(t *testing.T, p pods) {
	for _, ns := range []string{shop, plain} {
		kubectl(t, "create", "namespace", ns)
	}
	kubectl(t, "annotate", "namespace", shop, annotation+"=enabled")
	c.awaitInjection(t, shop)
	for _, ns := range []string{shop, plain} {
		c.apply(t, "pair.yaml", map[string]any{"Namespace": ns})
	}
	for _, name := range []string{"backend", "frontend"} {
		p[name] = rollout(t, shop, name)
		p["plain/"+name] = rollout(t, plain, name)
	}
}

// sendRequests sends what the spans are compared with. The load comes from a
// pod without a sidecar, so that it adds no spans of its own.
func (c cluster) sendRequests(t *testing.T, p pods) {
	t.Run("load from a pod without sidecar", func(t *testing.T) {
		p["load"] = c.runJob(t, "load.yaml", plain, "load", map[string]any{"Target": "http://frontend." + shop, "Requests": requests})
	})
	t.Run("load on workloads without sidecar", func(t *testing.T) {
		p["plain/load"] = c.runJob(t, "load.yaml", plain, "plain-load", map[string]any{"Target": "http://frontend", "Requests": reports})
	})
	t.Run("a Job with sidecar completes", func(t *testing.T) {
		p["report"] = c.runJob(t, "load.yaml", shop, "report", map[string]any{"Target": "http://backend." + plain, "Requests": reports})
		if sidecar(p["report"]) == nil {
			t.Error("the pod of the Job has no sidecar")
		}
	})
}

func testSpans(t *testing.T, j jaeger, p pods) {
	spans := j.wait(t, map[string]int{"frontend": 2 * requests, "backend": requests, "report": reports})
	t.Run("no other services", func(t *testing.T) {
		got, err := j.services()
		if err != nil {
			t.Fatal(err)
		}
		got = slices.DeleteFunc(got, func(name string) bool { return name == "jaeger" }) // it traces itself
		slices.Sort(got)
		if diff := cmp.Diff([]string{"backend", "frontend", "report"}, got); diff != "" {
			t.Errorf("services (-want +got):\n%s", diff)
		}
	})
	full, few := traffic.Plan(requests), traffic.Plan(reports)
	backendIP := serviceIP(t, shop, "backend")
	for _, test := range []struct {
		workload, kind string
		plan           []traffic.Request
		host           string // as the client named the server
		peer, peerPort string
	}{
		{"frontend", "Server", full, "frontend." + shop, p["load"].Status.PodIP, ""},
		{"frontend", "Client", full, "backend", backendIP, "80"},
		{"backend", "Server", full, "backend", p["frontend"].Status.PodIP, ""},
		{"backend", "Client", nil, "", "", ""},
		{"report", "Client", few, "backend." + plain, serviceIP(t, plain, "backend"), "80"},
		{"report", "Server", nil, "", "", ""},
	} {
		t.Run(test.workload+" "+test.kind, func(t *testing.T) {
			s := ofKind(spans[test.workload], test.kind)
			t.Run("requests", func(t *testing.T) { checkRequests(t, s, test.plan) })
			if len(test.plan) == 0 {
				return
			}
			t.Run("status", func(t *testing.T) { checkStatus(t, s) })
			t.Run("peer", func(t *testing.T) { checkPeer(t, s, test.host, test.peer, test.peerPort) })
			t.Run("resource", func(t *testing.T) { checkResource(t, s, test.workload, p[test.workload]) })
			t.Run("time", func(t *testing.T) { checkTime(t, s, j.since) })
		})
	}
	t.Run("incoming traceparent", func(t *testing.T) { checkParents(t, ofKind(spans["frontend"], "Server"), full) })
}

func (c cluster) testWebhookDown(t *testing.T) {
	kubectl(t, "-n", release, "scale", "deployment", "--all", "--replicas=0")
	kubectl(t, "-n", release, "wait", "pod", "--all", "--for=delete", "--timeout=90s")
	checkUntouched(t, c.dryRun(t, shop, false, nil))
}

// testUninstall comes last: what was injected goes on, new pods are left alone.
func (c cluster) testUninstall(t *testing.T, p pods) {
	need(t, "helm uninstall", func(t *testing.T) { must(t, "", "helm", "uninstall", "spile", "-n", release, "--wait") })
	t.Run("no webhook configuration is left", func(t *testing.T) {
		if out := kubectl(t, "get", "mutatingwebhookconfigurations", "-o", "name"); strings.Contains(out, "spile") {
			t.Errorf("left: %s", out)
		}
	})
	t.Run("running pods go on", func(t *testing.T) {
		for _, name := range []string{"frontend", "backend"} {
			now := onePod(t, shop, "app="+name)
			if now.UID != p[name].UID || !ready(now) || restarts(now) != 0 {
				t.Errorf("%s: same pod %t, ready %t, %d restarts", name, now.UID == p[name].UID, ready(now), restarts(now))
			}
		}
	})
	t.Run("new pods are not injected", func(t *testing.T) {
		checkUntouched(t, c.dryRun(t, shop, false, nil))
	})
}
