package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spile-dev/spile/cmd/spile/demo"
	"github.com/spile-dev/spile/cmd/spile/tty"
)

const demoUsage = `Usage: spile demo [FLAGS]

Runs a small shop: an ingress that routes by path to a cart and a catalog, a
pricing service that the cart asks, and a shopper. Each runs in a network
namespace of its own that stands for a pod, the services each with a real
spile-sidecar beside. Shows the exchanges as they happen, and whole traces as
trees. Ends on Ctrl-C. Leaves nothing behind and touches nothing of the machine's
network. Needs root.

  --duration TIME  end after a time such as 10s
  --sidecar FILE   the sidecar's binary (default: spile-sidecar beside this
                   binary, else on PATH)

If OTEL_EXPORTER_OTLP_ENDPOINT is set, the spans are also sent there.
`

func runDemo(ctx context.Context, args []string, e *environment) error {
	f := newFlags(demoUsage)
	c := demo.Config{Out: e.stdout, Palette: tty.NewPalette(e.stdout, e.getenv), Version: version}
	f.duration(&c.Duration, "duration")
	f.StringVar(&c.Sidecar, "sidecar", "", "")
	if err := f.parseNone(args); err != nil {
		return err
	}
	var err error
	if c.Sidecar, err = findSidecar(c.Sidecar); err != nil {
		return err
	}
	if c.Forward, err = demo.NewForwarder(e.getenv, version); err != nil {
		return oneLine(err)
	}
	return demo.Run(ctx, c)
}

// findSidecar returns the path of the sidecar's binary.
func findSidecar(named string) (string, error) {
	const name = "spile-sidecar"
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil && !errors.Is(err, exec.ErrDot) {
			return "", fmt.Errorf("--sidecar: %w", err)
		}
		return filepath.Abs(path)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if path, err := exec.LookPath(beside); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("no %s beside this binary nor on PATH (make build makes it; or name it with --sidecar)", name)
	}
	return filepath.Abs(path)
}

func runPod(ctx context.Context, args []string, e *environment) error {
	return demo.Pod(ctx, args, e.stdout, e.stderr)
}
