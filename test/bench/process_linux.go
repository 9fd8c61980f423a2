package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/internal/netns"
)

// process is a program that runs in a network namespace. It does not outlive the
// harness, however that ends.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   output // standard output
	log   output // standard error
	done  chan struct{}
	err   error // of the program, once done is closed
}

// command is what a process runs.
type command struct {
	path         string
	args, env    []string
	files        []*os.File // descriptors from 3 on
	capabilities []uintptr  // all that it may have, nil for root's
}

// start starts a command in a namespace.
func start(ns *netns.NS, c command) (*process, error) {
	p := &process{name: filepath.Base(c.path), done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: c.path, Args: append([]string{c.path}, c.args...), Env: append([]string{}, c.env...), ExtraFiles: c.files,
		Stdout: &p.out, Stderr: &p.log,
		SysProcAttr: &syscall.SysProcAttr{
			// The kernel sends it when the thread that started the process ends.
			Pdeathsig: syscall.SIGKILL,
			// Its children end with it.
			Cloneflags: syscall.CLONE_NEWPID,
			// A Ctrl-C is for the harness alone, which ends its parts itself.
			Setpgid: true,
		},
	}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		err := ns.Do(func() error {
			if err := restrict(c.capabilities); err != nil {
				return err
			}
			if err := p.cmd.Start(); err != nil {
				return err
			}
			started <- nil
			p.err = p.cmd.Wait()
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.path, err)
	}
	return p, nil
}

// restrict leaves the calling thread, and what it starts, no capabilities but
// those kept, as a container's securityContext does.
func restrict(keep []uintptr) error {
	if keep == nil {
		return nil
	}
	kept := make(map[uintptr]bool)
	for _, k := range keep {
		kept[k] = true
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if kept[c] {
			continue
		}
		// EINVAL: an older kernel that does not know the capability.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}

// stop ends the process by SIGTERM, or after 5 s by SIGKILL, and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// await waits until ready reports true.
func (p *process) await(ready func() bool) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ready() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%w): %s", p.name, p.err, p.log.String())
		default:
		}
	}
	return fmt.Errorf("%s is not ready after 10 s: %s", p.name, p.log.String())
}

// ask writes a line to the standard input of the process and reads a line of
// JSON from its standard output into answer.
func (p *process) ask(answer any) error {
	before := strings.Count(p.out.String(), "\n")
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		return err
	}
	if err := p.await(func() bool { return strings.Count(p.out.String(), "\n") > before }); err != nil {
		return err
	}
	return json.Unmarshal([]byte(strings.Split(p.out.String(), "\n")[before]), answer)
}

// cpu returns the CPU time, user and system, that the process and its children
// have used, in nanoseconds. It is exact, unlike that in /proc/PID/stat.
func (p *process) cpu() int64 {
	var sum int64
	for _, pid := range p.family() {
		var t unix.Timespec
		const schedClock = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
		if unix.ClockGettime(int32(^pid<<3|schedClock), &t) == nil {
			sum += t.Nano()
		}
	}
	return sum
}

// memory returns the resident and the proportional set size of the process and
// its children, in bytes.
func (p *process) memory() (rss, pss int64) {
	for _, pid := range p.family() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		rss += kilobytes(b, "Rss:")
		pss += kilobytes(b, "Pss:")
	}
	return rss, pss
}

func kilobytes(b []byte, key string) int64 {
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) >= 2 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// family returns the ids of the process and its children.
func (p *process) family() []int {
	pid := p.cmd.Process.Pid
	pids := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range lists {
		b, _ := os.ReadFile(name)
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// output collects what is written to it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
