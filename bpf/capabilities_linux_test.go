package bpf

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// runWithOnly runs a command as root with the given capabilities alone: a
// program that root executes gets those of the bounding set.
func runWithOnly(cmd *exec.Cmd, keep ...uintptr) ([]byte, error) {
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			kept := false
			for _, k := range keep {
				kept = kept || k == c
			}
			if !kept && unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) != nil {
				break // this kernel knows no more
			}
		}
		out, err := cmd.CombinedOutput()
		done <- result{out, err}
	}()
	r := <-done
	return r.out, r.err
}
