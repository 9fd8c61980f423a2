package span

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

const (
	distroName     = "spile"
	unknownService = "unknown_service:spile"
)

// ContainerKey is the resource attribute that names the container.
const ContainerKey = string(semconv.K8SContainerNameKey)

// Resource returns what the spans are of: OTEL_SERVICE_NAME over
// OTEL_RESOURCE_ATTRIBUTES (key=value pairs separated by commas,
// percent-encoded) over the default service name, and the telemetry.*
// attributes of this program, of the given version. If
// OTEL_RESOURCE_ATTRIBUTES has a fault, it is returned and the variable left
// out as a whole, as the specification says.
func Resource(getenv func(string) string, version string) (pcommon.Resource, error) {
	res := pcommon.NewResource()
	attrs := res.Attributes()
	attrs.PutStr(string(semconv.ServiceNameKey), unknownService)
	pairs, err := parseResourceAttributes(getenv("OTEL_RESOURCE_ATTRIBUTES"))
	for _, p := range pairs {
		if p[0] == string(semconv.ServiceNameKey) && p[1] == "" {
			continue
		}
		attrs.PutStr(p[0], p[1])
	}
	if name := strings.TrimSpace(getenv("OTEL_SERVICE_NAME")); name != "" {
		attrs.PutStr(string(semconv.ServiceNameKey), strings.ToValidUTF8(name, "\uFFFD"))
	}
	// "opentelemetry" is reserved for its own SDKs.
	attrs.PutStr(string(semconv.TelemetrySDKNameKey), distroName)
	attrs.PutStr(string(semconv.TelemetrySDKLanguageKey), "go")
	attrs.PutStr(string(semconv.TelemetrySDKVersionKey), version)
	attrs.PutStr(string(semconv.TelemetryDistroNameKey), distroName)
	attrs.PutStr(string(semconv.TelemetryDistroVersionKey), version)
	return res, err
}

func parseResourceAttributes(s string) (pairs [][2]string, err error) {
	const name = "OTEL_RESOURCE_ATTRIBUTES"
	var faults []error
	for _, item := range items(s) {
		key, value, ok := strings.Cut(item, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			faults = append(faults, fault(name, item, "key=value pairs, separated by commas"))
			continue
		}
		k, errKey := url.PathUnescape(key)
		v, errValue := url.PathUnescape(strings.TrimSpace(value))
		if err := errors.Join(errKey, errValue); err != nil {
			faults = append(faults, fmt.Errorf("%s=%q: %w; accepted is percent-encoding", name, item, err))
			continue
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			faults = append(faults, fault(name, item, "UTF-8, percent-encoded"))
			continue
		}
		pairs = append(pairs, [2]string{k, v})
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return pairs, nil
}

// AppendResource appends the resource to buf as an encoded
// opentelemetry.proto.resource.v1.Resource message. Its attributes are strings.
func AppendResource(buf []byte, res pcommon.Resource) []byte {
	const tagResourceAttribute = 1<<3 | wireBytes
	for k, v := range res.Attributes().All() {
		buf = appendAttr(buf, tagResourceAttribute, &attr{key: k, kind: kindText, text: v.AsString()})
	}
	return buf
}
