package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	passing = `{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"chatter\n"}
{"Action":"pass","Package":"a","Test":"TestOne"}
{"Action":"run","Package":"a","Test":"TestTable"}
{"Action":"run","Package":"a","Test":"TestTable/x/1"}
{"Action":"run","Package":"a","Test":"TestTable/y"}
{"Action":"pass","Package":"a","Test":"TestTable/x/1"}
{"Action":"output","Package":"a","Test":"TestTable/y","Output":"    a_test.go:3: needs root\n"}
{"Action":"skip","Package":"a","Test":"TestTable/y"}
{"Action":"pass","Package":"a","Test":"TestTable"}
{"Action":"pass","Package":"a","Elapsed":1.5}
`
	failing = `{"Action":"run","Package":"b","Test":"TestTable"}
{"Action":"run","Package":"b","Test":"TestTable/x"}
{"Action":"output","Package":"b","Test":"TestTable/x","Output":"    b_test.go:9: got 1, want 2\n"}
{"Action":"fail","Package":"b","Test":"TestTable/x"}
{"Action":"fail","Package":"b","Test":"TestTable"}
{"Action":"fail","Package":"b"}
`
	unbuilt = `{"ImportPath":"c [c.test]","Action":"build-output","Output":"c.go:1:1: syntax error\n"}
{"ImportPath":"c [c.test]","Action":"build-fail"}
{"Action":"start","Package":"c"}
{"Action":"output","Package":"c","Output":"FAIL\tc [build failed]\n"}
{"Action":"fail","Package":"c","FailedBuild":"c [c.test]"}
`
	ownFault = `{"Action":"run","Package":"d","Test":"TestTable"}
{"Action":"run","Package":"d","Test":"TestTable/x"}
{"Action":"pass","Package":"d","Test":"TestTable/x"}
{"Action":"fail","Package":"d","Test":"TestTable"}
{"Action":"fail","Package":"d"}
`
	cutOff = `{"Action":"start","Package":"e"}
{"Action":"run","Package":"e","Test":"TestDone"}
{"Action":"pass","Package":"e","Test":"TestDone"}
{"Action":"run","Package":"e","Test":"TestTable"}
{"Action":"run","Package":"e","Test":"TestTable/x"}
`
	untested = `{"Action":"start","Package":"f"}
{"Action":"output","Package":"f","Output":"?   \tf\t[no test files]\n"}
{"Action":"skip","Package":"f","Elapsed":0}
`
)

func TestTally(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want string // last line
		show []string
		code int
	}{
		"pass and skip":       {passing, "2 passed, 0 failed, 1 skipped", []string{"ok   a 1.5s", "skip a TestTable/y: a_test.go:3: needs root"}, 0},
		"fail":                {passing + failing, "2 passed, 1 failed, 1 skipped", []string{"got 1, want 2", "FAIL b TestTable/x"}, 1},
		"build failure":       {passing + unbuilt, "2 passed, 1 failed, 1 skipped", []string{"syntax error", "FAIL c"}, 1},
		"parent alone fails":  {ownFault, "1 passed, 1 failed, 0 skipped", []string{"FAIL d TestTable"}, 1},
		"stream is cut off":   {cutOff, "1 passed, 1 failed, 0 skipped", []string{"did not end", "FAIL e TestTable/x"}, 1},
		"package without any": {passing + untested, "2 passed, 0 failed, 1 skipped", nil, 0},
		"no tests":            {untested, "0 passed, 0 failed, 0 skipped", nil, 1},
		"nothing":             {"", "0 passed, 0 failed, 0 skipped", nil, 1},
		"other output":        {"[    0.1] kernel says\n" + passing, "2 passed, 0 failed, 1 skipped", []string{"kernel says"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			save := filepath.Join(t.TempDir(), "results", "x.json")
			var stdout, stderr bytes.Buffer
			if code := run([]string{"-save", save}, strings.NewReader(test.in), &stdout, &stderr); code != test.code {
				t.Errorf("exit status %d, want %d", code, test.code)
			}
			lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
			if got := lines[len(lines)-1]; got != test.want {
				t.Errorf("last line %q, want %q", got, test.want)
			}
			for _, want := range test.show {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("output does not contain %q:\n%s", want, &stdout)
				}
			}
			if strings.Contains(stdout.String(), "chatter") {
				t.Error("shows the output of a test that passed")
			}
			if saved, err := os.ReadFile(save); err != nil || string(saved) != test.in {
				t.Errorf("saved %q, %v", saved, err)
			}

			// Counting the saved stream gives the same.
			stdout.Reset()
			if code := run([]string{save, save}, nil, &stdout, &stderr); code != test.code {
				t.Errorf("saved: exit status %d, want %d", code, test.code)
			}
			if got := strings.Count(stdout.String(), "x.json           "+test.want+"\n"); got != 2 {
				t.Errorf("saved: %d lines for the file with %q, want 2:\n%s", got, test.want, &stdout)
			}
		})
	}
}

func TestTallyWantsTestsInEveryFile(t *testing.T) {
	dir := t.TempDir()
	some, none := filepath.Join(dir, "some.json"), filepath.Join(dir, "none.json")
	for name, content := range map[string]string{some: passing, none: untested} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{some, none}, nil, &stdout, &stderr); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	if want := "no test ran in none.json"; !strings.Contains(stderr.String(), want) {
		t.Errorf("standard error %q does not contain %q", &stderr, want)
	}
	if code := run([]string{"-no-skips", some}, nil, &stdout, &stderr); code != 1 {
		t.Errorf("a skipped test with -no-skips: exit status %d, want 1", code)
	}
	if code := run([]string{filepath.Join(dir, "missing.json")}, nil, &stdout, &stderr); code != 1 {
		t.Errorf("missing file: exit status %d, want 1", code)
	}
}
