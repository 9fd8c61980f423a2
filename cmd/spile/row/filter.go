package row

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/span"
)

// Filter chooses exchanges. Its conditions must all hold; of a condition with
// several values, one. The zero Filter chooses all.
type Filter struct {
	ports    []uint16
	methods  []string
	statuses []statusRange
	paths    []span.Pattern
	matcher  *span.Builder // of the paths
}

// statusRange is a range of status codes, both ends included.
type statusRange struct{ from, to int }

// AddPorts adds ports of servers: "80" or "80,8080".
func (f *Filter) AddPorts(list string) error {
	return each(list, func(item string) error {
		port, err := strconv.ParseUint(item, 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("want a port from 1 to 65535")
		}
		f.ports = append(f.ports, uint16(port))
		return nil
	})
}

// AddMethods adds request methods: "GET" or "GET,HEAD".
func (f *Filter) AddMethods(list string) error {
	return each(list, func(item string) error {
		f.methods = append(f.methods, item)
		return nil
	})
}

// AddStatuses adds status codes: "404", "5xx", "400-499", or "none" for no
// response.
func (f *Filter) AddStatuses(list string) error {
	return each(list, func(item string) error {
		r, ok := parseStatus(item)
		if !ok {
			return fmt.Errorf("want a status such as 404, 5xx, 400-499 or none")
		}
		f.statuses = append(f.statuses, r)
		return nil
	})
}

func parseStatus(s string) (statusRange, bool) {
	if s == "none" {
		return statusRange{0, 0}, true
	}
	if len(s) == 3 && strings.HasSuffix(strings.ToLower(s), "xx") && '1' <= s[0] && s[0] <= '9' {
		from := int(s[0]-'0') * 100
		return statusRange{from, from + 99}, true
	}
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	from, err1 := strconv.Atoi(low)
	to, err2 := strconv.Atoi(high)
	return statusRange{from, to}, err1 == nil && err2 == nil && 100 <= from && from <= to && to <= 999
}

// AddPaths adds path patterns: "/healthz", "/users/{id}" or "/static/*".
func (f *Filter) AddPaths(list string) error {
	err := each(list, func(item string) error {
		p, err := span.ParsePattern(item)
		if err != nil {
			return fmt.Errorf("%w (want a path, /users/{id} or /static/*)", err)
		}
		f.paths = append(f.paths, p)
		return nil
	})
	f.matcher = span.NewBuilder(span.Config{ExcludePaths: f.paths})
	return err
}

// each calls add for each item of a list that commas separate.
func each(list string, add func(item string) error) error {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			return fmt.Errorf("want a list separated by commas, without empty items")
		}
		if err := add(item); err != nil {
			return err
		}
	}
	return nil
}

// Match tells whether the filter chooses an exchange.
func (f *Filter) Match(x *exchange.Exchange) bool {
	return (len(f.ports) == 0 || slices.Contains(f.ports, x.Peers.Server.Port())) &&
		(len(f.methods) == 0 || slices.Contains(f.methods, x.Request.Method)) &&
		(len(f.statuses) == 0 || slices.ContainsFunc(f.statuses, func(r statusRange) bool {
			return r.from <= x.Response.Status && x.Response.Status <= r.to
		})) &&
		// A Builder excludes what its patterns match.
		(len(f.paths) == 0 || f.matcher.Excluded(x))
}
