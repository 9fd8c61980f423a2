package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/spile-dev/spile/cmd/spile/demo"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// runMain in the environment makes the test binary be spile.
const runMain = "SPILE_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	// The demo starts its own binary again.
	if os.Getenv(runMain) != "" || len(os.Args) > 1 && os.Args[1] == demo.PodCommand {
		main()
	}
	testscript.Main(m, map[string]func(){"spile": main})
}

// captures are recorded, with the access log of the server; see record.sh there.
var captures = filepath.Join("..", "..", "sidecar", "capture", "testdata")

func TestScripts(t *testing.T) {
	dir, err := filepath.Abs(captures)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("CAPTURES", dir)
			e.Setenv("TZ", "UTC")
			return nil
		},
	})
}

// spile runs a command line and returns what it did.
func spile(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	getenv := func(string) string { return "" }
	status = run(t.Context(), args, getenv, strings.NewReader(""), &out, &errs)
	return status, out.String(), errs.String()
}

// TestCommandLine checks that what is wrong is named in one line, with what is
// accepted.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"frobnicate", 2, `spile: unknown command "frobnicate" (want tap, read, inject, check, demo, version or help)`},
		{"version now", 2, `spile version: unexpected argument "now" (want flags only)`},
		{"version --short", 2, "spile version: unknown flag --short (want none)"},
		{"read", 2, `spile read: no file given (want pcap or pcapng files, or "-" for standard input)`},
		{"read x --follow", 2, "spile read: unknown flag --follow (want --headers, --method, -o, --path, --port, --show-secrets, --status)"},
		{"read x -o xml", 2, `spile read: invalid value "xml" for flag -o: want table, json, otlp`},
		{"read x -o", 2, "spile read: flag needs an argument: -o"},
		{"read x --port http", 2, `spile read: invalid value "http" for flag -port: want a port from 1 to 65535`},
		{"read x --status 6", 2, `spile read: invalid value "6" for flag -status: want a status such as 404, 5xx, 400-499 or none`},
		{"read x --show-secrets", 2, "spile read: --show-secrets is given without --headers"},
		{"tap --headers -o otlp", 2, "spile tap: --headers is for -o table and json (SPILE_CAPTURE_HEADERS names the fields that spans carry)"},
		{"read x --headers=maybe", 2, `spile read: invalid boolean value "maybe" for -headers: parse error`},
		{"read /none.pcap", 1, "spile read: reading /none.pcap: no such file or directory"},
		{"read -- --none", 1, "spile read: reading --none: no such file or directory"},
		{"tap --duration soon", 2, `spile tap: invalid value "soon" for flag -duration: want a duration such as 10s or 1m30s`},
		{"tap --pid 0", 2, `spile tap: invalid value "0" for flag -pid: want the id of a process`},
		{"tap --pid 1 --netns x", 2, "spile tap: both --pid and --netns are given (want one)"},
		{"tap eth0", 2, `spile tap: unexpected argument "eth0" (want flags only)`},
		{"tap --netns spile-none", 1, `spile tap: no network namespace "spile-none": /run/netns/spile-none does not exist`},
		{"tap --pid 1073741824", 1, "spile tap: no process with id 1073741824"},
		{"demo --duration -1s", 2, `spile demo: invalid value "-1s" for flag -duration: want a duration such as 10s or 1m30s`},
		{"demo --sidecar /none", 1, `spile demo: --sidecar: exec: "/none": stat /none: no such file or directory`},
	} {
		t.Run(c.args, func(t *testing.T) {
			status, stdout, stderr := spile(t, strings.Fields(c.args)...)
			if status != c.status || stdout != "" {
				t.Errorf("exit status %d and output %q, want %d and none", status, stdout, c.status)
			}
			if diff := cmp.Diff(c.want+"\n", stderr); diff != "" {
				t.Errorf("standard error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEnvironmentFaults(t *testing.T) {
	var out, errs strings.Builder
	getenv := func(name string) string {
		return map[string]string{"OTEL_TRACES_SAMPLER": "often", "OTEL_RESOURCE_ATTRIBUTES": "x"}[name]
	}
	status := run(t.Context(), []string{"read", "x"}, getenv, strings.NewReader(""), &out, &errs)
	if line := errs.String(); status != 1 || strings.Count(line, "\n") != 1 ||
		!strings.Contains(line, "OTEL_TRACES_SAMPLER") || !strings.Contains(line, "OTEL_RESOURCE_ATTRIBUTES") {
		t.Errorf("exit status %d and %q, want 1 and a line that names both variables", status, line)
	}
}

func TestHelp(t *testing.T) {
	for _, c := range commands() {
		if c.summary == "" {
			continue
		}
		for _, args := range [][]string{{c.name, "--help"}, {c.name, "-h"}, {"help", c.name}} {
			status, stdout, stderr := spile(t, args...)
			if status != 0 || stderr != "" || !strings.HasPrefix(stdout, "Usage: spile "+c.name) {
				t.Errorf("%s: exit status %d, output %q, standard error %q", args, status, stdout, stderr)
			}
		}
	}
	if status, stdout, _ := spile(t, "help"); status != 0 || !strings.Contains(stdout, "demo") || strings.Contains(stdout, demo.PodCommand) {
		t.Errorf("exit status %d, output %s", status, stdout)
	}
	if status, _, stderr := spile(t); status != 2 || !strings.Contains(stderr, "Usage") {
		t.Errorf("without a command: exit status %d, standard error %s", status, stderr)
	}
}

// TestReadEqualsAccessLog checks the rows of recorded traffic against what the
// server logged of it.
func TestReadEqualsAccessLog(t *testing.T) {
	const name = "tshark-lo"
	status, stdout, stderr := spile(t, "read", "-o", "json", filepath.Join(captures, name+".pcapng"))
	if status != 0 {
		t.Fatal(stderr)
	}
	var got []string
	for line := range strings.Lines(stdout) {
		var r struct {
			Role, Client, Server, Method, Target, Protocol string
			Status                                         int
			Size                                           int `json:"response_body_size"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Role != "server" {
			t.Errorf("role is %s", r.Role)
		}
		plain := strings.NewReplacer("[", "", "]", "") // nginx has no brackets around IPv6 addresses
		got = append(got, fmt.Sprintf("%s %s %q %d %d", plain.Replace(r.Client), plain.Replace(r.Server),
			r.Method+" "+r.Target+" "+r.Protocol, r.Status, r.Size))
	}
	log, err := os.ReadFile(filepath.Join(captures, name+".access.log"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(log)) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), " ") // the time
		want = append(want, line)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-access log +spile):\n%s", diff)
	}
}

// TestReadInterrupted checks that a signal ends reading with a clear error.
func TestReadInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs strings.Builder
	file := filepath.Join(captures, "tshark-lo.pcapng")
	status := run(ctx, []string{"read", file}, os.Getenv, strings.NewReader(""), &out, &errs)
	if status != 1 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit status %d, standard error %q", status, errs.String())
	}
}

// full is a Writer that fails.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("disk full") }

func TestReadCannotWrite(t *testing.T) {
	var errs strings.Builder
	file := filepath.Join(captures, "tshark-lo.pcapng")
	status := run(t.Context(), []string{"read", file, file}, os.Getenv, strings.NewReader(""), full{}, &errs)
	if want := "spile read: writing a row: disk full\n"; status != 1 || errs.String() != want {
		t.Errorf("exit status %d, standard error %q, want 1 and %q", status, errs.String(), want)
	}
}
