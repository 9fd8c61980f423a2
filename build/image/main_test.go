package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// untar returns the contents of the regular files of an archive by name.
func untar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("decoding %s: %v", b, err)
	}
	return v
}

func TestImage(t *testing.T) {
	dir := t.TempDir()
	bin, out := filepath.Join(dir, "app"), filepath.Join(dir, "app.tar")
	if err := os.WriteFile(bin, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	build := func() []byte {
		var stderr bytes.Buffer
		if code := run([]string{"-o", out, "-t", "example.org/app:1", "-user", "65532", "-arch", "arm64", bin, bin + "=/opt/x/app"}, &stderr); code != 0 {
			t.Fatalf("exit status %d: %s", code, &stderr)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	archive := build()
	if !bytes.Equal(archive, build()) {
		t.Error("the same file gave two different archives")
	}

	files := untar(t, archive)
	blob := func(d descriptor) []byte {
		t.Helper()
		b := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		sum := sha256.Sum256(b)
		if got := "sha256:" + hex.EncodeToString(sum[:]); got != d.Digest || len(b) != d.Size {
			t.Fatalf("blob %s: digest %s, %d bytes, want %d", d.Digest, got, len(b), d.Size)
		}
		return b
	}
	top := decode[index](t, files["index.json"])
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "example.org/app:1" {
		t.Errorf("image name %q", got)
	}
	m := decode[manifest](t, blob(top.Manifests[0]))
	c := decode[config](t, blob(m.Config))
	if c.Architecture != "arm64" || c.Config.User != "65532" || c.Config.Entrypoint[0] != "/app" {
		t.Errorf("configuration %+v", c)
	}
	if c.RootFS.DiffIDs[0] != m.Layers[0].Digest {
		t.Errorf("diff id %s is not the digest of the uncompressed layer %s", c.RootFS.DiffIDs[0], m.Layers[0].Digest)
	}
	layer := untar(t, blob(m.Layers[0]))
	if string(layer["app"]) != "binary" || string(layer["opt/x/app"]) != "binary" || len(layer) != 2 {
		t.Errorf("layer holds %v", layer)
	}
}

// TestRoots reads the certificate authorities as crypto/x509 would.
func TestRoots(t *testing.T) {
	dir := t.TempDir()
	bin, out := filepath.Join(dir, "app"), filepath.Join(dir, "app.tar")
	if err := os.WriteFile(bin, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	if code := run([]string{"-o", out, "-t", "example.org/app:1", "-roots", bin}, &stderr); code != 0 {
		t.Fatalf("exit status %d: %s", code, &stderr)
	}
	archive, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, archive)
	blob := func(d descriptor) []byte { return files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")] }
	m := decode[manifest](t, blob(decode[index](t, files["index.json"]).Manifests[0]))
	if c := decode[config](t, blob(m.Config)); c.Config.Entrypoint[0] != "/app" {
		t.Errorf("entry point %q", c.Config.Entrypoint)
	}
	rest := untar(t, blob(m.Layers[0]))[strings.TrimPrefix(rootsPath, "/")]
	n := 0
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err != nil || !c.IsCA {
			t.Errorf("certificate %d: %v", n, err)
		}
		n++
	}
	if n < 100 {
		t.Errorf("%d certificate authorities, want 100 and more", n)
	}
}

func TestImageRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "app.tar")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no output":     {[]string{"-t", "a:1", "main.go"}, "an output file (-o)"},
		"no file":       {[]string{"-o", out, "-t", "a:1"}, "at least one file"},
		"missing file":  {[]string{"-o", out, "-t", "a:1", "no-such-file"}, "no-such-file"},
		"relative path": {[]string{"-o", out, "-t", "a:1", "main.go=app"}, "must be absolute"},
		"unknown flag":  {[]string{"-x"}, "usage: image"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := run(test.args, &stderr); code == 0 {
				t.Error("exit status 0")
			}
			if !strings.Contains(stderr.String(), test.want) {
				t.Errorf("standard error %q does not contain %q", &stderr, test.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("wrote an archive")
			}
		})
	}
}
