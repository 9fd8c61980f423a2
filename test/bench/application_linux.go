package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
)

// large is the size of a large body, in bytes.
const large = 10_000_000

// application is the program that is watched: a Go server on file descriptor 3.
func application([]string, io.Writer) error {
	small := []byte(`{"id":42,"name":"cart","items":[` + strings.Repeat(`"apple",`, 15) + `"pear"]}`)
	big := make([]byte, large)
	for i := range big {
		big[i] = byte(i * 7)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /small", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(small)
	})
	download := func(w http.ResponseWriter, r *http.Request) {
		left := size(r)
		w.Header().Set("Content-Length", strconv.Itoa(left))
		for left > 0 {
			n, err := w.Write(big[:min(left, len(big))])
			if left -= n; err != nil {
				return
			}
		}
	}
	mux.HandleFunc("GET /download", download)
	mux.HandleFunc("GET /download/{size}", download)
	mux.HandleFunc("GET /download-chunked", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(wireLength, strconv.Itoa(len(chunked(big))))
		for b := range slices.Chunk(big, chunk) {
			_, _ = w.Write(b) // makes a chunk of it
		}
	})
	upload := func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(size(r)) {
			http.Error(w, fmt.Sprintf("%d bytes, %v", n, err), http.StatusBadRequest)
		}
	}
	mux.HandleFunc("POST /upload", upload)
	mux.HandleFunc("POST /upload/{size}", upload)
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the harness
		os.Exit(0)
	}()
	server := http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return server.Serve(l)
}

// size is how large the content of a download or an upload is to be, in bytes.
func size(r *http.Request) int {
	if n, err := strconv.Atoi(r.PathValue("size")); err == nil {
		return n
	}
	return large
}
