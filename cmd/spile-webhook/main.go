// Command spile-webhook injects the Spile sidecar into pods that ask for it, as
// a mutating admission webhook of Kubernetes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/spile-dev/spile/webhook/server"
)

// version is set by the linker.
var version = "0.1.0-dev"

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	c, err := parse(args, lookup, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		return complain(stderr, exitUsage, err)
	}
	if c.version {
		fmt.Fprintln(stdout, "spile-webhook", version)
		return exitOK
	}
	if err := c.load(version); err != nil {
		return complain(stderr, exitUsage, err)
	}
	if c.print {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(c.redacted()); err != nil {
			return complain(stderr, exitFailed, err)
		}
		return exitOK
	}

	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	cluster, err := ctrlconfig.GetConfig()
	if err != nil {
		return complain(stderr, exitFailed, fmt.Errorf("finding the cluster: %w", err))
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.Info("starting", "version", version, "sidecar", c.Sidecar.Image)
	if err := server.Run(ctx, cluster, c.Options, log); err != nil {
		log.Error("ended", "error", err)
		return exitFailed
	}
	log.Info("ended")
	return exitOK
}

// complain writes an error, or each of several that are joined, on a line of its own.
func complain(stderr io.Writer, status int, err error) int {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			complain(stderr, status, e)
		}
		return status
	}
	fmt.Fprintln(stderr, "spile-webhook:", strings.ReplaceAll(err.Error(), "\n", "; "))
	return status
}
