package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootsPath is the first place where crypto/x509 looks for certificate
// authorities on Linux.
const rootsPath = "/etc/ssl/certs/ca-certificates.crt"

// roots is a PEM file of the certificate authorities that Mozilla trusts, of the
// version that go.mod names. Those trusted under conditions, which the file
// cannot tell, are left out.
func roots() imageFile {
	var out bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}) // a buffer takes everything
		}
	}
	return imageFile{Path: rootsPath, Mode: 0o644, Data: out.Bytes()}
}
