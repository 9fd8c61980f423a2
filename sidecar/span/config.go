package span

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Config says what spans carry and which are made. ConfigFromEnv makes it.
type Config struct {
	Sampler          Sampler
	KnownMethods     []string   // methods that are not _OTHER
	Propagators      []string   // by which requests name their parents
	Routes           []Pattern  // values of http.route; the first that matches
	RoutesUnmatched  string     // what http.route is where none matches: "unset", or "heuristic"
	Exclude          []string   // kinds of requests of which no span is made
	ExcludePaths     []Pattern  // paths of which no span is made
	CaptureHeaders   []Header   // fields copied into attributes
	OptIn            []string   // opt-in attributes to add, by their names
	ValueLengthLimit int        // characters of an attribute value
	CountLimit       int        // attributes of a span
	ContainerPorts   Containers // the container that listens on a port
}

// Containers maps the TCP ports that a pod's containers declare to their names.
type Containers map[uint16]string

// Header is the name of a captured field, and the attributes that carry it.
type Header struct {
	Name                              string
	request, response                 string // over HTTP
	requestMetadata, responseMetadata string // over gRPC
}

// NewHeader returns the Header of a field name.
func NewHeader(name string) Header {
	name = strings.ToLower(name)
	return Header{
		Name: name, request: requestHeaderPrefix + name, response: responseHeaderPrefix + name,
		requestMetadata: requestMetadataPrefix + name, responseMetadata: responseMetadataPrefix + name,
	}
}

// MarshalText returns the name.
func (h Header) MarshalText() ([]byte, error) { return []byte(h.Name), nil }

// defaultKnownMethods are those of RFC 9110, PATCH (RFC 5789) and QUERY, as the
// conventions list them.
var defaultKnownMethods = []string{
	"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY",
}

const (
	defaultValueLengthLimit = 2048
	defaultCountLimit       = 128
)

// Default returns the Config of an empty environment.
func Default() Config {
	cfg, err := ConfigFromEnv(func(string) string { return "" })
	if err != nil {
		panic(err) // no variable, no fault
	}
	return cfg
}

// ConfigFromEnv reads the configuration from environment variables:
//
//	OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
//	OTEL_PROPAGATORS        tracecontext, baggage, b3, b3multi (tracecontext,baggage), or none
//	OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS   methods, case-sensitive, in place of the default ones
//	OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT   characters (2048)
//	OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT, OTEL_ATTRIBUTE_COUNT_LIMIT   attributes of a span (128)
//	SPILE_ROUTES            path patterns: /users/{id}, /static/*
//	SPILE_ROUTES_UNMATCHED  unset (default) or heuristic: the route of other paths
//	SPILE_EXCLUDE           probes, scrapes (both by default), or none
//	SPILE_EXCLUDE_PATHS     path patterns
//	SPILE_CAPTURE_HEADERS   field names
//	SPILE_OPT_IN_ATTRIBUTES names of opt-in attributes
//	SPILE_CONTAINER_PORTS   container=port+port
//
// Lists are separated by commas. The error joins every fault; the Config is
// then usable, with the default in place of each faulty variable.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	var faults []error
	add := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	cfg := Config{KnownMethods: defaultKnownMethods}
	var err error
	if name := strings.TrimSpace(getenv("OTEL_TRACES_SAMPLER")); name != "" {
		cfg.Sampler, err = ParseSampler(strings.ToLower(name), strings.TrimSpace(getenv("OTEL_TRACES_SAMPLER_ARG")))
		add(err)
	}
	if cfg.Sampler.name == "" {
		cfg.Sampler, _ = ParseSampler("parentbased_always_on", "")
	}
	if methods := items(getenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS")); len(methods) > 0 {
		cfg.KnownMethods = methods
	}
	cfg.ValueLengthLimit, err = limit(getenv, "ATTRIBUTE_VALUE_LENGTH_LIMIT", defaultValueLengthLimit, 1<<16)
	add(err)
	cfg.CountLimit, err = limit(getenv, "ATTRIBUTE_COUNT_LIMIT", defaultCountLimit, 1<<10)
	add(err)
	cfg.Propagators, err = propagators(getenv)
	add(err)
	cfg.Routes, err = patterns(getenv, "SPILE_ROUTES")
	add(err)
	cfg.RoutesUnmatched, err = routesUnmatched(getenv)
	add(err)
	cfg.Exclude, err = exclusions(getenv)
	add(err)
	cfg.ExcludePaths, err = patterns(getenv, "SPILE_EXCLUDE_PATHS")
	add(err)
	cfg.CaptureHeaders, err = headers(getenv)
	add(err)
	cfg.OptIn, err = optInNames(getenv)
	add(err)
	cfg.ContainerPorts, err = containerPorts(getenv)
	add(err)
	return cfg, errors.Join(faults...)
}

// fault is a value that a variable may not have.
func fault(name, value, accepted string) error {
	return fmt.Errorf("%s=%q: accepted is %s", name, value, accepted)
}

// items splits a comma-separated list; empty items are left out.
func items(list string) []string {
	var out []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// limit reads a limit of spans or, before, of all signals, from 1 to high.
func limit(getenv func(string) string, what string, unset, high int) (int, error) {
	var faults []error
	for _, name := range []string{"OTEL_SPAN_" + what, "OTEL_" + what} {
		if v := strings.TrimSpace(getenv(name)); v != "" {
			n, err := strconv.Atoi(v)
			if err == nil && 1 <= n && n <= high {
				return n, errors.Join(faults...)
			}
			faults = append(faults, fault(name, v, fmt.Sprintf("a number from 1 to %d", high)))
		}
	}
	return unset, errors.Join(faults...)
}

func patterns(getenv func(string) string, name string) ([]Pattern, error) {
	var out []Pattern
	var faults []error
	for _, item := range items(getenv(name)) {
		p, err := ParsePattern(item)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s=%q: %w; accepted are path patterns such as /users/{id} and /static/*", name, item, err))
			continue
		}
		out = append(out, p)
	}
	return out, errors.Join(faults...)
}

func headers(getenv func(string) string) ([]Header, error) {
	const name = "SPILE_CAPTURE_HEADERS"
	var out []Header
	var faults []error
	for _, item := range items(getenv(name)) {
		if !isToken(item) {
			faults = append(faults, fault(name, item, "a comma-separated list of header field names"))
			continue
		}
		if h := NewHeader(item); !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out, errors.Join(faults...)
}

// isToken reports whether s is a token, as field names are (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlpha(c) && !isDigit(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func containerPorts(getenv func(string) string) (Containers, error) {
	const name, accepted = "SPILE_CONTAINER_PORTS", "container=port+port, separated by commas"
	var out Containers
	var faults []error
	for _, item := range items(getenv(name)) {
		container, ports, ok := strings.Cut(item, "=")
		if !ok || container == "" {
			faults = append(faults, fault(name, item, accepted))
			continue
		}
		for port := range strings.SplitSeq(ports, "+") {
			p, err := strconv.ParseUint(port, 10, 16)
			if err != nil || p == 0 {
				faults = append(faults, fault(name, item, accepted))
				break
			}
			if out == nil {
				out = make(Containers)
			}
			out[uint16(p)] = container
		}
	}
	return out, errors.Join(faults...)
}
