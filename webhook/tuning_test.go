package webhook

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar"
)

func TestTuningValues(t *testing.T) {
	long := "/" + strings.Repeat("a", maxItemLength)
	many := strings.TrimSuffix(strings.Repeat("1,", maxItems+1), ",")
	tests := []struct {
		annotation, value string
		want              string // of the last variable; "" if not accepted
	}{
		{"sample-ratio", "0", "0"},
		{"sample-ratio", "1.0", "1"},
		{"sample-ratio", ".5", "0.5"},
		{"sample-ratio", "0.000001", "0.000001"},
		{"sample-ratio", "1.0001", ""},
		{"sample-ratio", "-0.1", ""},
		{"sample-ratio", "1e-3", ""},
		{"sample-ratio", "0x1p-2", ""},
		{"sample-ratio", "Inf", ""},
		{"sample-ratio", "", ""},
		{"log-level", "warn", "warn"},
		{"log-level", "WARN", ""},
		{"routes", "/", "/"},
		{"routes", "/users/{id}/x, /b", "/users/{id}/x,/b"},
		{"routes", "/users/{id", ""},
		{"routes", "/users/{}", ""},
		{"routes", "/users/a{id}", ""},
		{"routes", "/users/{i d}", ""},
		{"routes", "/a,,/b", ""},
		{"routes", "/a$(GOMEMLIMIT)", ""},
		{"routes", long, ""},
		{"routes", long[:maxItemLength], long[:maxItemLength]},
		{"capture-headers", "X-Request-ID", "x-request-id"},
		{"capture-headers", "a:b", ""},
		{"capture-headers", "$(X)", ""},
		{"exclude-ports", "1,65535", "1,65535"},
		{"exclude-ports", "080", "80"},
		{"exclude-ports", "0", ""},
		{"exclude-ports", "65536", ""},
		{"exclude-ports", "+1", ""},
		{"exclude-ports", many, ""},
		{"exclude-ports", many[2:], many[2:]},
		{"exclude-paths", "/healthz", "/healthz"},
		{"exclude-paths", "/static/*", "/static/*"},
		{"exclude-paths", "/*", "/*"},
		{"exclude-paths", "/users/{id}/*", "/users/{id}/*"},
		{"exclude-paths", "/*/a", ""},
		{"exclude-paths", "/a*b", ""},
		{"exclude-paths", "healthz", ""},
		{"exclude-paths", "/é", ""},
	}
	for _, tt := range tests {
		t.Run(tt.annotation+"="+tt.value[:min(len(tt.value), 20)], func(t *testing.T) {
			s, warnings := tune(map[string]string{AnnotationPrefix + tt.annotation: tt.value}, nil)
			got := ""
			if len(s) > 0 {
				got = s[len(s)-1].Value
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if err := sidecarAccepts(s); err != nil {
				t.Errorf("the sidecar does not accept what the annotation does: %v", err)
			}
			if (len(warnings) > 0) != (tt.want == "") {
				t.Errorf("warnings: %q", warnings)
			}
		})
	}
}

// sidecarAccepts has the sidecar read the variables as it does in a pod.
func sidecarAccepts(env []EnvVar) error {
	_, err := sidecar.ConfigFromEnv(func(name string) string {
		for _, e := range env {
			if e.Name == name {
				return e.Value
			}
		}
		return ""
	}, "test")
	return err
}

func TestWarningsAreBounded(t *testing.T) {
	annotations := map[string]string{}
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		annotations[AnnotationPrefix+strings.Repeat(string(c), 60)] = strings.Repeat("x", 1000)
		annotations[attributePrefix+strings.Repeat(string(c), 60)] = strings.Repeat("x", 1000)
	}
	for _, tn := range tunings {
		annotations[AnnotationPrefix+tn.name] = strings.Repeat("\x00", 1000)
	}
	_, warnings := tune(annotations, annotations)
	_, more := annotated(annotations)
	const passedOn = 4096 // bytes of warnings in one response, k8s.io/apiserver/pkg/warning
	if n := len(strings.Join(append(warnings, more...), "")); n > 2*passedOn {
		t.Errorf("%d bytes of warnings", n)
	}
}

func TestCronJobName(t *testing.T) {
	tests := map[string]string{
		"report-29921760":    "report",
		"a-b-c-29921760":     "a-b-c",
		"import-20261123":    "",
		"report":             "",
		"report-1":           "",
		"-29921760":          "",
		"report-299217600":   "",
		"report-x29921760":   "",
		"report-manual-9z8q": "",
	}
	for job, want := range tests {
		if got := cronJobOf(job); got != want {
			t.Errorf("cronJobOf(%q) = %q, want %q", job, got, want)
		}
	}
}

func TestImageVersion(t *testing.T) {
	tests := map[string][2]string{ // image: repository, version
		"cart":                             {"cart", ""},
		"cart:1":                           {"cart", "1"},
		"registry:5000/cart":               {"registry:5000/cart", ""},
		"registry:5000/shop/cart:1.2":      {"registry:5000/shop/cart", "1.2"},
		"cart@sha256:00":                   {"cart", "sha256:00"},
		"registry:5000/cart:1.2@sha256:00": {"registry:5000/cart", "1.2@sha256:00"},
		"":                                 {"", ""},
	}
	for image, want := range tests {
		if got := [2]string{repository(image), imageVersion(image)}; got != want {
			t.Errorf("%q: got %q, want %q", image, got, want)
		}
	}
}

func TestParseConfig(t *testing.T) {
	const valid = "image: spile-sidecar:1\n"
	tests := []struct {
		name, yaml string
		want       []string // in the error; none if accepted
	}{
		{"minimal", valid, nil},
		{"full", valid + "imagePullPolicy: Never\nresources: {limits: {memory: 64Mi}}\nenv: [{name: OTEL_LOG_LEVEL, value: warn}]\n", nil},
		{"empty", "", []string{`image: "" is not an image reference`}},
		{"unknown field", valid + "imge: x\n", []string{`unknown field "imge"`}},
		{
			"many faults",
			"image: 'a b'\nimagePullPolicy: Sometimes\nresources: {requests: {memory: 2Gi}, limits: {memory: 1Gi, gpu: 1}}\n" +
				"env: [{name: GOMEMLIMIT, value: x}, {name: a-b, value: x}, {name: A, value: x}, {name: A, value: y}]\nresourceAttributes: {'a b': c, d: ''}\n",
			[]string{
				"image:", "imagePullPolicy:", "memory request 2Gi exceeds the limit 1Gi", `"gpu" is none of`,
				"GOMEMLIMIT is worked out", `"a-b" is not a variable name`, "A is set twice", `"a b" is not an attribute name`, "the value of d is empty",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(tt.yaml))
			if (err != nil) != (tt.want != nil) {
				t.Fatalf("error %v", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error lacks %q:\n%v", w, err)
				}
			}
		})
	}
}

func TestServiceNameFromLabels(t *testing.T) {
	ns, raw := readCase(t, "testdata/inject/bare_pod.in.yaml")
	raw = []byte(strings.Replace(string(raw), `"name":"cart"}`, `"name":"cart","labels":{"app.kubernetes.io/name":"shop-cart"}}`, 1))
	c := testConfig()
	for _, fromLabels := range []bool{false, true} {
		c.ServiceNameFromLabels = fromLabels
		d, _, err := Inject(raw, ns, c)
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{false: "cart", true: "shop-cart"}[fromLabels]
		if diff := cmp.Diff(want, d.Sidecar.Container.Env[5].Value); diff != "" {
			t.Errorf("from labels %v: %s", fromLabels, diff)
		}
	}
}
