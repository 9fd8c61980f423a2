package span

import (
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

func TestExclusion(t *testing.T) {
	field := func(name, value string) exchange.Fields { return exchange.Fields{{Name: name, Value: value}} }
	tests := []struct {
		name, env string
		fields    exchange.Fields
		role      exchange.Role
		want      Exclusion
	}{
		{"probe", "", field("user-agent", "kube-probe/1.37"), exchange.RoleServer, ExcludedProbe},
		{"probe of gRPC", "", field("user-agent", "kube-probe/1.37 grpc-go/1.84.0"), exchange.RoleServer, ExcludedProbe},
		{"scrape", "", field("User-Agent", "Prometheus/3.9.0"), exchange.RoleServer, ExcludedScrape},
		{"scrape by another agent", "", field("X-Prometheus-Scrape-Timeout-Seconds", "10"), exchange.RoleServer, ExcludedScrape},
		{"like a probe", "", field("User-Agent", "my kube-probe/1"), exchange.RoleServer, Included},
		{"another field", "", field("X-UserAgen", "kube-probe/1"), exchange.RoleServer, Included},
		{"sent by the pod", "", field("User-Agent", "Prometheus/3.9.0"), exchange.RoleClient, Included},
		{"probes alone", "probes", field("User-Agent", "Prometheus/3.9.0"), exchange.RoleServer, Included},
		{"none", "none", field("User-Agent", "kube-probe/1.37"), exchange.RoleServer, Included},
		{"path", "", nil, exchange.RoleServer, ExcludedPath},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"SPILE_EXCLUDE": tt.env}
			if tt.want == ExcludedPath {
				env["SPILE_EXCLUDE_PATHS"] = "/"
			}
			cfg, err := ConfigFromEnv(environ(env))
			if err != nil {
				t.Fatal(err)
			}
			x := exampleExchange()
			x.Role, x.Request.Fields = tt.role, tt.fields
			if got := NewBuilder(cfg).Exclusion(x); got != tt.want {
				t.Errorf("exclusion %d, want %d", got, tt.want)
			}
		})
	}
}
