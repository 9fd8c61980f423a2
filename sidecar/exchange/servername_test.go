package exchange_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// clientHello returns what a TLS client that asks for a name sends first.
func clientHello(t testing.TB, name string) string {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: name == ""}).Handshake()
		client.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	return string(head) + string(body)
}

// records spreads a handshake message over records of n bytes.
func records(hello string, n int) string {
	var b strings.Builder
	for message := hello[5:]; message != ""; {
		part := message[:min(n, len(message))]
		b.WriteString(hello[:3] + string(binary.BigEndian.AppendUint16(nil, uint16(len(part)))) + part)
		message = message[len(part):]
	}
	return b.String()
}

func unseen(r *replay) []string {
	var all []string
	for _, u := range r.engine.Stats.Unseen.Counts() {
		all = append(all, u.String())
	}
	return all
}

func TestServerName(t *testing.T) {
	hello := clientHello(t, "Shop.Example")
	serverHello := "\x16\x03\x03\x00\x5a\x02" + strings.Repeat("x", 60)
	const named, unnamed = "tls shop.example 10.0.0.2:80", "tls 10.0.0.2:80"
	for _, tt := range []struct {
		name  string
		steps []step
		want  string
	}{
		{"whole", []step{c(hello)}, named},
		{"and what follows", []step{c(hello + "xyz"), s(serverHello), c("abc")}, named},
		{"over several records", []step{c(records(hello, 60))}, named},
		{"none", []step{c(clientHello(t, ""))}, unnamed},
		{"cut off", []step{c(hello[:60]), cLost(hello[60:]), s(serverHello)}, unnamed},
		{"without an end", []step{c(hello[:60])}, unnamed},
		{"reset", []step{c(hello[:60]), rst}, unnamed},
		{"answered too early", []step{c(hello[:60]), s("\x15\x03\x03\x00\x02\x02\x28")}, unnamed},
		{"from the server", []step{s(serverHello)}, "tls 10.0.0.2:80"},
		{"not a name", []step{c(strings.Replace(hello, "Shop", "Sh\np", 1))}, unnamed},
		{"endless", []step{c("\x16\x03\x01\x40\x00\x01\x00\xff\xff" + strings.Repeat("x", 20<<10))}, unnamed},
	} {
		for _, size := range []int{0, 1, 100} {
			r := run(t, exchange.Limits{}, tt.steps, size)
			if diff := cmp.Diff([]string{tt.want}, unseen(r)); diff != "" || r.conn.Kind() != exchange.KindTLS {
				t.Errorf("%s, segments of %d: kind %s (-want +got):\n%s", tt.name, size, r.conn.Kind(), diff)
			}
		}
	}
}

// FuzzServerName reads any ClientHello. It is found, or not, whatever the sizes of
// segments, and nothing of a name that is none gets out.
func FuzzServerName(f *testing.F) {
	f.Add([]byte(clientHello(f, "shop.example")), uint8(0))
	f.Add([]byte(records(clientHello(f, "shop.example"), 30)), uint8(200))
	f.Fuzz(func(t *testing.T, hello []byte, size uint8) {
		hello = append([]byte("\x16\x03\x01\x02\x00\x01"), hello...)
		whole := run(t, exchange.Limits{}, []step{c(string(hello))}, 0)
		cut := run(t, exchange.Limits{}, []step{c(string(hello))}, int(size))
		if diff := cmp.Diff(unseen(whole), unseen(cut)); diff != "" {
			t.Errorf("%q in segments of %d (-whole +cut):\n%s", hello, size, diff)
		}
		for _, u := range whole.engine.Stats.Unseen.Counts() {
			if strings.Trim(u.Name, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" || len(u.Name) > 253 {
				t.Errorf("name %q", u.Name)
			}
		}
	})
}
