package certs

import (
	"crypto/x509"
	"testing"
	"time"
)

var (
	names   = []string{"spile-webhook.spile-system.svc"}
	minutes = Lifetimes{CA: 3 * time.Minute, Serving: time.Minute}
	epoch   = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// Certificates that live one minute, over hours: who trusts an earlier caBundle,
// as old as a new authority needs to settle, can always call.
func TestRenewForHours(t *testing.T) {
	const span = time.Hour
	type seen struct {
		at    time.Time
		trust []byte
	}
	var (
		b       bundle
		history []seen
		cas     = map[string]bool{}
		leaves  = map[string]bool{}
	)
	for now := epoch; now.Before(epoch.Add(span)); now = now.Add(minutes.Interval()) {
		var trusted []byte
		if len(history) > 0 {
			trusted = history[len(history)-1].trust
		}
		// Through the Secret each time, as the replicas do.
		if b.leaf != nil {
			data, err := b.encode()
			if err != nil {
				t.Fatal(err)
			}
			b = parse(data)
		}
		var err error
		if b, _, err = b.renew(now, trusted, minutes, names); err != nil {
			t.Fatal(err)
		}
		history = append(history, seen{now, b.trust()})
		cas[b.cas[0].SerialNumber.String()] = true
		leaves[b.leaf.Leaf.SerialNumber.String()] = true
		if len(b.cas) > 3 {
			t.Fatalf("%s: %d authorities", now, len(b.cas))
		}
		for _, h := range history[max(0, len(history)-3):] {
			if now.Sub(h.at) >= minutes.settle() && len(history) > 3 {
				continue
			}
			opts := x509.VerifyOptions{DNSName: names[0], Roots: pool(parseCertificates(h.trust)), CurrentTime: now}
			if _, err := b.leaf.Leaf.Verify(opts); err != nil {
				t.Fatalf("%s: unknown to who trusts the caBundle of %s: %v", now, h.at, err)
			}
		}
	}
	if len(cas) < int(span/minutes.CA) || len(leaves) < int(span/minutes.Serving) {
		t.Errorf("%d authorities and %d certificates in %s", len(cas), len(leaves), span)
	}
}

// A new authority issues nothing before it is trusted, unless nothing else works.
func TestRenewWaitsForTrust(t *testing.T) {
	first, _, err := bundle{}.renew(epoch, nil, minutes, names)
	if err != nil {
		t.Fatal(err)
	}
	later := epoch.Add(2*time.Minute + time.Second) // the authority is due, the certificate expired
	first.leaf, err = issue(later.Add(-45*time.Second), time.Minute, names, first.cas[0], first.key)
	if err != nil {
		t.Fatal(err)
	}
	second, changed, err := first.renew(later, first.trust(), minutes, names)
	if err != nil || !changed || len(second.cas) != 2 {
		t.Fatalf("changed %v, %d authorities, error %v", changed, len(second.cas), err)
	}
	if second.leaf != first.leaf {
		t.Fatal("served by an authority that nobody trusts")
	}
	settled := later.Add(minutes.settle())
	if third, _, _ := second.renew(settled, first.trust(), minutes, names); third.leaf != first.leaf {
		t.Error("served though the caBundle lacks the authority")
	}
	third, _, err := second.renew(settled, second.trust(), minutes, names)
	if err != nil || third.leaf == first.leaf {
		t.Errorf("not renewed once trusted (error %v)", err)
	}
	expired := later.Add(time.Minute)
	if fourth, _, _ := second.renew(expired, first.trust(), minutes, names); fourth.leaf == first.leaf {
		t.Error("an expired certificate is served")
	}
}

func TestParseSurvivesDamage(t *testing.T) {
	good, _, err := bundle{}.renew(epoch, nil, minutes, names)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := bundle{}.renew(epoch, nil, minutes, names)
	if err != nil {
		t.Fatal(err)
	}
	otherData, err := other.encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{keyCACert, keyCAKey, keyTLSCert, keyTLSKey} {
		for name, value := range map[string][]byte{"missing": nil, "garbage": []byte("x"), "foreign": otherData[key]} {
			data, err := good.encode()
			if err != nil {
				t.Fatal(err)
			}
			data[key] = value
			b, _, err := parse(data).renew(epoch, good.trust(), minutes, names)
			if err != nil {
				t.Errorf("%s %s: %v", key, name, err)
				continue
			}
			if !b.serves(epoch, names) || b.key == nil {
				t.Errorf("%s %s: not repaired", key, name)
			}
		}
	}
}

func TestRenewForOtherNames(t *testing.T) {
	b, _, err := bundle{}.renew(epoch, nil, minutes, names)
	if err != nil {
		t.Fatal(err)
	}
	other := []string{"other.spile-system.svc"}
	b, changed, err := b.renew(epoch, b.trust(), minutes, other)
	if err != nil || !changed || !b.serves(epoch, other) {
		t.Errorf("changed %v, error %v", changed, err)
	}
}
