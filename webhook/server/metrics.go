package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spile-dev/spile/webhook"
)

// Results of a review.
const (
	resultInjected = "injected"
	resultSkipped  = "skipped"
	resultError    = "error"
)

// Reasons that a review has beside those of [webhook.Reasons].
const (
	reasonNotAPod webhook.Reason = "not_a_pod_creation"
	// Reasons of errors: what could not be had.
	reasonNamespace webhook.Reason = "namespace"
	reasonPod       webhook.Reason = "pod"
	reasonPanic     webhook.Reason = "panic"
)

type outcome struct {
	result string
	reason webhook.Reason
}

type metrics struct {
	admissions *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	malformed  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "spile_webhook_admissions_total",
			Help: "Admission reviews by result (injected, skipped, error) and the reason of those not injected.",
		}, []string{"result", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "spile_webhook_admission_duration_seconds",
			Help:    "Time from a parsed admission review to its answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
		}, []string{"result"}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spile_webhook_malformed_requests_total",
			Help: "Requests that were no admission review, or too large.",
		}),
	}
	m.start()
	for _, c := range []prometheus.Collector{m.admissions, m.duration, m.malformed} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// start sets every series to zero, so that a first increment is seen as one.
func (m *metrics) start() {
	m.admissions.WithLabelValues(resultInjected, string(webhook.Injected))
	for _, r := range append(webhook.Reasons(), reasonNotAPod) {
		m.admissions.WithLabelValues(resultSkipped, string(r))
	}
	for _, r := range []webhook.Reason{reasonNamespace, reasonPod, reasonPanic} {
		m.admissions.WithLabelValues(resultError, string(r))
	}
	for _, r := range []string{resultInjected, resultSkipped, resultError} {
		m.duration.WithLabelValues(r)
	}
}

func (m *metrics) observe(o outcome, d time.Duration) {
	m.admissions.WithLabelValues(o.result, string(o.reason)).Inc()
	m.duration.WithLabelValues(o.result).Observe(d.Seconds())
}
