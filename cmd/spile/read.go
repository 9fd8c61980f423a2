package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/flow"
)

const readUsage = `Usage: spile read [FLAGS] FILE…

Shows the HTTP exchanges in capture files: pcap or pcapng, gzip or not, of any
link type that carries IP, TCP of any port. "-" is standard input. Each file is
read on its own. Counters go to standard error. The exit status is 0 if every
file could be read to its end.

` + rowsUsage

func runRead(ctx context.Context, args []string, e *environment) error {
	f := newFlags(readUsage)
	var r rows
	r.define(f)
	files, err := f.parse(args)
	if err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if len(files) == 0 {
		return usageErrorf(`no file given (want pcap or pcapng files, or "-" for standard input)`)
	}
	if err := r.open(e, true); err != nil {
		return err
	}
	failed := false
	for _, path := range files {
		if err := readFile(ctx, path, &r, e); err != nil {
			fmt.Fprintf(e.stderr, "spile read: %v\n", err)
			failed = true
		}
		if r.err != nil || ctx.Err() != nil {
			break
		}
	}
	if failed {
		return errFailed
	}
	return nil
}

// readFile writes the rows of a file, those before an error too, and its
// counters.
func readFile(ctx context.Context, path string, r *rows, e *environment) error {
	open := capture.OpenFile
	if path == "-" {
		open = func(string) (*capture.File, error) { return capture.NewFile(e.stdin, "standard input") }
	}
	file, err := open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r.shown = 0
	table := flow.NewTable(flow.Config{Emit: r.emit})
	err = flow.Pump(stoppable{file, func() error {
		// What feeds standard input gets the signal as well, and ends it.
		if ctx.Err() != nil && path != "-" {
			return fmt.Errorf("reading %s: interrupted", path)
		}
		return r.err
	}}, table)
	if r.err != nil {
		return r.err
	}
	fmt.Fprint(e.stderr, fileSummary(file), r.summary(table))
	return err
}

// stoppable is a source that ends with an error when check returns one.
type stoppable struct {
	capture.Source
	check func() error
}

func (s stoppable) Next() (capture.Packet, error) {
	if err := s.check(); err != nil {
		return capture.Packet{}, err
	}
	return s.Source.Next()
}

// fileSummary counts the packets of a file, in a line.
func fileSummary(file *capture.File) string {
	s := file.Stats()
	var skipped counts
	for _, skip := range slices.Sorted(maps.Keys(s.Skipped)) {
		name := skip.String()
		if skip == capture.SkipLinkType {
			name = fmt.Sprintf("%s %v:", name, s.LinkTypes)
		}
		skipped.add(name, s.Skipped[skip])
	}
	return fmt.Sprintf("%s: %d packets, %d skipped%s\n", file.Name(), s.Records, skipped.sum, skipped.list())
}
