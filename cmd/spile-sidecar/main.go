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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spile-dev/spile/sidecar"
)

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
		debug.SetMemoryLimit(memoryLimit(os.ReadFile))
	}
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(maxProcs, runtime.GOMAXPROCS(0)))
	}
	log := config.NewLogger(stderr)
	// As the specification has it: what is wrong counts as unset.
	for _, fault := range sidecar.Faults(err) {
		log.Warn("a variable is ignored", "error", fault)
	}
	sidecar.Run(ctx, config, version, started, log)
	return 0
}

// memoryLimit returns what the Go runtime may use: of the container's memory limit,
// if there is one (cgroup v2), the part that the ring and the program leave.
func memoryLimit(read func(string) ([]byte, error)) int64 {
	const ours, of = 9, 16 // as the webhook has it
	b, err := read("/sys/fs/cgroup/memory.max")
	if err != nil {
		return sidecar.DefaultMemory
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil { // "max"
		return sidecar.DefaultMemory
	}
	return min(limit/of*ours, sidecar.DefaultMemory)
}
