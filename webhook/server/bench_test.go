package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spile-dev/spile/webhook"
)

// BenchmarkServing is what an API server waits for an answer by TLS, on
// connections that it keeps, at 100 pods per second; p50 and p99 in
// milliseconds. 10 s of it: -bench Serving -benchtime 1000x.
func BenchmarkServing(b *testing.B) {
	const perSecond, callers = 100, 8
	certs := newTestCertificates(b, "localhost")
	h := testHandler(b)
	h.config = webhook.DefaultConfig("sidecar:1", "http://tempo:4318")
	s := newTLSServer(freeAddress(b), "localhost", certs, h, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	waitListening(b, s.http.Addr)
	body, err := json.Marshal(testReview("enabled", testPod))
	if err != nil {
		b.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: certs.roots, ServerName: "localhost"}, MaxIdleConnsPerHost: callers,
	}}
	call := func() {
		resp, err := client.Post("https://"+s.http.Addr+"/inject", "application/json", bytes.NewReader(body))
		if err != nil {
			b.Error(err)
			return
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Contains(answer, []byte(`"patch":`)) {
			b.Errorf("status %d, %v: %s", resp.StatusCode, err, answer)
		}
	}

	var mutex sync.Mutex
	var took []time.Duration
	var group sync.WaitGroup
	due := make(chan time.Time)
	for range callers {
		call() // its connection
		group.Go(func() {
			for at := range due {
				call()
				mutex.Lock()
				took = append(took, time.Since(at))
				mutex.Unlock()
			}
		})
	}
	tick := time.NewTicker(time.Second / perSecond)
	b.ResetTimer()
	for range b.N {
		due <- <-tick.C
	}
	close(due)
	group.Wait()
	b.StopTimer()
	tick.Stop()
	slices.Sort(took)
	for name, q := range map[string]float64{"p50-ms": .5, "p99-ms": .99} {
		b.ReportMetric(float64(took[int(q*float64(len(took)-1))])/float64(time.Millisecond), name)
	}
	b.ReportMetric(0, "ns/op") // the pace
	client.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
