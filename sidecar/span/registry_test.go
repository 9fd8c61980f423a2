package span

import (
	"os"
	"strings"
	"testing"
)

// unobservable are attributes of the registry that Spile never sets;
// docs/attributes.md says why.
var unobservable = map[string]bool{
	"network.protocol.name": true, "http.request.resend_count": true, "url.template": true,
	"http.request.size": true, "http.response.size": true, "user_agent.synthetic.type": true,
}

// alsoOfHTTP are attributes that the conventions give HTTP spans only;
// docs/attributes.md says so.
var alsoOfHTTP = map[string]bool{"network.local.address": true, "network.local.port": true}

// TestRegistry holds the tables of docs/attributes.md, which hold the spans of the
// conformance cases, against testdata/semconv.tsv: neither may have an attribute
// or a requirement level that the other has not.
func TestRegistry(t *testing.T) {
	page, err := os.ReadFile("../../docs/attributes.md")
	if err != nil {
		t.Fatal(err)
	}
	registry := readRegistry(t)
	for heading, attributes := range registry {
		for name, levels := range attributes {
			r, ok := rules[heading][name]
			switch {
			case !ok && heading == "HTTP" && unobservable[name]:
				if !strings.Contains(string(page), "`"+name+"`") {
					t.Errorf("docs/attributes.md does not say why %s spans lack %s", heading, name)
				}
			case !ok:
				t.Errorf("docs/attributes.md lacks %s of %s", name, heading)
			default:
				checkLevel(t, heading+" server "+name, levels[0], r.server)
				checkLevel(t, heading+" client "+name, levels[1], r.client)
			}
		}
	}
	for heading, attributes := range rules {
		for name := range attributes {
			if _, ok := registry[heading][name]; !ok && !strings.HasPrefix(name, "spile.") && (heading != "gRPC" || !alsoOfHTTP[name]) {
				t.Errorf("docs/attributes.md has %s under %s, the registry does not", name, heading)
			}
		}
	}
}

func checkLevel(t *testing.T, what, registry, documented string) {
	t.Helper()
	if registry == "-" {
		registry = none
	}
	if registry != documented && registry != "?" {
		t.Errorf("%s is %s in docs/attributes.md, %s in the registry", what, documented, registry)
	}
}

// readRegistry returns the levels for servers and clients by conventions and
// attribute.
func readRegistry(t *testing.T) map[string]map[string][2]string {
	t.Helper()
	file, err := os.ReadFile("testdata/semconv.tsv")
	if err != nil {
		t.Fatal(err)
	}
	registry := make(map[string]map[string][2]string)
	for line := range strings.Lines(string(file)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(cells) != 4 {
			t.Fatalf("testdata/semconv.tsv: %q", line)
		}
		if registry[cells[0]] == nil {
			registry[cells[0]] = make(map[string][2]string)
		}
		registry[cells[0]][cells[1]] = [2]string{cells[2], cells[3]}
	}
	return registry
}
