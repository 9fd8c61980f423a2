package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/internal/golden"
	"github.com/spile-dev/spile/webhook"
)

var testOptions = Options{
	Sidecar:   webhook.Config{Image: "sidecar:1", Version: "test"},
	Namespace: "shop",
}

// Each testdata/*.in.* is a file as people keep them; the golden file is what
// comes out, of which a second round changes nothing.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.*")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			in, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			got, results, err := Inject(in, testOptions)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Reformatted != strings.HasPrefix(filepath.Base(input), "reformatted") {
					t.Errorf("%s %s: reformatted %t", r.Kind, r.Name, r.Reformatted)
				}
			}
			golden.Compare(t, strings.Replace(input, ".in.", ".golden.", 1), string(got))
			if again, _, err := Inject(got, testOptions); err != nil || !bytes.Equal(got, again) {
				t.Errorf("second round, error %v (-once +twice):\n%s", err, cmp.Diff(string(got), string(again)))
			}
		})
	}
}

// Whatever the text is: injecting either fails or can be repeated without a
// change, and every line of what could be edited in place is still there.
func FuzzInject(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, input := range inputs {
		data, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		once, results, err := Inject(in, testOptions)
		if err != nil {
			return
		}
		if len(results) == 0 && !bytes.Equal(in, once) {
			t.Errorf("no pod, but changed to %q", once)
		}
		twice, _, err := Inject(once, testOptions)
		if err != nil {
			t.Fatalf("second round: %v\n%s", err, once)
		}
		if !bytes.Equal(once, twice) {
			t.Errorf("second round (-once +twice):\n%s", cmp.Diff(string(once), string(twice)))
		}
	})
}
