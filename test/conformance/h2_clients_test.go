//go:build conformance && linux

package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

const (
	asGoH2Server = "serve-h2"
	asGoH2Client = "request-h2"
	asGRPC       = "grpc" // serve ADDRESS, or call ADDRESS FILE STREAMS
)

// priorKnowledge is curl for one URL: curl 7.88 fails at a second on the connection.
func priorKnowledge(args ...string) client {
	return curl(append([]string{"--http2-prior-knowledge", "-o", "/dev/null"}, args...)...)
}

var h2Clients = []client{
	priorKnowledge("URL/small?a=b&c"), priorKnowledge("URL/large"), priorKnowledge("URL/none"), priorKnowledge("URL/empty"),
	priorKnowledge("-I", "URL/small"),
	priorKnowledge("-H", "Cookie: "+strings.Repeat("c", 6000), "URL/medium"),
	forPrograms(priorKnowledge("-T", "large", "URL/echo")),
	forPrograms(priorKnowledge("-H", "Expect: 100-continue", "-T", "large", "URL/count")),
	forPrograms(priorKnowledge("-X", "PROPFIND", "URL/count")),
	forPrograms(priorKnowledge("-X", "DELETE", "URL/chunked")),
	forPrograms(priorKnowledge("URL/chunked")), forPrograms(priorKnowledge("URL/nocontent")), forPrograms(priorKnowledge("URL/notmodified")),
	{args: []string{"nghttp", "-n", "URL/small", "URL/large", "URL/none", "URL/small?x", "URL/medium"}},
	{args: []string{"nghttp", "-n", "-m", "200", "-b", "50", "-c", "1024", "-H", "x-odd: " + strings.Repeat("o", 200), "URL/small", "URL/medium"}},
	{args: []string{"nghttp", "-n", "--continuation", "-H", "x-large: " + strings.Repeat("l", 900), "URL/small"}, fails: true},
	{args: []string{"nghttp", "-n", "-c", "65536", "--encoder-header-table-size=0", "-m", "20", "URL/small"}},
	forPrograms(client{args: []string{"nghttp", "-n", "-d", "medium", "-m", "10", "--trailer=x-sum: 1", "URL/echo"}}),
	forPrograms(client{args: []string{"nghttp", "-n", "-d", "large", "-m", "3", "--expect-continue", "-b", "200", "URL/count"}}),
	{args: []string{"h2load", "-n", "300", "-c", "3", "-m", "1", "URL/small"}},
	{args: []string{"h2load", "-n", "2000", "-c", "2", "-m", "100", "URL/small", "URL/empty"}},
	{args: []string{"h2load", "-n", "4000", "-c", "1", "-m", "1000", "--header-table-size=65536", "URL/small"}},
	forPrograms(client{args: []string{"h2load", "-n", "300", "-c", "2", "-m", "30", "-d", "medium", "URL/echo"}}),
	forFiles(client{args: []string{"node", "h2client.js", "URL"}}),
	forPrograms(client{args: []string{"node", "h2client.js", "URL", "uploads"}}),
	forFiles(client{args: []string{"/proc/self/exe", asGoH2Client, "URL", "GET", "HEAD"}}),
	forPrograms(client{args: []string{"/proc/self/exe", asGoH2Client, "URL", "GET", "POST", "HEAD", "PUT"}}),
}

func upgrading(args ...string) client {
	return curl(append([]string{"--http2", "-o", "/dev/null"}, args...)...)
}

// canFail: curl 7.88 has room for 32 KiB after the response that upgrades.
func canFail(c client) client { c.fails = true; return c }

// upgradeClients start with HTTP/1.1.
var upgradeClients = []client{
	upgrading("URL/small?a=b&c"), canFail(upgrading("URL/large")), upgrading("URL/none"), upgrading("-I", "URL/small"),
	upgrading("-d", "form", "URL/small"), // a request with content is not upgraded
	{args: []string{"nghttp", "-n", "-u", "URL/small", "URL/medium", "URL/none"}},
	{args: []string{"nghttp", "-n", "-u", "-c", "16384", "URL/large"}},
	curl("-o", "/dev/null", "URL/small"),
}

func serveGoH2() error {
	s := http.Server{Addr: fmt.Sprintf(":%d", port), Handler: http.HandlerFunc(serveGo), Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 2000}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s.ListenAndServe()
}

// requestGoH2 makes a hundred requests at once, by each of the methods in turn.
func requestGoH2(url string, methods []string) error {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	errs := make([]error, 100)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			path := []string{"small", "medium", "none", "large", "echo"}[i%5]
			errs[i] = requestOne(tr, methods[i%len(methods)], fmt.Sprintf("%s/%s?%d", url, path, i), i)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func requestOne(tr *http.Transport, method, url string, i int) error {
	var body io.Reader
	switch method {
	case http.MethodPost:
		body = bytes.NewReader(make([]byte, 1000*i))
	case http.MethodPut: // of unknown length, with trailers
		body = io.MultiReader(strings.NewReader("a"), bytes.NewReader(make([]byte, 2000*i)))
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("X-Tenant", fmt.Sprint(i%7))
	if method == http.MethodPut {
		req.Trailer = http.Header{"X-Sum": {"1"}}
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// runAs runs the test binary as one of the programs; ok is false if it is none.
func runAs(args []string) (ok bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case asGoH2Server:
		return true, serveGoH2()
	case asGoH2Client:
		return true, requestGoH2(args[1], args[2:])
	case asGRPC:
		if args[1] == "serve" {
			return true, serveGRPC(args[2])
		}
		return true, requestGRPC(args[2], args[3], args[4])
	}
	return false, nil
}

const nodeH2Client = `
const http2 = require("http2")
const session = http2.connect(process.argv[2], {settings: {headerTableSize: 8192, enablePush: false}})
let left = 0
function ask(headers, body, trailers) {
  left++
  const s = session.request(headers, {endStream: body === undefined, waitForTrailers: !!trailers})
  if (trailers) s.on("wantTrailers", () => s.sendTrailers(trailers))
  s.on("error", () => {})
  s.on("close", () => { if (--left === 0) session.close() })
  s.resume()
  if (body !== undefined) s.end(body)
}
session.on("error", e => { console.error(e); process.exit(1) })
for (let i = 0; i < 100; i++) ask({":path": "/small?" + i, "x-a": "v" + i % 5, "x-b": "w".repeat(i * 3)})
for (const path of ["/medium", "/large", "/none", "/empty"]) ask({":path": path})
for (const path of ["/small", "/none"]) ask({":path": path, ":method": "HEAD"})
ask({":path": "/small?large", "x-large": "z".repeat(17000)})
if (process.argv[3]) ask({":path": "/echo", ":method": "POST"}, Buffer.alloc(100000, "GET / HTTP/1.1\r\n\r\n"))
if (process.argv[3]) ask({":path": "/count", ":method": "PUT"}, Buffer.alloc(10, "x"), {"x-sum": "1"})
`

// h2Main is the test binary as one of the programs that the tests start.
func h2Main() {
	if ok, err := runAs(os.Args[1:]); ok {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func (l *lab) h2Documents(t *testing.T) {
	t.Helper()
	l.writeFile(t, "h2client.js", nodeH2Client)
}
