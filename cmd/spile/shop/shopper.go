package shop

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// visits are what a customer does, one after the other: among it what is slow,
// what is not there and what fails.
var visits = []struct {
	method, path, body string
	status             int // of the answer that is due
}{
	{http.MethodGet, "/catalog/products", "", http.StatusOK},
	{http.MethodPost, "/cart/items", `{"sku":"spile","quantity":3}`, http.StatusCreated},
	{http.MethodGet, "/cart/items", "", http.StatusOK},
	{http.MethodGet, "/catalog/search?q=maple", "", http.StatusOK},
	{http.MethodPost, "/cart/checkout", `{"coupon":"SPRING"}`, http.StatusNoContent},
	{http.MethodGet, "/catalog/products/sugar-beet", "", http.StatusNotFound},
	{http.MethodPost, "/cart/checkout", `{"coupon":"EXPIRED"}`, http.StatusInternalServerError},
	{http.MethodGet, "/favicon.ico", "", http.StatusNotFound},
	{http.MethodGet, "/catalog/products/sap-bucket", "", http.StatusOK},
}

// customers shop at the same time.
const customers = 2

// Stats counts the requests of a shopper.
type Stats struct {
	Sent     int `json:"sent"`
	Answered int `json:"answered"` // with the status that was due
}

// Shop sends the ingress requests, each customer one after every pause, until
// the context ends, and waits for their responses.
func Shop(ctx context.Context, transport http.RoundTripper, pause time.Duration) Stats {
	var (
		client = &http.Client{Transport: transport, Timeout: 5 * time.Second}
		total  Stats
		mu     sync.Mutex
		wg     sync.WaitGroup
	)
	for c := range customers {
		wg.Go(func() {
			// Customers start at different shelves, and a little apart.
			time.Sleep(pause * time.Duration(c) / customers)
			for i := c * len(visits) / customers; ctx.Err() == nil; i++ {
				answered := visit(client, i%len(visits))
				mu.Lock()
				total.Sent++
				if answered {
					total.Answered++
				}
				mu.Unlock()
				work(ctx, pause)
			}
		})
	}
	wg.Wait()
	return total
}

// visit makes the request with the given number, and tells whether its answer
// was the one due.
func visit(client *http.Client, number int) bool {
	v := visits[number]
	req, err := http.NewRequest(v.method, "http://"+Ingress+v.path, strings.NewReader(v.body))
	if err != nil {
		return false
	}
	req.Header.Set("User-Agent", "shopper/1.0")
	req.Header.Set("traceparent", newTraceparent())
	if v.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == v.status
}
