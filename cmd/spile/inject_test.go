package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// The golden pods of the webhook come out of the command the same, and the
// second round prints what it was given. Only consent differs: a file that
// nobody annotated is taken to be asked for.
func TestInjectPrintsTheWebhooksPods(t *testing.T) {
	const cases = "../../webhook/testdata"
	inputs, err := filepath.Glob(cases + "/inject/*.in.yaml")
	if err != nil || len(inputs) < 100 {
		t.Fatalf("%d golden pods, want at least 100: %v", len(inputs), err)
	}
	was := version
	version = "0.1.0"
	t.Cleanup(func() { version = was })
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			in := read(t, input)
			namespace := decode(t, documents(t, in)[0]).(map[string]any)["metadata"].(map[string]any)["name"].(string)
			args := []string{"inject", "--config", cases + "/sidecar.yaml", "--namespace", namespace, "-f"}
			status, once, stderr := spile(t, append(args, input)...)
			if status != 0 || strings.Contains(stderr, "without comments") {
				t.Fatalf("exit status %d: %s", status, stderr)
			}
			file := filepath.Join(t.TempDir(), "once.yaml")
			if err := os.WriteFile(file, []byte(once), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, twice, _ := spile(t, append(args, file)...); once != twice {
				t.Errorf("second round (-once +twice):\n%s", cmp.Diff(once, twice))
			}
			golden := read(t, strings.Replace(input, ".in.", ".golden.", 1))
			if bytes.HasPrefix(golden, []byte("# not_enabled")) {
				return
			}
			if diff := cmp.Diff(decode(t, golden), decode(t, last(documents(t, []byte(once))))); diff != "" {
				t.Errorf("pod (-webhook +command):\n%s", diff)
			}
			reason := strings.TrimPrefix(strings.SplitN(string(golden), "\n", 2)[0], "# ")
			if told := strings.Contains(stderr, "not injected: "+reason); told == (reason == "injected") {
				t.Errorf("reason %s, standard error:\n%s", reason, stderr)
			}
		})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func last[T any](all []T) T { return all[len(all)-1] }

func documents(t *testing.T, data []byte) [][]byte {
	t.Helper()
	docs := bytes.Split(data, []byte("\n---\n"))
	if len(docs) < 2 {
		t.Fatalf("want a Namespace and a Pod in %s", data)
	}
	return docs
}

// decode keeps numbers as they are written.
func decode(t *testing.T, text []byte) (v any) {
	t.Helper()
	data, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
