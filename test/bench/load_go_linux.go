package main

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// goClient is a connection of Go's client, of HTTP/1.1 or of HTTP/2 in cleartext, and
// what its requests came to.
type goClient struct {
	client
	http http.Client
	mu   sync.Mutex
}

// generateGo is generate by Go's client.
func (l load) generateGo(server netip.AddrPort, duration time.Duration) outcome {
	clients := make([]client, l.Connections)
	var wg sync.WaitGroup
	start := now()
	for i := range clients {
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(l.Streams > 0)
		p.SetHTTP1(l.Streams == 0)
		c := &goClient{client: client{load: l, server: server}, http: http.Client{Transport: &http.Transport{Protocols: p}}}
		wg.Go(func() {
			c.run(start + int64(duration))
			clients[i] = client{latencies: c.latencies, end: now(), err: c.err}
		})
	}
	wg.Wait()
	return summary(clients, start)
}

// run makes the first request, and with it the connection, before all others.
func (c *goClient) run(end int64) {
	defer c.http.CloseIdleConnections()
	c.exchange()
	var wg sync.WaitGroup
	for range max(c.load.Streams, 1) {
		wg.Go(func() {
			for now() < end && c.exchange() {
			}
		})
	}
	wg.Wait()
}

func (c *goClient) exchange() bool {
	began := now()
	err := c.request()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err = err
		return false
	}
	c.latencies = append(c.latencies, now()-began)
	return true
}

func (c *goClient) request() error {
	l := c.load
	r, err := http.NewRequest(l.Method, fmt.Sprintf("http://%s%s?page=2", c.server, l.Path), http.NoBody)
	if err != nil {
		return err
	}
	if l.Method == "POST" {
		r.Body, r.ContentLength = io.NopCloser(io.LimitReader(zeros{}, int64(l.Size))), int64(l.Size)
	}
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered with %s", resp.Status)
	}
	return nil
}

// zeros is content without an end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
