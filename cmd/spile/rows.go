package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spile-dev/spile/cmd/spile/row"
	"github.com/spile-dev/spile/cmd/spile/tty"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
	"github.com/spile-dev/spile/sidecar/span"
)

// rowsUsage describes the flags that rows defines.
const rowsUsage = `  -o FORMAT        table (default), json: an object per line, or otlp: OTLP JSON,
                   a TracesData per line, of the resource that OTEL_SERVICE_NAME
                   and OTEL_RESOURCE_ATTRIBUTES describe
  --headers        header fields too (table, json)
  --show-secrets   with --headers, the values of Authorization, Cookie, Set-Cookie,
                   X-Api-Key and the like too; else they are REDACTED

Rows can be chosen. Lists are separated by commas:
  --port LIST      ports of servers: 80,8080
  --method LIST    GET,POST
  --status LIST    404, 5xx, 400-499, none (no response)
  --path LIST      /healthz, /users/{id}, /static/*
`

// rows writes exchanges as rows.
type rows struct {
	format           string
	headers, secrets bool
	filter           row.Filter

	writer row.Writer
	shown  uint64
	err    error // of the first row that could not be written
}

// define defines the flags that rowsUsage describes.
func (r *rows) define(f *flags) {
	r.format = row.Formats[0]
	f.Func("o", "", func(s string) error {
		if !slices.Contains(row.Formats, s) {
			return errors.New("want " + strings.Join(row.Formats, ", "))
		}
		r.format = s
		return nil
	})
	f.BoolVar(&r.headers, "headers", false, "")
	f.BoolVar(&r.secrets, "show-secrets", false, "")
	f.Func("port", "", r.filter.AddPorts)
	f.Func("method", "", r.filter.AddMethods)
	f.Func("status", "", r.filter.AddStatuses)
	f.Func("path", "", r.filter.AddPaths)
}

// check finds flags that contradict each other.
func (r *rows) check() error {
	switch {
	case r.secrets && !r.headers:
		return usageErrorf("--show-secrets is given without --headers")
	case r.headers && r.format == "otlp":
		return usageErrorf("--headers is for -o table and json (SPILE_CAPTURE_HEADERS names the fields that spans carry)")
	}
	return nil
}

// open makes the writer. dates adds the date to a table's times.
func (r *rows) open(e *environment, dates bool) error {
	config, errConfig := span.ConfigFromEnv(e.getenv)
	resource, errResource := span.Resource(e.getenv, version)
	if err := errors.Join(errConfig, errResource); err != nil {
		return oneLine(err)
	}
	var err error
	r.writer, err = row.New(r.format, e.stdout, row.Options{
		Headers: r.headers, Secrets: r.secrets, Date: dates,
		Palette: tty.NewPalette(e.stdout, e.getenv),
		Spans:   span.NewBuilder(config), Resource: resource, Version: version,
	})
	return err
}

// emit writes a row.
func (r *rows) emit(x *exchange.Exchange) {
	if r.err != nil || !r.filter.Match(x) {
		return
	}
	r.shown++
	if err := r.writer.Write(x); err != nil {
		r.err = fmt.Errorf("writing a row: %w", err)
	}
}

// summary counts what a table of connections saw, in lines. The requests that
// were seen are all accounted for.
func (r *rows) summary(t *flow.Table) string {
	x := t.Exchanges()
	var kinds, outcomes, drops counts
	for k, n := range x.Kinds {
		kinds.add(exchange.Kind(k).String(), n)
	}
	for o, n := range x.Outcomes {
		outcomes.add(exchange.Outcome(o).String(), n)
	}
	for d, n := range x.Dropped {
		drops.add(exchange.Drop(d).String(), n)
	}
	shown := ""
	if r.shown != outcomes.sum {
		shown = fmt.Sprintf(", %d of them shown", r.shown)
	}
	orphans := ""
	if x.Orphans > 0 {
		orphans = fmt.Sprintf("; %d responses without a request", x.Orphans)
	}
	return fmt.Sprintf("connections: %d%s; %d bytes missing\n", t.Stats.Opened, kinds.list(), t.Stats.Missing) +
		unseen(x.Unseen.Counts()) +
		fmt.Sprintf("requests: %d = %d reported%s%s + %d dropped%s%s\n", x.Seen,
			outcomes.sum, outcomes.list(), shown, drops.sum, drops.list(), orphans)
}

// unseen names the connections that are not followed, in a line.
func unseen(all []exchange.UnseenCount) string {
	const most = 20
	var parts []string
	rest := uint64(0)
	for i, u := range all {
		if i < most {
			parts = append(parts, fmt.Sprintf("%s (%d)", u.Unseen, u.N))
		} else {
			rest += u.N
		}
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("others (%d)", rest))
	}
	if len(parts) == 0 {
		return ""
	}
	return "not followed: " + strings.Join(parts, ", ") + "\n"
}

// counts are named numbers, and their sum.
type counts struct {
	parts []string
	sum   uint64
}

func (c *counts) add(name string, n uint64) {
	c.sum += n
	if n > 0 {
		c.parts = append(c.parts, fmt.Sprintf("%s %d", name, n))
	}
}

// list is the numbers other than 0 in parentheses.
func (c *counts) list() string {
	if len(c.parts) == 0 {
		return ""
	}
	return " (" + strings.Join(c.parts, ", ") + ")"
}
