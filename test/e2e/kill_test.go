//go:build e2e

package e2e

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// testKill kills a sidecar in the midst of load. The application notices nothing;
// what is lost is what had not left the sidecar and what was sent while it was
// away; and the restart is there to see, in the pod's status and in the metrics.
// The load is sent to the pod: it is not ready meanwhile, and a Service without a
// pod that is refuses connections.
func (c cluster) testKill(t *testing.T) {
	const rate, total = 100, 1200
	before := onePod(t, red, "app=catalog")
	known := spansSeen(t)
	c.apply(t, "load.yaml", map[string]any{
		"Namespace": plain, "Job": "kill-load", "Requests": total, "Workers": 64, "Rate": rate,
		"Target": "http://" + net.JoinHostPort(before.Status.PodIP, "8080"),
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		out, _ := command("", "kubectl", "-n", plain, "logs", "job/kill-load")
		if strings.Count(out, "\n") > rate {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the load does not begin")
		}
	}
	c.runJob(t, "kill.yaml", plain, "kill", map[string]any{"Node": before.Spec.NodeName, "UID": string(before.UID)})
	awaitJob(t, plain, "kill-load")
	made := report(t, plain, "kill-load")
	if len(made) != total {
		t.Errorf("%d of %d requests were answered", len(made), total)
	}
	died, back := awaitRestart(t, before)
	for _, c := range onePod(t, red, "app=catalog").Status.Conditions {
		if c.Type == corev1.PodReady {
			t.Logf("the pod is ready: %s, since %s", c.Status, c.LastTransitionTime.Format(time.TimeOnly))
		}
	}
	time.Sleep(2 * time.Second) // spans leave within one

	got := map[string]int{}
	for _, s := range collectedSpans(t) {
		if value(s.Resource, "service.name") == "catalog" && !known[s.SpanID().String()] {
			got[s.key()]++
		}
	}
	lost, exported := 0, 0
	// The pod's status has whole seconds, and a busy machine sends late.
	from, to := died.Add(-3*time.Second), back.Add(2*time.Second)
	for _, d := range made {
		if exported += got[d.Key()]; got[d.Key()] > 1 {
			t.Errorf("%s has %d spans", d.Key(), got[d.Key()])
		}
		if got[d.Key()] > 0 {
			continue
		}
		if lost++; d.Start.Add(d.Took).Before(from) || d.Start.After(to) {
			t.Errorf("%s from %s, %s long, has no span: want losses from %s to %s only", d.Key(), d.Start, d.Took, from, to)
		}
	}
	t.Logf("%d requests at %d/s, %d exported, %d lost; the sidecar was killed at %s and captured again at %s",
		len(made), rate, exported, lost, died.Format(time.TimeOnly), back.Format("15:04:05.000"))
	starts := map[time.Time]int{}
	for _, s := range collectedSeries(t) {
		if s.Metric == "spile.spans.exported" && s.Service == "catalog" {
			starts[s.Start] += s.Value
		}
	}
	t.Logf("spile.spans.exported by start of the sidecar: %v", starts)
	if len(starts) != 2 {
		t.Errorf("the backend has metrics of %d lives of the sidecar, want 2", len(starts))
	}
}

// spansSeen returns the ids of the spans that the Collector has.
func spansSeen(t *testing.T) map[string]bool {
	ids := map[string]bool{}
	for _, s := range collectedSpans(t) {
		ids[s.SpanID().String()] = true
	}
	return ids
}

// awaitRestart waits until the sidecar of a pod runs for the second time, the pod
// being the same, and returns when it ended and when it captured again.
func awaitRestart(t *testing.T, before corev1.Pod) (died, back time.Time) {
	t.Helper()
	var status corev1.ContainerStatus
	for range 240 {
		pod := onePod(t, red, "app=catalog")
		if pod.UID != before.UID || restarts(pod) > 1 {
			t.Fatalf("pod %s restarted %d times, want the sidecar's one of pod %s", pod.UID, restarts(pod), before.UID)
		}
		i := slices.IndexFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == sidecarName })
		if status = pod.Status.InitContainerStatuses[i]; status.RestartCount == 1 && status.State.Running != nil {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	if status.LastTerminationState.Terminated == nil {
		t.Fatalf("the sidecar was not restarted: %+v", status)
	}
	if code := status.LastTerminationState.Terminated.ExitCode; code != 137 {
		t.Errorf("the sidecar's exit code is %d, want 137: killed", code)
	}
	for range 240 {
		for line := range strings.Lines(kubectl(t, "-n", red, "logs", before.Name, "-c", sidecarName)) {
			var l struct {
				Msg  string
				Time time.Time
			}
			if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "capturing" {
				return status.LastTerminationState.Terminated.FinishedAt.Time, l.Time
			}
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Fatalf("the sidecar of %s does not capture again", before.Name)
	return died, back
}
