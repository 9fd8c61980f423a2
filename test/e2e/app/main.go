// Command app plays every part of the end-to-end test: the services under test,
// the load on them, and a look at the node's processes. It knows nothing of
// tracing: it passes no field on.
//
//	app frontend -upstream http://backend     serves :8080, asks upstream for every request
//	app backend                               serves :8080, late for some paths if -slow
//	app load -target http://frontend -requests 500 -workers 8
//	app quotes                                serves gRPC at :50051
//	app calls -target quotes -calls 200
//	app threads NAME                          the status of the threads with this name, as JSON
//	app kill NAME POD-UID                     kills the processes with this name of a pod
//	app files /data                           serves the files of a folder at :8080
//	app impostor -answer hang                 the webhook's endpoint, answering wrongly
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	parts := map[string]func([]string, io.Writer) error{
		"frontend": frontend, "backend": backend, "load": load, "quotes": quotes, "calls": calls, "threads": threads, "kill": kill,
		"files": files, "impostor": impostor,
	}
	if len(args) == 0 || parts[args[0]] == nil {
		fmt.Fprintln(stderr, "usage: app frontend|backend|load|quotes|calls|threads|kill|files|impostor ...")
		return 2
	}
	if err := parts[args[0]](args[1:], stdout); err != nil {
		fmt.Fprintf(stderr, "app %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

const listen = ":8080"

// client keeps enough idle connections that none is closed under load.
func client() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.Proxy = nil
	return &http.Client{Transport: t, Timeout: 30 * time.Second}
}

// reachable waits until a TCP connection to the host of an URL can be made. It
// sends nothing, so that it makes no exchange.
func reachable(target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "80")
	}
	var last error
	for range 120 {
		var c net.Conn
		if c, last = net.DialTimeout("tcp", addr, time.Second); last == nil {
			return c.Close()
		}
		time.Sleep(500 * time.Millisecond)
	}
	return last
}

func backend(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("backend", flag.ContinueOnError)
	slow := fs.Bool("slow", false, "answer late, by how much the path says")
	if err := fs.Parse(args); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "backend: listening on", listen)
	return http.ListenAndServe(listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := traffic.Status(r.URL.Path)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			status = http.StatusBadRequest
		}
		if *slow {
			time.Sleep(traffic.Delay(r.URL.Path))
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "%s %s\n", r.Method, r.URL.Path)
	}))
}

func frontend(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("frontend", flag.ContinueOnError)
	upstream := fs.String("upstream", "", "`URL` of the backend")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := reachable(*upstream); err != nil {
		return err
	}
	c := client()
	fmt.Fprintln(stdout, "frontend: listening on", listen)
	return http.ListenAndServe(listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body, err := ask(c, r.Method, *upstream+r.URL.Path, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "%s", body)
	}))
}

// ask makes one request and reads its whole response.
func ask(c *http.Client, method, target string, header http.Header) (int, []byte, error) {
	var content io.Reader
	if method == http.MethodPost {
		content = strings.NewReader(`{"item":"syrup","count":1}`)
	}
	req, err := http.NewRequest(method, target, content)
	if err != nil {
		return 0, nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, errors.Join(err, resp.Body.Close())
}
