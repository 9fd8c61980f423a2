package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/spile-dev/spile/cmd/spile/tty"
)

const checkUsage = `Usage: spile check [FLAGS]

Looks at the cluster that KUBECONFIG points at and says what will and what won't
work, one line for each finding, with what to do about it: version, webhook and
its certificate, whether the API server reaches it (by creating pods as a dry
run), annotated namespaces, nodes, sidecars that do not start. It changes
nothing. The exit status is 1 if something is wrong.

  --context NAME   of the kubeconfig (default its current one)
  -o FORMAT        table (default) or json, one object per line
`

// maxFinding bounds a line, in bytes.
const maxFinding = 2048

// severity of a finding.
type severity string

const (
	fine    severity = "ok"
	caution severity = "warning"
	wrong   severity = "error"
)

// finding is what a check has found.
type finding struct {
	Severity severity `json:"severity"`
	Check    string   `json:"check"`
	Message  string   `json:"message"`
	// Advice is what to do about it; empty if there is nothing to do.
	Advice string `json:"advice,omitempty"`
}

func runCheck(ctx context.Context, args []string, e *environment) error {
	f := newFlags(checkUsage)
	var kubeContext, format string
	f.StringVar(&kubeContext, "context", "", "")
	format = "table"
	f.Func("o", "", func(s string) error {
		if s != "table" && s != "json" {
			return errors.New("want table or json")
		}
		format = s
		return nil
	})
	if err := f.parseNone(args); err != nil {
		return err
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{CurrentContext: kubeContext}).ClientConfig()
	if err != nil {
		return fmt.Errorf("finding the cluster: %w", oneLine(err))
	}
	config.Timeout = 15 * time.Second
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	c := &checker{api: api{client: client, base: base.String()}, now: time.Now, write: findingWriter(format, e.stdout)}
	if err := c.run(ctx); err != nil {
		return err
	}
	if c.failed {
		return errFailed
	}
	return nil
}

// findingWriter returns how findings are written.
func findingWriter(format string, w io.Writer) func(finding) error {
	if format == "json" {
		return func(f finding) error {
			line, err := json.Marshal(f)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, "%s\n", tty.EscapeJSON(line))
			return err
		}
	}
	return func(f finding) error {
		line := fmt.Sprintf("%-8s %-12s %s", f.Severity, f.Check, f.Message)
		if f.Advice != "" {
			line += "; " + f.Advice
		}
		// Names in a cluster are anybody's.
		_, err := fmt.Fprintln(w, tty.EscapeText(line, maxFinding))
		return err
	}
}

// checker makes checks, one after another.
type checker struct {
	api    api
	now    func() time.Time
	write  func(finding) error
	failed bool
	err    error // of write
	// Of the webhook configuration.
	namespaceSelector, objectSelector *metav1.LabelSelector
}

func (c *checker) find(s severity, check, advice, format string, args ...any) {
	if s == wrong {
		c.failed = true
	}
	if err := c.write(finding{s, check, fmt.Sprintf(format, args...), advice}); err != nil && c.err == nil {
		c.err = fmt.Errorf("writing a finding: %w", err)
	}
}

// run makes all checks. The error is that nothing could be checked or told.
func (c *checker) run(ctx context.Context) error {
	if err := c.version(ctx); err != nil {
		return err
	}
	c.nodes(ctx)
	if c.webhook(ctx) {
		c.namespaces(ctx)
	}
	return c.err
}
