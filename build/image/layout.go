package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"strings"
	"time"
)

// imageFile is a file of the image's layer.
type imageFile struct {
	Path string // absolute
	Mode int64  // permission bits
	Data []byte
}

// imageSpec says what the image is; the first file is its entry point.
type imageSpec struct {
	Name, User, Arch string
	Files            []imageFile
	Extra            []imageFile // that no argument names
}

// Media types and file names of the OCI image specification, version 1.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type config struct {
	platform
	Created string        `json:"created"`
	Config  runtimeConfig `json:"config"`
	RootFS  rootFS        `json:"rootfs"`
}

type runtimeConfig struct {
	Entrypoint []string
	User       string `json:",omitempty"`
	WorkingDir string
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// archive returns the image as a tar archive in the OCI image layout.
func (s imageSpec) archive() ([]byte, error) {
	layer, err := tarball(s.Files)
	if err != nil {
		return nil, err
	}
	layout := []imageFile{{Path: "/oci-layout", Mode: 0o644, Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	blob := func(media string, b []byte) descriptor {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		layout = append(layout, imageFile{Path: "/blobs/sha256/" + name, Mode: 0o644, Data: b})
		return descriptor{MediaType: media, Digest: "sha256:" + name, Size: len(b)}
	}
	blobJSON := func(media string, v any) (descriptor, error) {
		b, err := json.Marshal(v)
		return blob(media, b), err
	}

	target := platform{Architecture: s.Arch, OS: "linux"}
	layerDesc := blob(mediaLayer, layer)
	configDesc, err := blobJSON(mediaConfig, config{
		platform: target,
		Created:  time.Unix(0, 0).UTC().Format(time.RFC3339),
		Config:   runtimeConfig{Entrypoint: []string{s.Files[0].Path}, User: s.User, WorkingDir: "/"},
		RootFS:   rootFS{Type: "layers", DiffIDs: []string{layerDesc.Digest}},
	})
	if err != nil {
		return nil, err
	}
	desc, err := blobJSON(mediaManifest, manifest{
		SchemaVersion: 2, MediaType: mediaManifest, Config: configDesc, Layers: []descriptor{layerDesc},
	})
	if err != nil {
		return nil, err
	}
	desc.Platform = &target
	desc.Annotations = map[string]string{
		"io.containerd.image.name":          s.Name, // containerd names the image by this one
		"org.opencontainers.image.ref.name": s.Name,
	}
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{desc}})
	if err != nil {
		return nil, err
	}
	return tarball(append(layout, imageFile{Path: "/index.json", Mode: 0o644, Data: top}))
}

// tarball returns the files and the folders they lie in as a tar archive whose
// bytes depend on nothing else.
func tarball(files []imageFile) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{"/": true}
	var mkdir func(string) error
	mkdir = func(dir string) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		if err := mkdir(path.Dir(dir)); err != nil {
			return err
		}
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(dir, "/") + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
	}
	for _, f := range files {
		if err := mkdir(path.Dir(f.Path)); err != nil {
			return nil, err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode, Size: int64(len(f.Data)), ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
