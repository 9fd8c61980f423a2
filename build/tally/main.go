// Command tally reads what `go test -json` writes, shows what a person wants to
// see of it, and counts:
//
//	go test -json ./... | tally -save bin/results/unit.json
//	tally bin/results/*.json
//
// The last line of standard output is `N passed, N failed, N skipped`. A test
// that has subtests is not counted beside them. A package that does not build, a
// test that never ends and a run without any test are faults.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("tally", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: go test -json ... | tally [-save FILE] [-no-skips]\n       tally FILE ...")
		fs.PrintDefaults()
	}
	save := fs.String("save", "", "`file` that gets a copy of standard input")
	noSkips := fs.Bool("no-skips", false, "a skipped test is a fault too")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	total, err := tally(*save, *noSkips, fs.Args(), stdin, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "tally:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	fmt.Fprintln(stdout, total)
	if err != nil {
		return 1
	}
	return 0
}

// tally counts standard input or, if there are any, the files. Only standard
// input is shown in full: the files were shown when they were written. The error
// joins all faults.
func tally(save string, noSkips bool, files []string, stdin io.Reader, stdout io.Writer) (total counts, _ error) {
	var faults []error
	add := func(c counts, name string) {
		total.passed += c.passed
		total.failed += c.failed
		total.skipped += c.skipped
		if c.passed+c.failed == 0 {
			faults = append(faults, fmt.Errorf("no test ran in %s", name))
		}
	}
	if len(files) == 0 {
		c, err := countAndSave(save, stdin, stdout)
		if err != nil {
			return total, err
		}
		add(c, "standard input")
	}
	for _, name := range files {
		c, err := countFile(name)
		if err != nil {
			return total, err
		}
		fmt.Fprintf(stdout, "%-16s %s\n", filepath.Base(name), c)
		add(c, filepath.Base(name))
	}
	if total.failed > 0 {
		faults = append(faults, fmt.Errorf("%d failed", total.failed))
	}
	if noSkips && total.skipped > 0 {
		faults = append(faults, fmt.Errorf("%d skipped", total.skipped))
	}
	return total, errors.Join(faults...)
}

func countAndSave(save string, in io.Reader, out io.Writer) (counts, error) {
	if save == "" {
		return count(in, out)
	}
	if err := os.MkdirAll(filepath.Dir(save), 0o755); err != nil {
		return counts{}, err
	}
	f, err := os.Create(save)
	if err != nil {
		return counts{}, err
	}
	c, err := count(io.TeeReader(in, f), out)
	return c, errors.Join(err, f.Close())
}

func countFile(name string) (counts, error) {
	f, err := os.Open(name)
	if err != nil {
		return counts{}, err
	}
	defer f.Close()
	return count(f, io.Discard)
}
