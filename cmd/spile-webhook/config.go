package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spile-dev/spile/webhook"
	"github.com/spile-dev/spile/webhook/server"
)

// config is everything that can be set. Each flag has an environment variable;
// the flag wins.
type config struct {
	server.Options
	// SidecarConfig is the file that describes the sidecar; see webhook.Config.
	SidecarConfig string     `json:"sidecarConfig"`
	LogLevel      slog.Level `json:"logLevel"`

	version, print bool
}

const envPrefix = "SPILE_WEBHOOK_"

func parse(args []string, lookup func(string) (string, bool), stderr io.Writer) (*config, error) {
	c := &config{}
	flags := flag.NewFlagSet("spile-webhook", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.register(flags)

	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		usage(flags, stderr)
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w; --help lists the flags", err)
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; --help lists the flags", flags.Arg(0))
	}
	return c, fromEnvironment(flags, lookup)
}

func (c *config) register(flags *flag.FlagSet) {
	flags.StringVar(&c.Listen, "listen", ":9443", "`address` that the API server calls, by TLS")
	flags.StringVar(&c.MetricsListen, "metrics-listen", ":8080", "`address` of /metrics")
	flags.StringVar(&c.HealthListen, "health-listen", ":8081", "`address` of /healthz and /readyz")
	flags.StringVar(&c.Namespace, "namespace", "", "`namespace` this process runs in")
	flags.StringVar(&c.Service, "service", "spile-webhook", "`name` of the Service by which the API server calls")
	flags.StringVar(&c.Secret, "secret", "spile-webhook-cert", "`name` of the Secret that holds the certificates")
	flags.StringVar(&c.WebhookConfiguration, "webhook-configuration", "spile-webhook", "`name` of the MutatingWebhookConfiguration")
	flags.StringVar(&c.CertDir, "cert-dir", "", "`directory` with tls.crt, tls.key and ca.crt; makes no certificates if set")
	c.CAValidity = server.Duration(3 * 365 * 24 * time.Hour)
	duration(flags, &c.CAValidity, "ca-validity", "`lifetime` of the certificate authority")
	c.CertValidity = server.Duration(90 * 24 * time.Hour)
	duration(flags, &c.CertValidity, "cert-validity", "`lifetime` of the serving certificate")
	c.DrainDelay = server.Duration(5 * time.Second)
	duration(flags, &c.DrainDelay, "drain-delay", "`time` during which calls are still answered after SIGTERM")
	c.AuditInterval = server.Duration(20 * time.Second)
	duration(flags, &c.AuditInterval, "audit-interval", "`time` between two audits of what became of pods; 0 audits none")
	flags.StringVar(&c.Lease, "lease", "spile-webhook-audit", "`name` of the Lease of the replica that audits")
	duration(flags, &c.RestartInterval, "restart-interval", "least `time` between two evictions of pods that lack the sidecar; 0 evicts none")
	flags.StringVar(&c.SidecarConfig, "sidecar-config", "/etc/spile/sidecar.yaml", "`file` that describes the sidecar")
	flags.TextVar(&c.LogLevel, "log-level", slog.LevelInfo, "`level`: debug, info, warn or error")
	flags.BoolVar(&c.print, "print-config", false, "print the configuration as JSON and exit")
	flags.BoolVar(&c.version, "version", false, "print the version and exit")
}

func duration(flags *flag.FlagSet, d *server.Duration, name, use string) {
	flags.DurationVar((*time.Duration)(d), name, time.Duration(*d), use)
}

func variable(flagName string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// fromEnvironment sets the flags that the command line did not.
func fromEnvironment(flags *flag.FlagSet, lookup func(string) (string, bool)) error {
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	flags.VisitAll(func(f *flag.Flag) {
		value, ok := lookup(variable(f.Name))
		if !ok || given[f.Name] {
			return
		}
		if err := f.Value.Set(value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not accepted: %w", variable(f.Name), value, err))
		}
	})
	return errors.Join(errs...)
}

// load reads the description of the sidecar and validates everything.
func (c *config) load(version string) error {
	data, err := os.ReadFile(c.SidecarConfig)
	if err != nil {
		return fmt.Errorf("reading sidecar configuration: %w", err)
	}
	if c.Sidecar, err = webhook.ParseConfig(data); err != nil {
		return fmt.Errorf("%s: %w", c.SidecarConfig, err)
	}
	c.Sidecar.Version = version
	return c.Validate()
}

// redacted is c without the headers of the exporter, which carry credentials.
func (c config) redacted() config {
	c.Sidecar.Env = slices.Clone(c.Sidecar.Env)
	for i, e := range c.Sidecar.Env {
		if strings.HasSuffix(e.Name, "_HEADERS") {
			c.Sidecar.Env[i].Value = "REDACTED"
		}
	}
	return c
}

func usage(flags *flag.FlagSet, w io.Writer) {
	fmt.Fprintf(w, "spile-webhook injects the Spile sidecar into pods that ask for it.\n\n"+
		"Every flag can be set as %s<FLAG> in the environment, too.\n\n", envPrefix)
	flags.SetOutput(w)
	flags.PrintDefaults()
}
