package netns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// needNamespaces skips a test that may not make namespaces.
func needNamespaces(t *testing.T) {
	t.Helper()
	ns, err := New()
	switch {
	case err == nil:
		ns.Close()
	case errors.Is(err, os.ErrPermission) && os.Getenv("REQUIRE_BPF") == "":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// TestBridge carries a connection between two namespaces that a third joins.
func TestBridge(t *testing.T) {
	needNamespaces(t)
	for _, subnet := range []string{"10.244.0.%/24", "fd00::%/64"} {
		addr := func(host string) netip.Prefix { return netip.MustParsePrefix(strings.Replace(subnet, "%", host, 1)) }
		t.Run(subnet, func(t *testing.T) {
			hub, a, b := newNS(t), newNS(t), newNS(t)
			bridge, err := hub.AddBridge("br0", addr("1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(bridge.Join(a, "a", addr("2")), bridge.Join(b, "b", addr("3"))); err != nil {
				t.Fatal(err)
			}
			var l net.Listener
			err = a.Do(func() (err error) {
				l, err = net.Listen("tcp", netip.AddrPortFrom(addr("2").Addr(), 80).String())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					_, _ = io.WriteString(c, "hello")
					c.Close()
				}
			}()
			err = b.Do(func() error {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					return err
				}
				defer c.Close()
				got, err := io.ReadAll(c)
				if string(got) != "hello" {
					t.Errorf("got %q over the bridge, want hello", got)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func newNS(t *testing.T) *NS {
	t.Helper()
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestDoLeavesOthersAlone checks that a thread that entered a namespace is not
// given to other goroutines.
func TestDoLeavesOthersAlone(t *testing.T) {
	needNamespaces(t)
	ns := newNS(t)
	for range 50 {
		if err := ns.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// A thread ends a little after its goroutine.
	var strays int
	for range 1000 {
		if strays = threadsOutside(t, home); strays == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d threads stay in a foreign namespace", strays)
}

func threadsOutside(t *testing.T, home string) (n int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if at, err := os.Readlink(task); err == nil && at != home {
			n++
		}
	}
	return n
}

func TestOpenErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		open func() (*NS, error)
		want string
	}{
		{"no process", func() (*NS, error) { return OpenPID(1 << 30) }, "no process with id 1073741824"},
		{"no name", func() (*NS, error) { return OpenName("spile-none") }, `no network namespace "spile-none": /run/netns/spile-none does not exist`},
		{"a file", func() (*NS, error) { return OpenName(file) }, "is not a network namespace"},
		{"another kind", func() (*NS, error) { return OpenName("/proc/self/ns/mnt") }, "is not a network namespace"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.open()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}
