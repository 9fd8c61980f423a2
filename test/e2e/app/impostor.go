package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"
)

// impostor serves TLS on :8443 in the place of the webhook, with the certificate
// in -certs, and answers every review wrongly.
func impostor(args []string, _ io.Writer) error {
	flags := flag.NewFlagSet("impostor", flag.ContinueOnError)
	certs := flags.String("certs", "/certs", "`directory` of tls.crt and tls.key")
	answer := flags.String("answer", "", "hang, error, garbage, empty or other")
	if err := flags.Parse(args); err != nil {
		return err
	}
	answers := map[string]http.HandlerFunc{
		"hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"error": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "impostor", http.StatusInternalServerError)
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "\x00{") },
		"empty":   func(http.ResponseWriter, *http.Request) {},
		"other": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"none","allowed":false}}`)
		},
	}
	h, ok := answers[*answer]
	if !ok {
		return fmt.Errorf("-answer %q is unknown", *answer)
	}
	server := &http.Server{Addr: ":8443", Handler: h, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServeTLS(*certs+"/tls.crt", *certs+"/tls.key")
}
