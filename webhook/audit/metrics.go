package audit

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of an [Auditor].
type Metrics struct {
	bare      *prometheus.GaugeVec
	failures  prometheus.Counter
	evictions prometheus.Counter
}

// NewMetrics registers the metrics with r.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		bare: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "spile_webhook_bare_pods",
			Help: "Pods that ask for the sidecar and run without it, by namespace; of the replica that audits, others have no series.",
		}, []string{"namespace"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spile_webhook_audit_failures_total",
			Help: "Audits of all pods that could not be completed.",
		}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spile_webhook_evictions_total",
			Help: "Pods evicted because they ran without the sidecar that they ask for.",
		}),
	}
	for _, c := range []prometheus.Collector{m.bare, m.failures, m.evictions} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) reset() { m.bare.Reset() }

// set replaces the numbers of all namespaces. One without bare
// pods has no series.
func (m *Metrics) set(perNamespace map[string]int) {
	m.bare.Reset()
	for namespace, n := range perNamespace {
		m.bare.WithLabelValues(namespace).Set(float64(n))
	}
}
