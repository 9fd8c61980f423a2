package webhook

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Bounds of the tuning annotations. What is above them is a mistake or an
// attempt to make the container unstartable: Linux limits one environment
// variable to 128 KiB.
const (
	maxItems      = 64
	maxItemLength = 256
)

// tuning is one annotation that a tenant may set: nothing but a bounded value
// of one setting. None chooses an image, a command, an endpoint, a privilege or
// a free environment variable.
type tuning struct {
	name    string // below spile.dev/
	accepts string // for people, completing "accepted is ..."
	// env returns the variables for a value, or an error if it is not accepted.
	env func(value string) ([]EnvVar, error)
}

var errNotAccepted = errors.New("not accepted")

// tunings in the order in which their variables appear.
var tunings = []tuning{
	{"sample-ratio", "a decimal number from 0 to 1", func(v string) ([]EnvVar, error) {
		ratio, err := parseRatio(v)
		return []EnvVar{{"OTEL_TRACES_SAMPLER", "parentbased_traceidratio"}, {"OTEL_TRACES_SAMPLER_ARG", ratio}}, err
	}},
	{"log-level", "trace, debug, info, warn or error", func(v string) ([]EnvVar, error) {
		if !slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, v) {
			return nil, errNotAccepted
		}
		return []EnvVar{{"OTEL_LOG_LEVEL", v}}, nil
	}},
	{"routes", "a comma-separated list of path patterns such as /users/{id} and /static/*", list("SPILE_ROUTES", pathPattern)},
	{"capture-headers", "a comma-separated list of header field names", list("SPILE_CAPTURE_HEADERS", fieldName)},
	{"exclude-ports", "a comma-separated list of ports from 1 to 65535", list("SPILE_EXCLUDE_PORTS", port)},
	{"exclude-paths", "a comma-separated list of path patterns such as /healthz and /static/*", list("SPILE_EXCLUDE_PATHS", pathPattern)},
}

// settings are the environment variables that annotations ask for.
type settings []EnvVar

// tune reads the tuning annotations. An annotation that is not accepted counts
// as absent and gives a warning: the pod's wins over the namespace's, which
// wins over the sidecar's default.
func tune(pod, ns map[string]string) (s settings, warnings []string) {
	warnings = append(unknown(pod, "pod"), unknown(ns, "namespace")...)
	for _, t := range tunings {
		key := AnnotationPrefix + t.name
		for _, from := range []struct {
			where       string
			annotations map[string]string
		}{{"pod", pod}, {"namespace", ns}} {
			value, ok := from.annotations[key]
			if !ok {
				continue
			}
			env, err := t.env(value)
			if err != nil {
				warnings = append(warnings, fmt.Sprintf("annotation %s=%s on the %s is ignored: accepted is %s",
					key, quote(value), from.where, t.accepts))
				continue
			}
			s = append(s, env...)
			break
		}
	}
	return s, warnings
}

// unknown warns of annotations that look like ours, most likely a typing error.
func unknown(annotations map[string]string, where string) (warnings []string) {
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ours := strings.CutPrefix(key, AnnotationPrefix)
		if !ours || key == AnnotationInject || key == AnnotationStatus ||
			slices.ContainsFunc(tunings, func(t tuning) bool { return t.name == name }) {
			continue
		}
		if len(warnings) == maxWarnings {
			break
		}
		warnings = append(warnings, fmt.Sprintf("annotation %s on the %s is unknown to Spile and ignored", quote(key), where))
	}
	return warnings
}

// maxWarnings keeps the sum of them below what the API server passes on (4 KiB).
const maxWarnings = 4

// list accepts up to maxItems items that canonical accepts and sets name to
// them, separated by commas.
func list(name string, canonical func(item string) (string, error)) func(string) ([]EnvVar, error) {
	return func(value string) ([]EnvVar, error) {
		items := strings.SplitN(value, ",", maxItems+1)
		if len(items) > maxItems {
			return nil, errNotAccepted
		}
		for i, item := range items {
			item = strings.TrimSpace(item)
			if item == "" || len(item) > maxItemLength {
				return nil, errNotAccepted
			}
			item, err := canonical(item)
			if err != nil {
				return nil, err
			}
			items[i] = item
		}
		return []EnvVar{{name, strings.Join(items, ",")}}, nil
	}
}

func parseRatio(v string) (string, error) {
	// ParseFloat also knows hexadecimal, NaN, Inf and underscores.
	if len(v) > 32 || strings.Trim(v, "0123456789.") != "" {
		return "", errNotAccepted
	}
	ratio, err := strconv.ParseFloat(v, 64)
	if err != nil || ratio < 0 || ratio > 1 {
		return "", errNotAccepted
	}
	return strconv.FormatFloat(ratio, 'f', -1, 64), nil
}

func port(v string) (string, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return "", errNotAccepted
	}
	return strconv.FormatUint(n, 10), nil
}

// fieldName accepts an HTTP field name (a token, RFC 9110 section 5.6.2) and
// returns it in lower case, as field names compare.
func fieldName(v string) (string, error) {
	for i := range len(v) {
		if !isAlphanumeric(v[i]) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(v[i])) {
			return "", errNotAccepted
		}
	}
	// Expansion of $(NAME) is Kubernetes', in any variable: no token needs it.
	if strings.Contains(v, "$") {
		return "", errNotAccepted
	}
	return strings.ToLower(v), nil
}

// pathPattern accepts an absolute path whose segments are literals or {name};
// the last one may be "*", which stands for whatever follows.
func pathPattern(v string) (string, error) {
	rest, ok := strings.CutPrefix(v, "/")
	if !ok {
		return "", errNotAccepted
	}
	segments := strings.Split(rest, "/")
	for i, segment := range segments {
		wildcard := segment == "*" && i == len(segments)-1
		if !wildcard && !isParameter(segment) && !isLiteral(segment) {
			return "", errNotAccepted
		}
	}
	return v, nil
}

func isParameter(segment string) bool {
	name, opened := strings.CutPrefix(segment, "{")
	name, closed := strings.CutSuffix(name, "}")
	return opened && closed && name != "" && !strings.ContainsFunc(name, notWord)
}

// isLiteral reports whether a path segment consists of pchar (RFC 3986 section
// 3.3) without those that mean something to a pattern, a list or Kubernetes.
func isLiteral(segment string) bool {
	for i := range len(segment) {
		if !isAlphanumeric(segment[i]) && !strings.ContainsRune("-._~!&'+;=:@%", rune(segment[i])) {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func notWord(r rune) bool {
	return r > 0x7f || r != '_' && !isAlphanumeric(byte(r))
}
