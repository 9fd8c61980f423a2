package span

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// Values of SPILE_ROUTES_UNMATCHED. The conventions forbid the path in place of
// a route that is not known, hence the default; see docs/decisions/routes.md.
const (
	routesUnset     = "unset"
	routesHeuristic = "heuristic"
)

// namedRoute is a route that the configuration names.
type namedRoute struct {
	Pattern
	name routeName
}

// routeName is a route and the span names with it, kept so that naming a span
// does not allocate.
type routeName struct {
	text  string
	names map[string]string // by {method}
}

// with returns the span name of a method, which is a known one or HTTP.
func (r *routeName) with(method string) string {
	if name, ok := r.names[method]; ok {
		return name
	}
	if r.names == nil {
		r.names = make(map[string]string, 1)
	}
	name := method + " " + r.text
	r.names[method] = name
	return name
}

// route returns the route of a path, nil if it has none.
func (b *Builder) route(x *exchange.Exchange, path string) *routeName {
	for i := range b.routes {
		if b.routes[i].Match(path) {
			return &b.routes[i].name
		}
	}
	if b.grouper == nil {
		return nil
	}
	return b.grouper.route(path, knowsPath(x.Response.Status))
}

// knowsPath reports whether a response shows that the server knows the path.
func knowsPath(status int) bool {
	switch status {
	case 0, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone,
		http.StatusRequestURITooLong, http.StatusNotImplemented:
		return false
	}
	return true
}

func routesUnmatched(getenv func(string) string) (string, error) {
	const name = "SPILE_ROUTES_UNMATCHED"
	switch v := strings.TrimSpace(getenv(name)); v {
	case "", routesUnset:
		return routesUnset, nil
	case routesHeuristic:
		return v, nil
	default:
		return routesUnset, fault(name, v, routesUnset+" or "+routesHeuristic)
	}
}

func exclusions(getenv func(string) string) ([]string, error) {
	const name = "SPILE_EXCLUDE"
	all := []string{excludeProbes, excludeScrapes}
	var out []string
	var faults []error
	list := items(getenv(name))
	for _, item := range list {
		switch {
		case slices.Contains(all, item):
			out = append(out, item)
		case item != excludeNone || len(list) > 1:
			faults = append(faults, fault(name, item, "probes, scrapes, or none alone"))
		}
	}
	if len(list) == 0 || len(faults) > 0 && len(out) == 0 {
		out = all
	}
	return out, errors.Join(faults...)
}
