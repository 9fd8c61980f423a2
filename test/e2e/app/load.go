package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

// load carries out the plan, each request exactly once, and fails if one was
// answered otherwise than planned.
func load(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	target := fs.String("target", "", "`URL` of the service")
	requests := fs.Int("requests", 1, "`number` of requests in the plan")
	workers := fs.Int("workers", 1, "`number` of requests at the same time")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := reachable(*target); err != nil {
		return err
	}

	plan := make(chan traffic.Request)
	faults := make(chan error, *requests)
	c := client()
	var wg sync.WaitGroup
	for range *workers {
		wg.Go(func() {
			for r := range plan {
				faults <- send(c, *target, r)
			}
		})
	}
	for _, r := range traffic.Plan(*requests) {
		plan <- r
	}
	close(plan)
	wg.Wait()
	close(faults)

	var all []error
	for err := range faults {
		all = append(all, err)
	}
	fmt.Fprintf(stdout, "load: %d requests\n", len(all))
	return errors.Join(all...)
}

func send(c *http.Client, target string, r traffic.Request) error {
	header := http.Header{}
	if r.TraceParent != "" {
		header.Set("Traceparent", r.TraceParent)
	}
	status, _, err := ask(c, r.Method, target+r.Path, header)
	if err == nil && status != r.Status {
		err = fmt.Errorf("answered with %d, want %d", status, r.Status)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
	}
	return nil
}
