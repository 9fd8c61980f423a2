package span

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// TestCanaries: a secret in any field that is not asked for is in no span and in
// no measurement, of either role, over HTTP and gRPC.
func TestCanaries(t *testing.T) {
	const canary = "CANARYCANARY"
	fields := map[string]string{
		"Authorization": "Bearer %s", "Proxy-Authorization": "Basic %s", "Cookie": "session=%s", "X-Api-Key": "%s",
		"Forwarded": `for="[2001:db8::1]";by=%[1]s;secret=%[1]s;host="u:%[1]s@shop"`, "X-Forwarded-For": "%s", "X-Forwarded-Host": "u:%s@shop",
		"X-Forwarded-Proto": "%s://", "Traceparent": "%s", "B3": "%s", "X-B3-TraceId": "%s", "Baggage": "k=%s", "Referer": "http://shop/?token=%s",
		"Origin": "http://u:%s@shop", "grpc-timeout": "%s", "Content-Type": "text/plain; p=%s",
	}
	response := map[string]string{
		"Set-Cookie": "session=%s", "Location": "/?code=%s", "WWW-Authenticate": "Basic realm=%s", "Authentication-Info": "%s",
		"grpc-message": "%s", "grpc-status-details-bin": "%s", "grpc-status": "%s",
	}
	targets := []string{
		"/a?token=%s", "/a?x=1&PassWord=%s#%[1]s", "/a?%%74oken=%s", "/a;b?api-key=%s;%[1]s", "http://u:%s@shop/a", "http://%s@shop/a", "u:%s@shop",
	}
	cfg := Default()
	cfg.RoutesUnmatched = routesHeuristic
	b := NewBuilder(cfg)
	check := func(what string, x *exchange.Exchange) {
		t.Helper()
		for _, role := range []exchange.Role{exchange.RoleServer, exchange.RoleClient} {
			for _, protocol := range []exchange.Protocol{exchange.HTTP11, exchange.HTTP2, exchange.GRPC} {
				x.Role, x.Protocol = role, protocol
				encoded := b.Append(nil, x, b.Identify(x))
				m, _, _ := b.Measurement()
				if strings.Contains(string(encoded), canary) || strings.Contains(fmt.Sprintf("%+v", *m), canary) {
					t.Errorf("%s, role %v, %v: the secret is in the span %q or in the measurement %+v", what, role, protocol, encoded, *m)
				}
			}
		}
	}
	for name, value := range fields {
		x := exampleExchange()
		x.Request.Fields = append(x.Request.Fields, exchange.Field{Name: name, Value: fmt.Sprintf(value, canary)})
		check(name, x)
	}
	for name, value := range response {
		x := exampleExchange()
		field := exchange.Field{Name: name, Value: fmt.Sprintf(value, canary)}
		x.Response.Fields, x.Response.Trailers = append(x.Response.Fields, field), exchange.Fields{field}
		check(name, x)
	}
	for _, target := range targets {
		x := exampleExchange()
		x.Request.Target = fmt.Sprintf(target, canary)
		check("target "+x.Request.Target, x)
	}
	for _, method := range []string{"GET", "CONNECT", "_UNKNOWN"} {
		x := exampleExchange()
		x.Request.Method, x.Request.Host = method, "u:"+canary+"@shop"
		check("host, method "+method, x)
	}
}
