// Package netns makes and enters Linux network namespaces, and joins them by a
// bridge and veth pairs over rtnetlink.
//
// A namespace made here has no name: it exists as long as a process, socket or
// file descriptor holds it, so that nothing is left behind when they end, by
// whatever signal.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nameDir is where `ip netns add` binds namespaces by name.
const nameDir = "/run/netns"

// NS is a network namespace, held by an open file.
type NS struct{ file *os.File }

// New makes an empty network namespace; its loopback interface is down. It
// needs CAP_SYS_ADMIN.
func New() (*NS, error) {
	var ns *NS
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return explain("making a network namespace", "CAP_SYS_ADMIN", err)
		}
		var err error
		ns, err = Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		return err
	})
	return ns, err
}

// Open opens the namespace that the file at path stands for, such as
// /proc/1/ns/net.
func Open(path string) (*NS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, explain("opening network namespace", "CAP_SYS_PTRACE", err)
	}
	if typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || typ != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("%s is not a network namespace (want a file such as /proc/PID/ns/net or /run/netns/NAME)", path)
	}
	return &NS{f}, nil
}

// OpenPID opens the namespace of a process.
func OpenPID(pid int) (*NS, error) {
	ns, err := Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no process with id %d", pid)
	}
	return ns, err
}

// OpenName opens a namespace by the name that `ip netns` gave it or, if name
// has a slash, by its path.
func OpenName(name string) (*NS, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join(nameDir, name)
	}
	ns, err := Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no network namespace %q: %s does not exist", name, path)
	}
	return ns, err
}

// Do calls fn on a thread of its own that is in the namespace. What fn opens or
// starts stays in the namespace; goroutines that it starts do not. The thread
// lives until fn returns. Entering needs CAP_SYS_ADMIN.
func (ns *NS) Do(fn func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return explain("entering network namespace "+ns.file.Name(), "CAP_SYS_ADMIN", err)
		}
		return fn()
	})
}

// Close lets go of the namespace.
func (ns *NS) Close() error { return ns.file.Close() }

// onOwnThread calls fn on a thread that ends when fn returns: the goroutine
// never unlocks it, so the runtime does not give a thread in a foreign namespace
// to others.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and /proc/PID/ns/net is its
			// namespace. Occupy it, so that fn gets another.
			defer runtime.UnlockOSThread()
			done <- onOwnThread(fn)
			return
		}
		done <- fn()
	}()
	return <-done
}

// explain names the capability that is missing if that is why.
func explain(doing, capability string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%s needs %s: %w", doing, capability, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
