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
	mux.HandleFunc("GET /download", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(large))
		_, _ = w.Write(big)
	})
	mux.HandleFunc("GET /download-chunked", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(wireLength, strconv.Itoa(len(chunked(big))))
		for b := range slices.Chunk(big, chunk) {
			_, _ = w.Write(b) // makes a chunk of it
		}
	})
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != large {
			http.Error(w, fmt.Sprintf("%d bytes, %v", n, err), http.StatusBadRequest)
		}
	})
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
