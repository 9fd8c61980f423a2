package demo

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/netns"
)

// command is what a process runs.
type command struct {
	name         string // for people: "cart", "the sidecar of cart"
	path         string
	args, env    []string
	files        []*os.File // descriptors from 3 on
	capabilities []uintptr  // all that it may ever have
}

// process is a running command in a network namespace. It does not outlive the
// demo, however that ends.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdout tail
	log    tail // what it writes to stderr
	done   chan struct{}
	err    error // of the command, once done is closed
}

// start starts a command in a namespace.
func start(ns *netns.NS, c command) (*process, error) {
	p := &process{name: c.name, done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: c.path, Args: append([]string{c.path}, c.args...), Env: append([]string{}, c.env...), ExtraFiles: c.files,
		Stdout: &p.stdout, Stderr: &p.log,
		SysProcAttr: &syscall.SysProcAttr{
			// The kernel sends it when the thread that started the process ends.
			Pdeathsig: syscall.SIGKILL,
			// The Ctrl-C of the terminal is for the demo alone, which ends its
			// parts in order.
			Setpgid: true,
		},
	}
	started := make(chan error)
	go func() {
		err := ns.Do(func() error {
			if err := restrict(c.capabilities); err != nil {
				return err
			}
			err := p.cmd.Start()
			started <- err
			if err == nil {
				p.err = p.cmd.Wait()
				close(p.done)
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.name, err)
	}
	return p, nil
}

// restrict leaves what the thread starts no capabilities but those kept, not
// even as root, as a container's securityContext does.
func restrict(keep []uintptr) error {
	last := uintptr(unix.CAP_LAST_CAP)
	for capability := uintptr(0); capability <= last; capability++ {
		kept := false
		for _, k := range keep {
			kept = kept || k == capability
		}
		if kept {
			continue
		}
		// EINVAL: an older kernel that does not know the capability.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("dropping capability %d: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	return nil
}

// stop asks the process to end, and makes it end after a while. It returns
// when the process has.
func (p *process) stop(patience time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(patience):
	}
	p.kill()
}

// terminated tells of a process that has ended whether SIGTERM ended it before
// it could heed that.
func (p *process) terminated() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGTERM
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// obituary says how the process ended, with the end of its log.
func (p *process) obituary() error {
	end := "exit status 0"
	if p.err != nil {
		end = p.err.Error()
	}
	return fmt.Errorf("%s ended by itself (%s); %s", p.name, end, p.logTail())
}

// logTail is the end of the log, indented.
func (p *process) logTail() string {
	log := bytes.TrimSpace(p.log.bytes())
	if len(log) == 0 {
		return "it logged nothing"
	}
	return "the last it logged:\n    " + string(bytes.ReplaceAll(log, []byte("\n"), []byte("\n    ")))
}

// tail is a Writer that keeps the last lines of what is written.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

var _ io.Writer = (*tail)(nil)

const tailBytes = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if extra := len(t.buf) - tailBytes; extra > 0 {
		rest := t.buf[extra:]
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			rest = rest[i+1:]
		}
		t.buf = append(t.buf[:0], rest...)
	}
	return len(b), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.buf)
}
