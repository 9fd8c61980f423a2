package webhook

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// filesVolume holds what Files names, filesPath is where the sidecar finds it.
	filesVolume = "spile-otlp"
	filesPath   = "/etc/spile/otlp"

	// exporterPrefix begins the names of the variables that say where spans go, and
	// by which credentials.
	exporterPrefix = "OTEL_EXPORTER_OTLP_"
	envHeadersFile = "SPILE_OTLP_HEADERS_FILE"
)

// Destination is where the spans of a namespace go.
type Destination struct {
	// Env are OTEL_EXPORTER_OTLP_* variables. They stand in place of all of the
	// Config's: no credentials of one backend are sent to another.
	Env []EnvVar `json:"env"`
	// Files stand in place of the Config's.
	Files Files `json:"files,omitzero"`
}

// Files are what the sidecar reads by name, and reads again when it changes. They
// come from Secrets and ConfigMaps in the namespace of the pod. A pod starts
// without those that do not exist; its sidecar then waits for them.
type Files struct {
	Headers           File `json:"headers,omitzero"`           // SPILE_OTLP_HEADERS_FILE
	Certificate       File `json:"certificate,omitzero"`       // OTEL_EXPORTER_OTLP_CERTIFICATE
	ClientCertificate File `json:"clientCertificate,omitzero"` // OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE
	ClientKey         File `json:"clientKey,omitzero"`         // OTEL_EXPORTER_OTLP_CLIENT_KEY
}

// File is a key of a Secret or of a ConfigMap.
type File struct {
	Secret    string `json:"secret,omitempty"`
	ConfigMap string `json:"configMap,omitempty"`
	Key       string `json:"key"`
}

// mountedFile is a File, the variable that names it and its name.
type mountedFile struct {
	File
	env, name string
}

func (f Files) mounted() (out []mountedFile) {
	for _, m := range []mountedFile{
		{f.Headers, envHeadersFile, "headers"},
		{f.Certificate, exporterPrefix + "CERTIFICATE", "ca.crt"},
		{f.ClientCertificate, exporterPrefix + "CLIENT_CERTIFICATE", "tls.crt"},
		{f.ClientKey, exporterPrefix + "CLIENT_KEY", "tls.key"},
	} {
		if m.File != (File{}) {
			out = append(out, m)
		}
	}
	return out
}

// in returns the Config for pods of a namespace.
func (c Config) in(namespace string) Config {
	d, ok := c.Namespaces[namespace]
	if !ok {
		return c
	}
	c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(e EnvVar) bool { return isDestination(e.Name) })
	c.Env = append(c.Env, d.Env...)
	c.Files = d.Files
	return c
}

func isDestination(variable string) bool {
	return strings.HasPrefix(variable, exporterPrefix) || variable == envHeadersFile
}

// mountFiles adds the volume with the files, and the variables that name them.
func mountFiles(s *Sidecar, f Files) {
	files := f.mounted()
	if len(files) == 0 {
		return
	}
	yes := true
	projected := &corev1.ProjectedVolumeSource{}
	for _, m := range files {
		items := []corev1.KeyToPath{{Key: m.Key, Path: m.name}}
		var p corev1.VolumeProjection
		if m.ConfigMap != "" {
			p.ConfigMap = &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: m.ConfigMap}, Items: items, Optional: &yes,
			}
		} else {
			p.Secret = &corev1.SecretProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: m.Secret}, Items: items, Optional: &yes,
			}
		}
		projected.Sources = append(projected.Sources, p)
		s.Container.Env = append(s.Container.Env, corev1.EnvVar{Name: m.env, Value: filesPath + "/" + m.name})
	}
	s.Volumes = append(s.Volumes, corev1.Volume{Name: filesVolume, VolumeSource: corev1.VolumeSource{Projected: projected}})
	s.Container.VolumeMounts = append(s.Container.VolumeMounts, corev1.VolumeMount{Name: filesVolume, MountPath: filesPath, ReadOnly: true})
}

var (
	objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`) // RFC 1123, as Kubernetes has it
	objectKey  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)
)

// validate returns the faults of the files; path says whose they are.
func (f Files) validate(path string) (errs []error) {
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(path+format, args...)) }
	for _, m := range f.mounted() {
		switch {
		case (m.Secret == "") == (m.ConfigMap == ""):
			fault("files: %s needs either a secret or a configMap", m.name)
		case m.ConfigMap != "" && m.name != "ca.crt":
			fault("files: %s cannot come from a ConfigMap: it is secret", m.name)
		case !objectName.MatchString(m.Secret+m.ConfigMap) || !objectKey.MatchString(m.Key) || m.Key == ".." || m.Key == ".":
			fault("files: %q is not a name of an object, or %q not one of its keys", m.Secret+m.ConfigMap, m.Key)
		}
	}
	if (f.ClientCertificate == File{}) != (f.ClientKey == File{}) {
		fault("files: clientCertificate and clientKey need each other")
	}
	return errs
}

// validateNamespaces returns the faults of c.Namespaces.
func (c Config) validateNamespaces() (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		path := "namespaces." + name + "."
		d := c.Namespaces[name]
		if !objectName.MatchString(name) {
			errs = append(errs, fmt.Errorf("namespaces: %q is not a name of a namespace", name))
		}
		endpoint, seen := false, map[string]bool{}
		for _, e := range d.Env {
			switch {
			case !isDestination(e.Name) || !envNamePattern.MatchString(e.Name):
				errs = append(errs, fmt.Errorf("%senv: %q does not say where spans go (%s…)", path, e.Name, exporterPrefix))
			case seen[e.Name]:
				errs = append(errs, fmt.Errorf("%senv: %s is set twice", path, e.Name))
			}
			seen[e.Name] = true
			endpoint = endpoint || strings.HasSuffix(e.Name, "_ENDPOINT") && e.Value != ""
		}
		if !endpoint {
			errs = append(errs, fmt.Errorf("%senv: names no endpoint", path))
		}
		errs = append(errs, d.Files.validate(path)...)
	}
	return errs
}
