package shop

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// open starts every service, and returns a transport that reaches them by name
// and what they receive, by service.
func open(t *testing.T) (*http.Transport, map[string]chan *http.Request) {
	t.Helper()
	at := map[string]string{}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		return d.DialContext(ctx, network, at[host])
	}}
	t.Cleanup(transport.CloseIdleConnections)
	received := map[string]chan *http.Request{}
	for _, name := range []string{Ingress, Cart, Catalog, Pricing} {
		service, err := NewService(name, transport, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ch := make(chan *http.Request, 100)
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ch <- r.Clone(context.Background())
			service.ServeHTTP(w, r)
		}))
		srv.Config.Protocols = new(http.Protocols)
		srv.Config.Protocols.SetHTTP1(true)
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		srv.Start()
		t.Cleanup(srv.Close)
		received[name], at[name] = ch, srv.Listener.Addr().String()
	}
	return transport, received
}

func TestVisits(t *testing.T) {
	transport, _ := open(t)
	client := &http.Client{Transport: transport}
	for i, v := range visits {
		if !visit(client, i) {
			t.Errorf("%s %s is not answered with %d", v.method, v.path, v.status)
		}
	}
}

func TestShopEndsWithItsContext(t *testing.T) {
	transport, received := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		for len(received[Ingress]) < 3 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}()
	stats := Shop(ctx, transport, time.Millisecond)
	if stats.Sent == 0 || stats.Answered != stats.Sent || stats.Sent != len(received[Ingress]) {
		t.Errorf("got %+v, and the ingress %d requests; want all equal and not 0", stats, len(received[Ingress]))
	}
}

// TestIngress checks what the ingress changes in a request, and that the trace
// context reaches the last service.
func TestIngress(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, c := range []struct{ name, traceparent string }{
		{"trace of the client", parent},
		{"trace of the ingress", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			transport, received := open(t)
			req := httptest.NewRequest(http.MethodPost, "http://"+Ingress+"/cart/items?x=1", strings.NewReader(`{"sku":"spile"}`))
			req.RequestURI = ""
			if c.traceparent != "" {
				req.Header.Set("traceparent", c.traceparent)
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			atCart, atPricing := <-received[Cart], <-received[Pricing]
			if got := atCart.RequestURI; got != "/items?x=1" {
				t.Errorf("cart gets %s", got)
			}
			for name, want := range map[string]string{
				"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": Ingress,
				"X-Forwarded-Proto": "http", "X-Forwarded-Prefix": "/cart",
			} {
				if got := atCart.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			got := atPricing.Header.Get("traceparent")
			if len(got) != len(parent) || c.traceparent != "" && got != c.traceparent {
				t.Errorf("traceparent at pricing is %q, at the ingress %q", got, c.traceparent)
			}
		})
	}
}
