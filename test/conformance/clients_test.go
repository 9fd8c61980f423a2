//go:build conformance && linux

package conformance

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"
)

// client is a program that makes requests. URL in its arguments is the server's
// by IPv4, URL6 by IPv6, ADDR and ADDR6 what is in these, HOST:PORT.
type client struct {
	args  []string
	only  kind // of servers
	fails bool // its exit status does not matter
}

var (
	//go:embed testdata/client.py
	pythonClient string
	//go:embed testdata/fetch.mjs
	fetchClient string
	//go:embed testdata/page.html
	page string
)

// pipelineScript has wrk send 16 requests at a time.
const pipelineScript = `
init = function() local r = {} for i = 1, 16 do r[i] = wrk.format("GET", "/small?wrk=" .. i) end requests = table.concat(r) end
request = function() return requests end
`

func curl(args ...string) client {
	return client{args: append([]string{"curl", "-sS", "-m", "60"}, args...)}
}

func forPrograms(c client) client { c.only = programs; return c }
func forFiles(c client) client    { c.only = files; return c }

// null returns n times "-o /dev/null".
func null(urls ...string) []string {
	var args []string
	for _, u := range urls {
		args = append(args, "-o", "/dev/null", u)
	}
	return args
}

var clients = []client{
	curl(null("URL/small", "URL/small?a=b&c", "URL/large", "URL/none", "URL/empty", "URL/medium")...),
	curl(append([]string{"-0"}, null("URL/small", "URL/large")...)...),
	curl(append([]string{"-I"}, null("URL/small", "URL/large", "URL/none")...)...),
	curl(append([]string{"-H", "Cookie: " + strings.Repeat("c", 6000)}, null("URL/small", "URL/medium")...)...),
	curl(append([]string{"-H", "Connection: close"}, null("URL/small", "URL/medium")...)...),
	forFiles(curl(append([]string{"-r", "100-299"}, null("URL/medium", "URL/large")...)...)),
	forFiles(curl(append([]string{"-z", "2100-01-01"}, null("URL/medium", "URL/large")...)...)),
	forPrograms(curl("-T", "medium", "-o", "/dev/null", "URL/echo", "-T", "small", "-o", "/dev/null", "URL/count", "-T", "large", "-o", "/dev/null", "URL/echo")),
	forPrograms(curl("-H", "Expect: 100-continue", "-T", "large", "-o", "/dev/null", "URL/count", "-T", "medium", "-o", "/dev/null", "URL/echo")),
	forPrograms(curl("-H", "Transfer-Encoding: chunked", "-T", "large", "-o", "/dev/null", "URL/count", "-T", "medium", "-o", "/dev/null", "URL/echo")),
	forPrograms(curl(append([]string{"-d", "GET /fake HTTP/1.1"}, null("URL/echo", "URL/chunked", "URL/count")...)...)),
	forPrograms(curl(append([]string{"-X", "DELETE"}, null("URL/echo", "URL/nocontent", "URL/chunked")...)...)),
	forPrograms(curl(append([]string{"-X", "PROPFIND"}, null("URL/count")...)...)),
	forPrograms(curl(null("URL/chunked", "URL/nocontent", "URL/notmodified", "URL/chunked")...)),
	curl(append([]string{"-L"}, null("URL/dir", "URL6/dir")...)...),
	curl(null("URL6/small", "URL6/large", "URL6/none", "URL6/medium")...),
	{args: []string{"wget", "-q", "-O", "/dev/null", "URL/small", "URL/medium", "URL/large", "URL/dir"}},
	{args: []string{"wget", "-q", "--spider", "URL6/small", "URL6/large"}},
	forFiles(client{args: []string{"wget", "-q", "-O", "/dev/null", "--start-pos", "100", "URL/medium"}}),
	forPrograms(client{args: []string{"wget", "-q", "-O", "/dev/null", "--method", "PUT", "--body-file", "large", "URL6/echo"}}),
	{args: []string{"ab", "-q", "-s", "2", "-n", "300", "-c", "3", "-k", "URL/small"}, fails: true}, // not every server keeps HTTP/1.0 alive
	{args: []string{"ab", "-q", "-n", "100", "-c", "3", "URL/medium"}},
	{args: []string{"h2load", "--h1", "-n", "300", "-c", "4", "URL/small"}},
	{args: []string{"wrk", "-t", "1", "-c", "4", "-d", "1s", "URL/small"}},
	{args: []string{"h2load", "--h1", "-n", "400", "-c", "4", "-m", "10", "URL6/small"}},
	{args: []string{"wrk", "-t", "1", "-c", "4", "-d", "1s", "-s", "pipeline.lua", "URL/"}, only: modern},
	{args: []string{"python3", "client.py", "URL6"}},
	{args: []string{"node", "fetch.mjs", "URL"}},
	forPrograms(client{args: []string{"node", "fetch.mjs", "URL6", "programs"}}),
	{args: []string{"/proc/self/exe", asRawClient, "ADDR"}},
	{args: []string{"/proc/self/exe", asRawClient, "ADDR6", "modern"}, only: modern},
}

// documents writes the files that servers serve and clients send.
func (l *lab) documents(t *testing.T) {
	t.Helper()
	for name, text := range map[string]string{
		"small":  "hello\n",
		"empty":  "",
		"medium": strings.Repeat("GET /fake HTTP/1.1\r\nHost: fake\r\n\r\n", 400),
		"large":  strings.Repeat("HTTP/1.1 200 Fake\r\nContent-Length: 5\r\n\r\nhello", 60000),
	} {
		l.writeFile(t, "www/"+name, text)
		l.writeFile(t, name, text)
	}
	for i := range 40 {
		l.writeFile(t, fmt.Sprint("www/r/", i), strings.Repeat("x", i*i*20))
	}
	l.writeFile(t, "www/dir/index.html", "dir")
	l.writeFile(t, "www/style.css", "body { color: black }")
	l.writeFile(t, "www/page.html", page)
	l.writeFile(t, "client.py", pythonClient)
	l.writeFile(t, "fetch.mjs", fetchClient)
	l.writeFile(t, "pipeline.lua", pipelineScript)
}
