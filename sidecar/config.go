// Package sidecar is the program that runs beside a pod's containers: it wires
// the capture of the pod's network namespace to the export of spans.
package sidecar

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/spile-dev/spile/sidecar/export"
	"github.com/spile-dev/spile/sidecar/span"
)

// Config is all that can be set. ConfigFromEnv makes it.
type Config struct {
	LogLevel     slog.Level
	ExcludePorts []uint16
	HostNetwork  bool // the pod has no network namespace of its own
	Span         span.Config
	Export       export.Config

	resource pcommon.Resource
}

// ConfigFromEnv reads the configuration from environment variables: those of
// span.ConfigFromEnv, span.Resource and export.ConfigFromEnv, and
//
//	OTEL_LOG_LEVEL               trace, debug, info (default), warn, error
//	SPILE_EXCLUDE_PORTS          TCP ports that are not watched, separated by commas
//	SPILE_POD_IP, SPILE_HOST_IP  equal in a pod on the host's network, which is not watched
//
// The error joins every fault: each names the variable, its value and what is
// accepted. The Config is then usable: what is wrong counts as unset.
func ConfigFromEnv(getenv func(string) string, version string) (Config, error) {
	var c Config
	var faults [5]error
	c.LogLevel, faults[0] = logLevel(getenv("OTEL_LOG_LEVEL"))
	c.ExcludePorts, faults[1] = parsePorts("SPILE_EXCLUDE_PORTS", getenv("SPILE_EXCLUDE_PORTS"))
	c.Span, faults[2] = span.ConfigFromEnv(getenv)
	c.Export, faults[3] = export.ConfigFromEnv(getenv)
	c.resource, faults[4] = span.Resource(getenv, version)
	ip := getenv("SPILE_POD_IP")
	c.HostNetwork = ip != "" && ip == getenv("SPILE_HOST_IP")
	return c, errors.Join(faults[:]...)
}

// Faults returns those that an error of ConfigFromEnv joins.
func Faults(err error) (faults []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			faults = append(faults, Faults(e)...)
		}
		return faults
	}
	if err != nil {
		faults = append(faults, err)
	}
	return faults
}

func logLevel(value string) (slog.Level, error) {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "", "info":
		return slog.LevelInfo, nil
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return slog.LevelInfo, fmt.Errorf("OTEL_LOG_LEVEL=%q: accepted are trace, debug, info, warn, error", value)
}

// Print writes the configuration as JSON, without secrets.
func (c Config) Print(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Config
		Resource map[string]any
	}{c, c.resource.Attributes().AsRaw()})
}

// NewLogger returns the logger of the program, which writes JSON lines.
func (c Config) NewLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: c.LogLevel}))
}
