package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"slices"
	"time"
)

// Keys of the Secret's data, those of kubernetes.io/tls and the CA's beside them.
const (
	keyCACert  = "ca.crt"
	keyCAKey   = "ca.key"
	keyTLSCert = "tls.crt"
	keyTLSKey  = "tls.key"
)

// clockSkew is how far the clock of an API server may be behind ours.
const clockSkew = 5 * time.Minute

// Lifetimes of the certificates. Both are renewed when a third is left.
type Lifetimes struct {
	CA, Serving time.Duration
}

// settle is how long a new CA is trusted before a certificate of it is served:
// time for every API server to see the change.
func (l Lifetimes) settle() time.Duration { return min(30*time.Second, l.Serving/6) }

// Interval at which to look whether something is due.
func (l Lifetimes) Interval() time.Duration { return min(time.Hour, l.Serving/12) }

// bundle is the content of the Secret: whom to trust and what to serve.
type bundle struct {
	cas  []*x509.Certificate // all trusted; the newest, which issues, first
	key  crypto.Signer       // of cas[0], nil if unusable
	leaf *tls.Certificate    // nil if unusable
}

// parse reads a Secret's data. What is missing or damaged is absent from the
// bundle, and so gets made anew.
func parse(data map[string][]byte) bundle {
	b := bundle{cas: parseCertificates(data[keyCACert])}
	if len(b.cas) > 0 {
		b.key = parseKey(data[keyCAKey], b.cas[0])
	}
	if leaf, err := tls.X509KeyPair(data[keyTLSCert], data[keyTLSKey]); err == nil {
		b.leaf = &leaf
	}
	return b
}

func parseCertificates(data []byte) (certs []*x509.Certificate) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, c)
		}
	}
	return certs
}

func parseKey(data []byte, cert *x509.Certificate) crypto.Signer {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil
	}
	return key
}

func (b bundle) encode() (map[string][]byte, error) {
	caKey, err := encodeKey(b.key)
	if err != nil {
		return nil, err
	}
	leafKey, err := encodeKey(b.leaf.PrivateKey)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		keyCACert:  b.trust(),
		keyCAKey:   caKey,
		keyTLSCert: encodeCertificate(b.leaf.Certificate[0]),
		keyTLSKey:  leafKey,
	}, nil
}

// trust is the caBundle for the API server.
func (b bundle) trust() []byte {
	var out bytes.Buffer
	for _, c := range b.cas {
		out.Write(encodeCertificate(c.Raw))
	}
	return out.Bytes()
}

// renew makes what is missing or due at now and reports whether b changed.
// trusted is what the API server trusts at present: a new CA issues only once
// it is among them, so that no served certificate is ever unknown.
func (b bundle) renew(now time.Time, trusted []byte, l Lifetimes, names []string) (bundle, bool, error) {
	valid := slices.DeleteFunc(slices.Clone(b.cas), func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
	changed := len(valid) != len(b.cas)
	if len(valid) == 0 || valid[0] != b.cas[0] {
		b.key = nil
	}
	b.cas = valid

	if b.key == nil || b.cas[0].NotAfter.Sub(now) < l.CA/3 {
		ca, key, err := newCA(now, l.CA)
		if err != nil {
			return b, false, fmt.Errorf("making a certificate authority: %w", err)
		}
		b.cas, b.key, changed = slices.Insert(b.cas, 0, ca), key, true
	}

	usable := b.serves(now, names)
	due := !usable || b.leaf.Leaf.NotAfter.Sub(now) < l.Serving/3
	if due && (!usable || b.settled(now, trusted, l)) {
		leaf, err := issue(now, l.Serving, names, b.cas[0], b.key)
		if err != nil {
			return b, false, fmt.Errorf("making a serving certificate: %w", err)
		}
		b.leaf, changed = leaf, true
	}
	return b, changed, nil
}

// serves reports whether the serving certificate is good for whoever trusts b.
func (b bundle) serves(now time.Time, names []string) bool {
	if b.leaf == nil {
		return false
	}
	for _, name := range names {
		if _, err := b.leaf.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool(b.cas), CurrentTime: now}); err != nil {
			return false
		}
	}
	return true
}

func (b bundle) settled(now time.Time, trusted []byte, l Lifetimes) bool {
	born := b.cas[0].NotBefore.Add(clockSkew)
	return now.Sub(born) >= l.settle() && slices.ContainsFunc(parseCertificates(trusted), b.cas[0].Equal)
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

func newCA(now time.Time, validity time.Duration) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "spile-webhook-ca"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

func issue(now time.Time, validity time.Duration, names []string, ca *x509.Certificate, caKey crypto.Signer) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(validity)
	if notAfter.After(ca.NotAfter) {
		notAfter = ca.NotAfter
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		DNSNames:    names,
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
