package sidecar

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// YieldCPU makes every thread of the process one that does not interrupt others when
// it wakes up, but waits until a CPU is free or the time slice of another ends: what
// is to be read lies in a ring and can wait, a request that is being served cannot. It
// needs no privilege; threads that are started later inherit it.
func YieldCPU() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}
	return onAllThreads(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&attr)), 0)
}
