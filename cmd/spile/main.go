// Command spile shows HTTP traffic, live or from a capture file, as rows or as
// OpenTelemetry spans.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spile-dev/spile/cmd/spile/demo"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends what runs in order, a second one at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// environment is what a command has of the world.
type environment struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// command is a subcommand. A command without a summary is not shown.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, e *environment) error
}

func commands() []command {
	return []command{
		{"tap", "show live traffic of this or another network namespace", runTap},
		{"read", "show the traffic in capture files (pcap, pcapng)", runRead},
		{"inject", "add the sidecar to the pods in a Kubernetes manifest", runInject},
		{"check", "say what will and won't work in a Kubernetes cluster, and why", runCheck},
		{"demo", "run a small shop in network namespaces and watch it", runDemo},
		{"version", "print the version", runVersion},
		{demo.PodCommand, "", runPod},
	}
}

const (
	exitFailure = 1
	exitUsage   = 2
)

// errFailed is a failure that has been told.
var errFailed = errors.New("failed")

// run runs a command line and returns the exit status: 0, 1 if something failed
// at run time, 2 if the command line is wrong.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &environment{getenv, stdin, stdout, stderr}
	if len(args) == 0 {
		fmt.Fprint(stderr, usage())
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		return help(ctx, args[1:], e)
	case "-version", "--version":
		args = append([]string{"version"}, args[1:]...)
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return status(c.run(ctx, args[1:], e), c.name, e)
		}
	}
	fmt.Fprintf(stderr, "spile: unknown command %q (want %s or help)\n", args[0], strings.Join(commandNames(), ", "))
	return exitUsage
}

// status tells of an error and returns the exit status it stands for.
func status(err error, name string, e *environment) int {
	var wrong *usageError
	var asked *helpRequest
	switch {
	case err == nil:
		return 0
	case errors.As(err, &asked):
		fmt.Fprint(e.stdout, asked.usage)
		return 0
	case errors.Is(err, errFailed):
		return exitFailure
	}
	fmt.Fprintf(e.stderr, "spile %s: %v\n", name, err)
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailure
}

// oneLine is an error that may join several as one line.
func oneLine(err error) error {
	if err == nil || !strings.Contains(err.Error(), "\n") {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// help prints the usage of all, or of one command.
func help(ctx context.Context, args []string, e *environment) int {
	if len(args) == 0 {
		fmt.Fprint(e.stdout, usage())
		return 0
	}
	return run(ctx, []string{args[0], "--help"}, e.getenv, e.stdin, e.stdout, e.stderr)
}

func commandNames() (names []string) {
	for _, c := range commands() {
		if c.summary != "" {
			names = append(names, c.name)
		}
	}
	return names
}

func usage() string {
	var b strings.Builder
	b.WriteString("spile shows HTTP traffic as rows or as OpenTelemetry spans.\n\nUsage: spile COMMAND [FLAGS]\n\n")
	for _, c := range commands() {
		if c.summary != "" {
			fmt.Fprintf(&b, "  %-10s%s\n", c.name, c.summary)
		}
	}
	b.WriteString("\n`spile COMMAND --help` says more.\n")
	return b.String()
}

func runVersion(_ context.Context, args []string, e *environment) error {
	f := newFlags("Usage: spile version\n\nPrints the version of spile, of Go and the platform.\n")
	if err := f.parseNone(args); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "spile %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
