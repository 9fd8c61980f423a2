//go:build conformance && linux

// Package conformance has real servers and clients talk to each other in two
// network namespaces, and compares what Spile reports with the servers' access
// logs and with tshark. It needs root and, of Debian: nginx apache2 lighttpd
// gunicorn nodejs npm openjdk-17-jdk-headless curl wget apache2-utils wrk
// nghttp2-client nghttp2-server python3 python3-grpcio tcpdump tshark; and of npm
// what testdata/grpc-js names. What is missing is skipped; with
// REQUIRE_CONFORMANCE=1 it is a failure.
package conformance

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// need skips the test, or fails it, if programs are missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			skip(t, p+" is missing")
		}
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("REQUIRE_CONFORMANCE") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TestConformance runs every client against every server.
func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "network namespaces and packet capture need root")
	}
	need(t, "tcpdump")
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			need(t, s.programs...)
			l := newLab(t)
			live := l.capture(t)
			stop := l.serve(t, s)
			for _, c := range clients {
				if c.static && s.static || c.dynamic && !s.static || !c.static && !c.dynamic {
					l.run(t, c)
				}
			}
			logged := s.read(t, stop())
			exchanges, counters := live()
			t.Logf("%d exchanges; %s", len(exchanges), counters)

			compareLog(t, s, logged, exchanges)
			fromFile := read(t, l.file, nil)
			if diff := cmp.Diff(tally(lines(exchanges, exchangeLine)), tally(lines(fromFile, exchangeLine))); diff != "" {
				t.Errorf("live capture and file (-live +file):\n%s", diff)
			}
			compareTshark(t, l.file, fromFile)
			compareDisturbed(t, l.file, fromFile)
		})
	}
}

// compareLog tests that the complete exchanges are those of the access log. Of a
// client that goes away in mid-exchange a server may log what it likes.
func compareLog(t *testing.T, s server, logged []entry, exchanges []exchanged) {
	t.Helper()
	want, got := tally(lines(logged, s.line)), make(map[string]int)
	cut := 0
	for _, x := range exchanges {
		if x.outcome != "complete" {
			cut++
			t.Logf("not complete: %s", exchangeLine(x))
			continue
		}
		got[s.line(x.entry)]++
	}
	only := 0
	for _, k := range slices.Sorted(maps.Keys(union(want, got))) {
		if n := want[k] - got[k]; n != 0 {
			only += max(n, -n)
			if only < 20 {
				t.Logf("%d times in the log, %d times seen: %s", want[k], got[k], k)
			}
		}
	}
	if only > cut {
		t.Errorf("%d entries differ, but only %d exchanges are not complete", only, cut)
	}
	t.Logf("%d entries in the access log, %d differ, %d exchanges not complete", len(logged), only, cut)
}

// compareTshark tests that tshark sees the same requests and responses.
func compareTshark(t *testing.T, file string, exchanges []exchanged) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		skip(t, "tshark is missing")
	}
	fields := func(filter string, names ...string) map[string]int {
		args := []string{"-n", "-r", file, "-d", fmt.Sprintf("tcp.port==%d,http", port), "-Y", filter, "-T", "fields", "-E", "separator=/t", "-E", "aggregator=|"}
		for _, n := range names {
			args = append(args, "-e", n)
		}
		out, err := exec.Command("tshark", args...).Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		seen := make(map[string]int)
		for l := range strings.Lines(string(out)) {
			var columns [][]string
			for _, column := range strings.Split(strings.TrimSuffix(l, "\n"), "\t") {
				columns = append(columns, strings.Split(column, "|"))
			}
			for i := range columns[0] {
				key := ""
				for _, column := range columns {
					key += " " + column[min(i, len(column)-1)]
				}
				seen[key]++
			}
		}
		return seen
	}
	requests, responses, cut := make(map[string]int), make(map[string]int), make(map[string]int)
	for _, x := range exchanges {
		requests[" "+x.method+" "+x.target]++
		switch code := fmt.Sprint(" ", x.status); {
		case x.outcome == "complete":
			responses[code]++
		case x.status != 0: // tshark may not show a response that was cut off
			cut[code]++
		}
	}
	if diff := cmp.Diff(fields("http.request", "http.request.method", "http.request.uri"), requests); diff != "" {
		t.Errorf("requests (-tshark +spile):\n%s", diff)
	}
	seen := fields("http.response", "http.response.code")
	maps.DeleteFunc(seen, func(code string, _ int) bool { return code < " 2" })
	for code, n := range cut {
		seen[code] = max(seen[code]-n, min(seen[code], responses[code]))
	}
	if diff := cmp.Diff(seen, responses); diff != "" {
		t.Errorf("responses (-tshark +spile):\n%s", diff)
	}
}

// compareDisturbed reads the file with its packets in disorder, twice, or not at
// all.
func compareDisturbed(t *testing.T, file string, exchanges []exchanged) {
	t.Helper()
	whole := tally(lines(exchanges, exchangeLine))
	for seed := range uint64(5) {
		d := disturbance{seed: seed, duplicate: 20, reorder: 10}
		if diff := cmp.Diff(whole, tally(lines(read(t, file, &d), exchangeLine))); diff != "" {
			t.Errorf("disordered and duplicated, seed %d (-file +disturbed):\n%s", seed, diff)
		}
	}
	for seed := range uint64(10) {
		d := disturbance{seed: seed, lose: 50, duplicate: 50, reorder: 5}
		seen, complete := make(map[string]int), 0
		for _, x := range read(t, file, &d) {
			l := exchangeLine(x)
			if seen[l]++; x.outcome == "complete" && seen[l] > whole[l] {
				t.Errorf("with loss, seed %d: %d times rather than %d: %s", seed, seen[l], whole[l], l)
			} else if x.outcome == "complete" {
				complete++
			}
		}
		if seed == 0 {
			t.Logf("%d of %d exchanges at a loss of 2%%", complete, len(exchanges))
		}
	}
}

func lines[T any](all []T, line func(T) string) []string {
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = line(x)
	}
	return out
}

func tally(lines []string) map[string]int {
	n := make(map[string]int)
	for _, l := range lines {
		n[l]++
	}
	return n
}

func union(a, b map[string]int) map[string]int {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// writeFile writes a file below the lab's folder and returns its path.
func (l *lab) writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
