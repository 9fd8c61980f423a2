package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spile-dev/spile/webhook"
	"github.com/spile-dev/spile/webhook/manifest"
)

const injectUsage = `Usage: spile inject -f FILE (--otlp-endpoint URL | --config FILE) [FLAGS]

Prints a Kubernetes manifest with the sidecar added to its pods and to the pod
templates of its Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and
CronJobs, also within Lists, as the webhook would add it to their pods.
Everything else is printed as it is: comments, order, other kinds. Injecting
twice is injecting once, and the webhook leaves such pods alone.

A file that is given is taken to be asked for, as if its namespaces were
annotated spile.dev/inject: enabled, unless a pod template or a Namespace in the
file is annotated otherwise. What was not injected, and why, goes to standard
error; the exit status is 0 nevertheless.

  -f FILE               the manifest, YAML or JSON; "-" is standard input
  --otlp-endpoint URL   where the sidecar sends its spans, such as
                        http://tempo.monitoring:4318
  --image IMAGE         the sidecar's image (default ghcr.io/spile-dev/spile-sidecar
                        of this version)
  --config FILE         the sidecar in full, instead of the two above, as the chart
                        keeps it in the ConfigMap spile-webhook, key sidecar.yaml
  -n, --namespace NAME  of objects that name none (default "default")
`

// maxManifest bounds the memory for a manifest, in bytes.
const maxManifest = 64 << 20

type injectFlags struct {
	file, config, endpoint, image, namespace string
}

func runInject(_ context.Context, args []string, e *environment) error {
	f := newFlags(injectUsage)
	var i injectFlags
	f.StringVar(&i.file, "f", "", "")
	f.StringVar(&i.config, "config", "", "")
	f.StringVar(&i.endpoint, "otlp-endpoint", "", "")
	f.StringVar(&i.image, "image", "", "")
	f.StringVar(&i.namespace, "namespace", "default", "")
	f.StringVar(&i.namespace, "n", "default", "")
	if err := f.parseNone(args); err != nil {
		return err
	}
	sidecar, err := i.sidecar()
	if err != nil {
		return err
	}
	in, err := readManifest(i.file, e.stdin)
	if err != nil {
		return err
	}
	out, results, err := manifest.Inject(in, manifest.Options{Sidecar: sidecar, Namespace: i.namespace})
	if err != nil {
		return fmt.Errorf("%s: %w", i.file, err)
	}
	if _, err := e.stdout.Write(out); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	for _, r := range results {
		report(e.stderr, r)
	}
	if len(results) == 0 {
		fmt.Fprintf(e.stderr, "%s: no pod and no workload\n", i.file)
	}
	return nil
}

func (i injectFlags) sidecar() (webhook.Config, error) {
	var c webhook.Config
	switch {
	case i.file == "":
		return c, usageErrorf(`no manifest given (want -f FILE, or "-f -" for standard input)`)
	case i.config != "" && (i.endpoint != "" || i.image != ""):
		return c, usageErrorf("--config is given with --otlp-endpoint or --image (want one or the other)")
	case i.config != "":
		data, err := os.ReadFile(i.config)
		if err != nil {
			return c, fmt.Errorf("reading --config: %w", err)
		}
		if c, err = webhook.ParseConfig(data); err != nil {
			return c, fmt.Errorf("%s: %w", i.config, oneLine(err))
		}
	case i.endpoint == "":
		return c, usageErrorf("no destination of spans given (want --otlp-endpoint URL or --config FILE)")
	default:
		if u, err := url.Parse(i.endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return c, usageErrorf("invalid --otlp-endpoint %q (want a URL such as http://tempo.monitoring:4318)", i.endpoint)
		}
		if i.image == "" {
			i.image = "ghcr.io/spile-dev/spile-sidecar:" + strings.TrimPrefix(version, "v")
		}
		c = webhook.DefaultConfig(i.image, i.endpoint)
		if err := c.Validate(); err != nil {
			return c, usageErrorf("%v", oneLine(err))
		}
	}
	c.Version = version
	return c, nil
}

func readManifest(path string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading manifest: %w", err)
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("reading manifest: %s has more than %d MiB", path, maxManifest>>20)
	}
	return data, nil
}

// report tells what was not done, and what was done with reservations.
func report(w io.Writer, r manifest.Result) {
	object := strings.ToLower(r.Kind) + "/" + r.Name
	if r.Name == "" {
		object = strings.ToLower(r.Kind)
	}
	object += " in namespace " + r.Namespace
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "%s: %s\n", object, warning)
	}
	if r.Reason != webhook.Injected {
		reason := string(r.Reason)
		if r.Message != "" {
			reason += ": " + r.Message
		}
		fmt.Fprintf(w, "%s: not injected: %s\n", object, reason)
	}
	if r.Reformatted {
		fmt.Fprintf(w, "%s: its document is printed without comments: it could not be edited in place\n", object)
	}
}
