// Command spile-sidecar watches the network namespace it runs in and exports a
// span for every HTTP exchange. It is configured by environment variables; see
// sidecar.ConfigFromEnv.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spile-dev/spile/sidecar"
)

// memoryLimit is a soft limit for the Go runtime, in bytes, where GOMEMLIMIT sets
// none: with the ring and the program itself it comes to less than 48 MiB.
const memoryLimit = 36 << 20

// maxProcs makes one thread at a time run Go code: two would wake each other for
// work that one has done by then (docs/cost.md).
const maxProcs = 1

// version is set when the program is linked.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	started := time.Now()
	flags := flag.NewFlagSet("spile-sidecar", flag.ContinueOnError)
	flags.SetOutput(stderr)
	printConfig := flags.Bool("print-config", false, "print the configuration and exit")
	printVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "spile-sidecar: unexpected argument %q; it takes flags only\n", flags.Arg(0))
		return 2
	}
	if *printVersion {
		fmt.Fprintln(stdout, version)
		return 0
	}
	config, err := sidecar.ConfigFromEnv(getenv, version)
	if *printConfig {
		if err == nil {
			err = config.Print(stdout)
		}
		if err != nil {
			fmt.Fprintf(stderr, "spile-sidecar: %v\n", err)
			return 1
		}
		return 0
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(maxProcs, runtime.GOMAXPROCS(0)))
	}
	log := config.NewLogger(stderr)
	if err != nil {
		sidecar.Idle(ctx, log, err)
		return 0
	}
	if err := sidecar.Run(ctx, config, version, started, log); err != nil {
		sidecar.Idle(ctx, log, err)
	}
	return 0
}
