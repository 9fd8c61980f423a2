// Package server answers the Kubernetes API server: admission reviews in,
// patches out, over TLS, with nothing to set up by hand.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/spile-dev/spile/webhook"
)

const (
	// maxBody is the API server's limit for a request (3 MiB), with room for the
	// review around the object.
	maxBody = 4 << 20
	// maxConcurrent bounds the memory of simultaneous reviews. A review takes
	// well below a millisecond.
	maxConcurrent = 16
)

// placeReader returns what is to know of a namespace, by name.
type placeReader func(ctx context.Context, namespace string) (webhook.Place, error)

// handler answers admission reviews of pods. Whatever goes wrong, the pod is
// allowed as it is, with a warning: a pod must not depend on being observed.
type handler struct {
	config  webhook.Config
	place   placeReader
	metrics *metrics
	log     *slog.Logger
	slots   chan struct{}
}

func newHandler(c webhook.Config, place placeReader, m *metrics, log *slog.Logger) *handler {
	return &handler{config: c, place: place, metrics: m, log: log, slots: make(chan struct{}, maxConcurrent)}
}

// ServeHTTP answers an AdmissionReview (admission.k8s.io/v1) with another. To
// what is none it cannot answer "allowed", for want of a uid; an API server
// never sends such a request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "method "+r.Method+": accepted is POST", http.StatusMethodNotAllowed)
		return
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-r.Context().Done():
		return
	}
	review, status, err := readReview(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		h.metrics.malformed.Inc()
		h.log.Warn("request is no admission review", "error", err, "remote", r.RemoteAddr)
		http.Error(w, err.Error(), status)
		return
	}
	answer := admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: h.review(r.Context(), review.Request)}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		h.log.Warn("admission response not sent", "uid", review.Request.UID, "error", err)
	}
}

func readReview(body io.Reader) (*admissionv1.AdmissionReview, int, error) {
	data, err := io.ReadAll(body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("admission review exceeds %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("reading admission review: %w", err)
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(data, review); err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("parsing admission review: %w", err)
	}
	if review.Kind != "AdmissionReview" || review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Request == nil {
		return nil, http.StatusBadRequest, fmt.Errorf("accepted is an AdmissionReview of %s with a request", admissionv1.SchemeGroupVersion)
	}
	return review, 0, nil
}

// review answers one request, measures and logs it.
func (h *handler) review(ctx context.Context, req *admissionv1.AdmissionRequest) (resp *admissionv1.AdmissionResponse) {
	start := time.Now()
	o := outcome{result: resultError, reason: reasonPanic}
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("panic while reviewing a pod", "panic", p, "stack", string(debug.Stack()))
			resp = unchanged(req)
			resp.Warnings = []string{"spile: not injected: internal error"}
		}
		h.metrics.observe(o, time.Since(start))
	}()
	resp, o = h.decide(ctx, req)
	return resp
}

func (h *handler) decide(ctx context.Context, req *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, outcome) {
	if req.Operation != admissionv1.Create || req.Resource.Group != "" || req.Resource.Resource != "pods" || req.SubResource != "" {
		return unchanged(req), outcome{resultSkipped, reasonNotAPod}
	}
	log := h.log.With("namespace", req.Namespace, "uid", req.UID, "dry_run", req.DryRun != nil && *req.DryRun)

	place, err := h.place(ctx, req.Namespace)
	if err != nil {
		return h.failed(req, log, reasonNamespace, err)
	}
	d, ops, err := webhook.Inject(req.Object.Raw, place, h.config)
	if err != nil {
		return h.failed(req, log, reasonPod, err)
	}
	resp := unchanged(req)
	for _, w := range d.Warnings {
		resp.Warnings = append(resp.Warnings, "spile: "+w)
	}
	if len(ops) > 0 {
		if resp.Patch, err = json.Marshal(ops); err != nil {
			return h.failed(req, log, reasonPod, err)
		}
		patchType := admissionv1.PatchTypeJSONPatch
		resp.PatchType = &patchType
	}
	o := outcome{resultSkipped, d.Reason}
	if d.Sidecar != nil {
		o.result = resultInjected
	}
	level := slog.LevelDebug
	if d.Asked {
		level = slog.LevelInfo
	}
	log.Log(ctx, level, "pod reviewed", "result", o.result, "reason", d.Reason, "pod", podName(req), "message", d.Message)
	return resp, o
}

func (h *handler) failed(req *admissionv1.AdmissionRequest, log *slog.Logger, reason webhook.Reason, err error) (*admissionv1.AdmissionResponse, outcome) {
	log.Error("pod allowed unchanged", "reason", reason, "error", err)
	resp := unchanged(req)
	resp.Warnings = []string{fmt.Sprintf("spile: not injected: %.200s", err)}
	return resp, outcome{resultError, reason}
}

func unchanged(req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{UID: req.UID, Allowed: true}
}

// podName for a log line: of a pod that a controller creates, it is not yet known.
func podName(req *admissionv1.AdmissionRequest) string {
	if req.Name != "" {
		return req.Name
	}
	var pod struct {
		Metadata struct{ GenerateName string }
	}
	if err := json.Unmarshal(req.Object.Raw, &pod); err != nil {
		return ""
	}
	return pod.Metadata.GenerateName
}
