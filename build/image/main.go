// Command image writes a container image as a tar archive in the OCI image
// layout, from static binaries and without a container engine:
//
//	image -o spile-sidecar.tar -t ghcr.io/spile-dev/spile-sidecar:dev bin/spile-sidecar
//
// The image has one layer with the given files at the root, or where
// FILE=/PATH says, and runs the first of them. The same files always give the
// same bytes. `ctr images import`, `kind load image-archive` and `docker load`
// (25 and later) read it. It is for tests; releases are built with ko.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("image", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: image -o FILE.tar -t NAME:TAG [-user UID] [-arch ARCH] [-roots] FILE[=/PATH] ...")
		fs.PrintDefaults()
	}
	out := fs.String("o", "", "`file` to write")
	var spec imageSpec
	fs.StringVar(&spec.Name, "t", "", "full `name` of the image, with registry and tag")
	fs.StringVar(&spec.User, "user", "", "numeric `uid` that the image runs as; root if empty")
	fs.StringVar(&spec.Arch, "arch", runtime.GOARCH, "`architecture` of the binaries, as Go names it")
	withRoots := fs.Bool("roots", false, "add the certificate authorities that Mozilla trusts, as "+rootsPath)
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if *withRoots {
		spec.Extra = append(spec.Extra, roots())
	}
	if err := write(*out, spec, fs.Args()); err != nil {
		fmt.Fprintln(stderr, "image:", err)
		return 1
	}
	return 0
}

// write reads the files that args name and writes the archive to out, which
// appears only when it is whole.
func write(out string, spec imageSpec, args []string) error {
	if out == "" || spec.Name == "" || len(args) == 0 {
		return errors.New("an output file (-o), a name (-t) and at least one file are needed")
	}
	for _, arg := range args {
		f, err := load(arg)
		if err != nil {
			return err
		}
		spec.Files = append(spec.Files, f)
	}
	spec.Files = append(spec.Files, spec.Extra...)
	archive, err := spec.archive()
	if err != nil {
		return fmt.Errorf("building %s: %w", spec.Name, err)
	}
	tmp := out + ".partial"
	if err := os.WriteFile(tmp, archive, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, out)
}

// load reads the file that FILE or FILE=/PATH names.
func load(arg string) (imageFile, error) {
	src, dst, ok := strings.Cut(arg, "=")
	if !ok {
		dst = "/" + path.Base(src)
	}
	if !path.IsAbs(dst) {
		return imageFile{}, fmt.Errorf("%s: the path in the image must be absolute, as in FILE=/PATH", arg)
	}
	info, err := os.Stat(src)
	if err != nil {
		return imageFile{}, err
	}
	data, err := os.ReadFile(src)
	if err != nil {
		return imageFile{}, err
	}
	return imageFile{Path: path.Clean(dst), Mode: int64(info.Mode().Perm()), Data: data}, nil
}
