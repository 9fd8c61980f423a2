//go:build conformance && linux

package conformance

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestChromium has a browser load testdata/page.html, twice, with its 40 images over
// several connections, redirects, validation, an aborted download and, of modern
// programs, uploads, 103, server-sent events and a WebSocket.
func TestChromium(t *testing.T) {
	for _, s := range servers {
		query := "?programs"
		switch {
		case s.name == "nginx":
			query = ""
		case s.kind != modern:
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			need(t, browser())
			compare(t, newLab(t), s, "eth0", func(l *lab, log func() string) { browse(t, l, log, query) })
		})
	}
}

// browser is Chromium as Debian names it, or as others have it.
func browser() string {
	for _, name := range []string{"chromium", "google-chrome"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	return "chromium"
}

// browse ends the browser when the page has asked for /done.
func browse(t *testing.T, l *lab, log func() string, query string) {
	t.Helper()
	var out output
	cmd := l.start(t, l.client, &out, browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--remote-debugging-port=0", "--user-data-dir="+l.dir+"/profile", fmt.Sprintf("http://%s:%d/page.html%s", l.addr, port, query))
	for deadline := time.Now().Add(3 * time.Minute); !strings.Contains(log(), " /done "); {
		if time.Now().After(deadline) {
			t.Fatalf("the page did not end\n%.2000s\n%s", out.String(), log())
		}
		time.Sleep(100 * time.Millisecond)
	}
	end(t, cmd, syscall.SIGTERM)
	want := []string{" /page.html", " /style.css ", " /r/39 ", " /dir/ ", " 304 "}
	if query != "" {
		want = append(want, "POST /echo?19 ", "PUT /count ", "GET /cached 304 ", " /hints ", " /events ", " /ws 101 ")
	}
	for _, w := range want {
		if !strings.Contains(log(), w) {
			t.Errorf("the browser did not make a request with %q:\n%s", w, log())
		}
	}
}
