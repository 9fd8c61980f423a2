package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/spile-dev/spile/webhook"
)

const testPod = `{"metadata":{"generateName":"cart-"},"spec":{"containers":[{"name":"cart","image":"cart:1"}]}}`

func testPlaces(_ context.Context, name string) (webhook.Place, error) {
	switch name {
	case "missing":
		return webhook.Place{}, errors.New("namespaces \"missing\" not found")
	case "panic":
		panic("namespace panic")
	}
	return webhook.Place{Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Annotations: map[string]string{webhook.AnnotationInject: name},
	}}}, nil
}

func testHandler(t testing.TB) *handler {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return newHandler(webhook.Config{Image: "sidecar:1", Version: "test"}, testPlaces, m, slog.New(slog.DiscardHandler))
}

func testReview(namespace, pod string) admissionv1.AdmissionReview {
	dryRun := true
	return admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: "admission.k8s.io/v1"},
		Request: &admissionv1.AdmissionRequest{
			UID: "u-1", Namespace: namespace, Operation: admissionv1.Create, DryRun: &dryRun,
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: []byte(pod)},
		},
	}
}

func post(t testing.TB, h http.Handler, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/inject?timeout=2s", bytes.NewReader(body)))
	return w
}

func TestReview(t *testing.T) {
	update := testReview("enabled", testPod)
	update.Request.Operation = admissionv1.Update
	ephemeral := testReview("enabled", testPod)
	ephemeral.Request.SubResource = "ephemeralcontainers"
	service := testReview("enabled", testPod)
	service.Request.Resource.Resource = "services"

	tests := []struct {
		name    string
		review  admissionv1.AdmissionReview
		patched bool
		warning string
		outcome outcome
	}{
		{"injected", testReview("enabled", testPod), true, "", outcome{resultInjected, webhook.Injected}},
		{"disabled", testReview("disabled", testPod), false, "", outcome{resultSkipped, webhook.ReasonDisabled}},
		{"invalid annotation", testReview("on", testPod), true, `"on" on the namespace on: accepted are enabled`, outcome{resultSkipped, webhook.ReasonInvalidAnnotation}},
		{"own namespace", testReview("kube-system", testPod), false, "", outcome{resultSkipped, webhook.ReasonSystemNamespace}},
		{"namespace unknown", testReview("missing", testPod), false, "not found", outcome{resultError, reasonNamespace}},
		{"no pod", testReview("enabled", `{"spec":[]}`), false, "parsing pod", outcome{resultError, reasonPod}},
		{"panic", testReview("panic", testPod), false, "internal error", outcome{resultError, reasonPanic}},
		{"update", update, false, "", outcome{resultSkipped, reasonNotAPod}},
		{"subresource", ephemeral, false, "", outcome{resultSkipped, reasonNotAPod}},
		{"other kind", service, false, "", outcome{resultSkipped, reasonNotAPod}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := testHandler(t)
			body, err := json.Marshal(tt.review)
			if err != nil {
				t.Fatal(err)
			}
			w := post(t, h, body)
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatalf("status %d: %v", w.Code, err)
			}
			r := answer.Response
			if !r.Allowed || r.UID != "u-1" || answer.Kind != "AdmissionReview" || answer.APIVersion != "admission.k8s.io/v1" {
				t.Errorf("answer %+v", answer)
			}
			if got := len(r.Patch) > 0; got != tt.patched || got != (r.PatchType != nil) {
				t.Errorf("patched %v, type %v: %s", got, r.PatchType, r.Patch)
			}
			if got := strings.Join(r.Warnings, "\n"); !strings.Contains(got, tt.warning) || (got == "") != (tt.warning == "") {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
			counter, metric := h.metrics.admissions.WithLabelValues(tt.outcome.result, string(tt.outcome.reason)), &dto.Metric{}
			if err := counter.Write(metric); err != nil || metric.GetCounter().GetValue() != 1 {
				t.Errorf("counter of %v is %v (%v)", tt.outcome, metric, err)
			}
		})
	}
}

func TestMalformedRequests(t *testing.T) {
	valid, err := json.Marshal(testReview("enabled", testPod))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		body   string
		status int
	}{
		{"empty", "", http.StatusBadRequest},
		{"garbage", "\x00\xff", http.StatusBadRequest},
		{"truncated", string(valid[:len(valid)/2]), http.StatusBadRequest},
		{"no request", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`, http.StatusBadRequest},
		{"old version", strings.Replace(string(valid), "k8s.io/v1", "k8s.io/v1beta1", 1), http.StatusBadRequest},
		{"too large", strings.Repeat(" ", maxBody+1), http.StatusRequestEntityTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := post(t, testHandler(t), []byte(tt.body))
			if w.Code != tt.status || strings.TrimSpace(w.Body.String()) == "" {
				t.Errorf("status %d %q, want %d", w.Code, w.Body, tt.status)
			}
		})
	}
	w := httptest.NewRecorder()
	testHandler(t).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/inject", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: status %d", w.Code)
	}
}

// The largest pod that an API server accepts is answered; whether it can be
// stored with the sidecar is not known, so it is left as it is.
func TestLargestPods(t *testing.T) {
	for size, patched := range map[int]bool{1 << 20: true, 3<<20 - 512: false} {
		padding := strings.Repeat("x", size-len(testPod))
		pod := strings.Replace(testPod, `"image":`, `"command":["`+padding+`"],"image":`, 1)
		body, err := json.Marshal(testReview("enabled", pod))
		if err != nil {
			t.Fatal(err)
		}
		w := post(t, testHandler(t), body)
		if got := strings.Contains(w.Body.String(), `"patch":`); w.Code != http.StatusOK || got != patched {
			t.Errorf("pod of %d bytes: status %d, patched %t: %.200s", size, w.Code, got, w.Body)
		}
	}
}

func BenchmarkHandler(b *testing.B) {
	h := testHandler(b)
	body, err := json.Marshal(testReview("enabled", testPod))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if w := post(b, h, body); w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
