package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// Files serves tls.crt and tls.key of a directory, as cert-manager keeps them
// in a Secret, and reads them again when they change.
type Files struct {
	*certwatcher.CertWatcher
	ca string
}

// NewFiles reads the certificate in dir. It fails if there is none.
func NewFiles(dir string) (*Files, error) {
	w, err := certwatcher.New(filepath.Join(dir, keyTLSCert), filepath.Join(dir, keyTLSKey))
	if err != nil {
		return nil, fmt.Errorf("reading serving certificate in %s: %w", dir, err)
	}
	return &Files{CertWatcher: w, ca: filepath.Join(dir, keyCACert)}, nil
}

// Roots returns the certificates in ca.crt, or the system's if there is no such
// file.
func (f *Files) Roots() (*x509.CertPool, error) {
	data, err := os.ReadFile(f.ca)
	if errors.Is(err, fs.ErrNotExist) {
		return x509.SystemCertPool()
	}
	if err != nil {
		return nil, fmt.Errorf("reading authority: %w", err)
	}
	certs := parseCertificates(data)
	if len(certs) == 0 {
		return nil, fmt.Errorf("reading authority: %s holds no certificate", f.ca)
	}
	return pool(certs), nil
}
