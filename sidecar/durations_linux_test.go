package sidecar_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// loadCounts are what a load generator knows of its requests: how many of each
// method and status, and how long each took.
type loadCounts struct {
	requests  map[string]uint64
	latencies []float64 // seconds, sorted
}

// generateLoad makes requests that the server answers after a while, as their
// paths say, from several connections.
func generateLoad(t *testing.T, c *http.Client, url string) loadCounts {
	t.Helper()
	l := loadCounts{requests: make(map[string]uint64)}
	for i := range 300 {
		method, status, pause := http.MethodGet, 200, 2
		switch {
		case i%10 == 1:
			method, status, pause = http.MethodPost, 201, 60
		case i%15 == 2:
			method, status, pause = http.MethodDelete, 503, 30
		case i%100 == 3:
			status, pause = 404, 300
		}
		r, err := http.NewRequest(method, fmt.Sprintf("%s/%d/%d", url, status, pause), nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		l.latencies = append(l.latencies, time.Since(start).Seconds())
		resp.Body.Close()
		l.requests[fmt.Sprintf("%s %d", method, status)]++
	}
	slices.Sort(l.latencies)
	return l
}

// application answers after a while, and knows how long it took at least.
type application struct {
	mu    sync.Mutex
	times []float64 // seconds
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	var status, pause int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &status, &pause); err != nil {
		status = 400
	}
	time.Sleep(time.Duration(pause) * time.Millisecond)
	a.mu.Lock()
	a.times = append(a.times, time.Since(start).Seconds())
	a.mu.Unlock()
	w.WriteHeader(status)
	_, _ = io.WriteString(w, strconv.Itoa(status))
}

// histogram is one of a whole instrument: counts by method and status, and by
// bucket.
func (e *exported) histogram(name string) (requests map[string]uint64, buckets []uint64, bounds []float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	requests = make(map[string]uint64)
	for _, rm := range e.latest.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != name {
				continue
			}
			for _, p := range m.Histogram().DataPoints().All() {
				method, _ := p.Attributes().Get("http.request.method")
				status, _ := p.Attributes().Get("http.response.status_code")
				requests[fmt.Sprintf("%s %d", method.Str(), status.Int())] += p.Count()
				bounds = p.ExplicitBounds().AsRaw()
				if buckets == nil {
					buckets = make([]uint64, p.BucketCounts().Len())
				}
				for i, n := range p.BucketCounts().AsRaw() {
					buckets[i] += n
				}
			}
		}
	}
	return requests, buckets, bounds
}

// bucketOf returns in which bucket the value of that rank lies.
func bucketOf(values []float64, rank int, bounds []float64) int {
	n, _ := slices.BinarySearch(bounds, values[rank])
	return n
}

// TestLoadGenerator: rates and errors are the load generator's own, although
// spans are sampled away. What is measured of each request is within what the
// load generator waited and no less than what the application took, however busy
// the machine is, so that is true of every quantile.
func TestLoadGenerator(t *testing.T) {
	p := newPods(t)
	l := listen(t, p.client, "[::]:0")
	e := newExported(t, l)
	app := &application{}
	server := &http.Server{Handler: app}
	at := listen(t, p.server, ":8080")
	go func() { _ = server.Serve(at) }()
	t.Cleanup(func() { server.Close() })
	s := start(t, p.server, ebpfCapabilities, "OTEL_TRACES_SAMPLER=always_off", "OTEL_METRIC_EXPORT_INTERVAL=300",
		fmt.Sprintf("OTEL_EXPORTER_OTLP_ENDPOINT=http://%s:%d", clientIP, l.Addr().(*net.TCPAddr).Port))
	s.line(t, "capturing")
	load := generateLoad(t, newClient(t, p.client), "http://"+serverIP+":8080")
	s.stop(t)
	requests, buckets, bounds := e.histogram("http.server.request.duration")
	if d := cmp.Diff(load.requests, requests); d != "" {
		t.Errorf("requests (-load generator +metric):\n%s", d)
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	slices.Sort(app.times)
	if len(app.times) != len(load.latencies) {
		t.Fatalf("the application answered %d times, the load generator asked %d times", len(app.times), len(load.latencies))
	}
	for _, q := range []float64{0, 0.5, 0.9, 0.95, 0.99} {
		rank, measured := int(q*float64(len(load.latencies))), 0
		for sum := uint64(0); measured < len(buckets); measured++ {
			if sum += buckets[measured]; sum > uint64(rank) {
				break
			}
		}
		least, most := bucketOf(app.times, rank, bounds), bucketOf(load.latencies, rank, bounds)
		if measured < least || measured > most {
			t.Errorf("quantile %g: bucket %d by the application, %d by the load generator, %d by the metric %v", q, least, most, measured, buckets)
		}
	}
}
