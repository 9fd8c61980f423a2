// Package shop is a small shop of HTTP services, to have something to look at:
// an ingress that routes by path to a cart and a catalog, a pricing service
// that the cart asks, and a shopper who uses them.
//
// None of them knows of tracing but for one thing: what it is sent as
// traceparent it passes on with the requests that it makes in turn, as services
// behind any mesh must.
package shop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Names of the services, which are also their hosts.
const (
	Ingress = "ingress"
	Cart    = "cart"
	Catalog = "catalog"
	Pricing = "pricing"
)

const servicePort = "8080"

// Port returns the TCP port that a service listens on.
func Port(service string) string {
	if service == Ingress {
		return "80"
	}
	return servicePort
}

// NewService returns the service of a name. It reaches the others through
// transport, under their names and ports.
func NewService(name string, transport *http.Transport, log *slog.Logger) (http.Handler, error) {
	client := &http.Client{Transport: transport}
	switch name {
	case Ingress:
		return newIngress(transport, log), nil
	case Cart:
		return newCart(client, newQuotes(transport)), nil
	case Catalog:
		return newCatalog(), nil
	case Pricing:
		return newPricing(), nil
	}
	return nil, fmt.Errorf("no service %q in the shop", name)
}

var products = []string{"maple-syrup", "sap-bucket", "spile", "tap-hammer"}

// newCatalog serves what the shop sells. Its search is slow.
func newCatalog() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/products", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"products": products})
	})
	mux.HandleFunc("GET /v1/products/{sku}", func(w http.ResponseWriter, r *http.Request) {
		sku := r.PathValue("sku")
		if !slices.Contains(products, sku) {
			answer(w, http.StatusNotFound, map[string]string{"error": "no such product"})
			return
		}
		answer(w, http.StatusOK, map[string]string{"sku": sku, "text": strings.Repeat("Made of maple. ", 200)})
	})
	mux.HandleFunc("GET /v1/search", func(w http.ResponseWriter, r *http.Request) {
		if !work(r.Context(), 350*time.Millisecond) {
			return
		}
		answer(w, http.StatusOK, map[string]any{"found": products[:1]})
	})
	return mux
}

// newPricing knows what things cost. It gives prices by HTTP and quotes by gRPC.
func newPricing() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /prices/{sku}", func(w http.ResponseWriter, r *http.Request) {
		if !work(r.Context(), 4*time.Millisecond) {
			return
		}
		answer(w, http.StatusOK, map[string]any{"sku": r.PathValue("sku"), "price": 12.5})
	})
	mux.HandleFunc("POST "+quoteMethod, serveQuote)
	return mux
}

// newCart keeps what is bought. It asks pricing for one price after the other.
func newCart(client *http.Client, quotes *quotes) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items", func(w http.ResponseWriter, r *http.Request) {
		for _, sku := range products[:3] {
			if status := ask(r, client, "/prices/"+sku); status != http.StatusOK {
				answer(w, http.StatusBadGateway, map[string]int{"pricing": status})
				return
			}
		}
		answer(w, http.StatusOK, map[string]any{"items": products[:3]})
	})
	mux.HandleFunc("POST /items", func(w http.ResponseWriter, r *http.Request) {
		var item struct{ SKU string }
		if !decode(w, r, &item) {
			return
		}
		if status := ask(r, client, "/prices/"+item.SKU); status != http.StatusOK {
			answer(w, http.StatusBadGateway, map[string]int{"pricing": status})
			return
		}
		w.Header().Set("Location", "/cart/items/"+item.SKU)
		answer(w, http.StatusCreated, item)
	})
	mux.HandleFunc("POST /checkout", func(w http.ResponseWriter, r *http.Request) {
		var order struct{ Coupon string }
		if !decode(w, r, &order) {
			return
		}
		if err := quotes.ask(r, order.Coupon); err != nil {
			answer(w, http.StatusInternalServerError, map[string]string{"pricing": err.Error()})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// ask sends pricing a request on behalf of another, and returns the status of
// the response, 0 if there is none.
func ask(behalf *http.Request, client *http.Client, path string) int {
	url := "http://" + Pricing + ":" + servicePort + path
	req, err := http.NewRequestWithContext(behalf.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	if parent := behalf.Header.Get("traceparent"); parent != "" {
		req.Header.Set("traceparent", parent)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error of the connection is the client's to see.
	_ = json.NewEncoder(w).Encode(body)
}

// decode reads a request's JSON, and answers itself if it is none.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(into); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return false
	}
	return true
}

// work takes a time, and tells whether anyone still wants the result.
func work(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
