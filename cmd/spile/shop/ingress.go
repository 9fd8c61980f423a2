package shop

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// routes of the ingress: a path below the prefix goes to the service, with the
// prefix rewritten.
var routes = []struct{ prefix, service, rewrite string }{
	{"/cart/", Cart, "/"},
	{"/catalog/", Catalog, "/v1/"},
}

// newIngress routes requests by path, as the ingress controller of a cluster.
func newIngress(transport http.RoundTripper, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	for _, route := range routes {
		target := url.URL{Scheme: "http", Host: route.service + ":" + servicePort}
		mux.Handle(route.prefix, &httputil.ReverseProxy{
			Transport: transport,
			ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelWarn),
			Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
				r.Out.URL.Path = route.rewrite + strings.TrimPrefix(r.In.URL.Path, route.prefix)
				r.Out.URL.RawPath = ""
				r.Out.Host = target.Host
				r.SetXForwarded()
				r.Out.Header.Set("X-Forwarded-Prefix", strings.TrimSuffix(route.prefix, "/"))
				if r.In.Header.Get("traceparent") == "" {
					r.Out.Header.Set("traceparent", newTraceparent())
				}
			},
		})
	}
	return mux
}

// newTraceparent starts a sampled trace (W3C Trace Context, section 3.2).
func newTraceparent() string {
	var ids [24]byte
	rand.Read(ids[:]) // never fails
	return "00-" + hex.EncodeToString(ids[:16]) + "-" + hex.EncodeToString(ids[16:]) + "-01"
}
