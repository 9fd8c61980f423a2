package span

import (
	"strings"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// Exclusion says why the configuration leaves an exchange out: no span is made
// of it, and no duration measured.
type Exclusion uint8

const (
	// Included: it is not left out.
	Included Exclusion = iota
	// ExcludedPath: SPILE_EXCLUDE_PATHS names its path.
	ExcludedPath
	// ExcludedProbe: it is a probe of the kubelet.
	ExcludedProbe
	// ExcludedScrape: it is a scrape of metrics.
	ExcludedScrape
)

// Items of SPILE_EXCLUDE.
const (
	excludeProbes  = "probes"
	excludeScrapes = "scrapes"
	excludeNone    = "none"
)

// Exclusion reports whether the exchange is left out, and why.
func (b *Builder) Exclusion(x *exchange.Exchange) Exclusion {
	if len(b.cfg.ExcludePaths) > 0 {
		path := parseTarget(x.Request.Method, x.Request.Target).path
		for i := range b.cfg.ExcludePaths {
			if b.cfg.ExcludePaths[i].Match(path) {
				return ExcludedPath
			}
		}
	}
	if x.Role != exchange.RoleServer || !b.probes && !b.scrapes {
		return Included
	}
	for i := range x.Request.Fields {
		f := &x.Request.Fields[i]
		switch len(f.Name) {
		case len("User-Agent"):
			if !equalFold(f.Name, "User-Agent") {
				continue
			}
			if b.probes && strings.HasPrefix(f.Value, "kube-probe/") {
				return ExcludedProbe
			}
			if b.scrapes && strings.HasPrefix(f.Value, "Prometheus/") {
				return ExcludedScrape
			}
		case len(scrapeTimeout):
			// Prometheus and those that took its scraper over send it.
			if b.scrapes && equalFold(f.Name, scrapeTimeout) {
				return ExcludedScrape
			}
		}
	}
	return Included
}

const scrapeTimeout = "X-Prometheus-Scrape-Timeout-Seconds"

// Excluded reports whether the exchange is left out.
func (b *Builder) Excluded(x *exchange.Exchange) bool { return b.Exclusion(x) != Included }
