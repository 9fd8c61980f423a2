package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
)

// event is a line of `go test -json`; see `go doc test2json` and
// `go help buildjson`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type counts struct{ passed, failed, skipped int }

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

// test is the state of a test or, under the empty name, of a package.
type test struct {
	output []string
	ended  string // "pass", "fail", "skip", "" while it runs
	parent bool   // it has subtests
	lost   bool   // a subtest of it failed, so its own failure is not news
}

// stream is the state of one run of `go test -json`.
type stream struct {
	out   io.Writer
	tests map[string]map[string]*test // by package, by name
}

// count reads a stream to its end, writes what is worth seeing to out, and
// counts the tests. Lines that are not events are passed on.
func count(in io.Reader, out io.Writer) (counts, error) {
	s := stream{out: out, tests: map[string]map[string]*test{}}
	for r := bufio.NewReader(in); ; {
		line, err := r.ReadString('\n')
		s.line(line)
		if errors.Is(err, io.EOF) {
			return s.counts(), nil
		}
		if err != nil {
			return counts{}, err
		}
	}
}

func (s *stream) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(s.out, line)
		return
	}
	switch e.Action {
	case "build-output": // the package's own "fail" follows
		fmt.Fprint(s.out, e.Output)
	case "output":
		t := s.test(e.Package, e.Test)
		t.output = append(t.output, e.Output)
	case "start", "run":
		s.test(e.Package, e.Test)
	case "pass", "fail", "skip":
		s.end(e)
	}
}

// test returns the named test of a package; new ones are known to their parents.
func (s *stream) test(pkg, name string) *test {
	if s.tests[pkg] == nil {
		s.tests[pkg] = map[string]*test{"": {}}
	}
	t := s.tests[pkg][name]
	if t == nil {
		t = &test{}
		s.tests[pkg][name] = t
		for outer := range s.around(pkg, name) {
			outer.parent = true
		}
	}
	return t
}

// around returns the tests that a subtest is part of, and its package. There is
// not one for every slash: the name that was given to a subtest may have some.
func (s *stream) around(pkg, name string) iter.Seq[*test] {
	return func(yield func(*test) bool) {
		for name != "" {
			name = name[:max(strings.LastIndexByte(name, '/'), 0)]
			if t := s.tests[pkg][name]; t != nil && !yield(t) {
				return
			}
		}
	}
}

func (s *stream) end(e event) {
	t := s.test(e.Package, e.Test)
	t.ended = e.Action
	switch {
	case e.Action == "fail":
		s.failed(e.Package, e.Test, t)
	case e.Test == "" && t.parent:
		fmt.Fprintf(s.out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case e.Action == "skip" && e.Test != "":
		fmt.Fprintf(s.out, "skip %s %s: %s\n", e.Package, e.Test, reason(t.output))
	}
	if e.Action != "fail" {
		t.output = nil
	}
}

// failed shows a failure and tells the tests around it that they are no news.
func (s *stream) failed(pkg, name string, t *test) {
	fmt.Fprint(s.out, strings.Join(t.output, ""))
	fmt.Fprintf(s.out, "FAIL %s %s\n", pkg, name)
	for outer := range s.around(pkg, name) {
		outer.lost = true
	}
}

// reason returns what a skipped test said of why, on one line.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = append(said, line)
	}
	return strings.Join(said, " ")
}

// counts counts the tests that have no subtests. A test with subtests, or a
// package, counts only where it failed and none of its tests did.
func (s *stream) counts() (c counts) {
	for _, pkg := range slices.Sorted(maps.Keys(s.tests)) {
		tests := s.tests[pkg]
		// Inner tests come first, so that what they lose is known outside.
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(tests))) {
			t := tests[name]
			if t.ended == "" && !t.lost {
				t.output = append(t.output, "did not end\n")
				t.ended = "fail"
				s.failed(pkg, name, t)
			}
			switch leaf := name != "" && !t.parent; {
			case t.ended == "fail" && !t.lost:
				c.failed++
			case leaf && t.ended == "pass":
				c.passed++
			case leaf && t.ended == "skip":
				c.skipped++
			}
		}
	}
	return c
}
