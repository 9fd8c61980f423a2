package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

// load carries out the plan, each request exactly once, prints each as a
// traffic.Done, and fails if one was answered otherwise than planned.
func load(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	target := fs.String("target", "", "`URL` of the service")
	requests := fs.Int("requests", 1, "`number` of requests in the plan")
	workers := fs.Int("workers", 1, "`number` of requests at the same time")
	rate := fs.Int("rate", 0, "requests a second; as many as can be made if 0")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := reachable(*target); err != nil {
		return err
	}

	type result struct {
		traffic.Done
		err error
	}
	plan := make(chan traffic.Request)
	results := make(chan result, *requests)
	c := client()
	var wg sync.WaitGroup
	for range *workers {
		wg.Go(func() {
			for r := range plan {
				start := time.Now()
				err := send(c, *target, r)
				results <- result{traffic.Done{Method: r.Method, Path: r.Path, Status: r.Status, Start: start, Took: time.Since(start)}, err}
			}
		})
	}
	go func() {
		defer close(results)
		defer wg.Wait()
		defer close(plan)
		start := time.Now()
		for i, r := range traffic.Plan(*requests) {
			if *rate > 0 {
				time.Sleep(time.Until(start.Add(time.Second * time.Duration(i) / time.Duration(*rate))))
			}
			plan <- r
		}
	}()

	var faults []error
	out := json.NewEncoder(stdout)
	for r := range results {
		if r.err != nil {
			faults = append(faults, r.err)
		} else if err := out.Encode(r.Done); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
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
