//go:build !linux

package main

import (
	"context"
	"fmt"
	"runtime"
)

func runTap(context.Context, []string, *environment) error { return needLinux() }

func runDemo(context.Context, []string, *environment) error { return needLinux() }

func runPod(context.Context, []string, *environment) error { return needLinux() }

func needLinux() error { return fmt.Errorf("needs Linux, and this is %s", runtime.GOOS) }
