package main

const tapUsage = `Usage: spile tap [FLAGS]

Shows the HTTP exchanges of this network namespace as they end, each with the
role that the namespace has in it. Ends on Ctrl-C; counters go to standard
error. Needs CAP_NET_RAW, and CAP_BPF to leave out what is not needed in the
kernel; for another namespace CAP_SYS_ADMIN and CAP_SYS_PTRACE.

  --pid PID        tap the network namespace of a process
  --netns NAME     tap a network namespace by the name that ip netns gave it, or
                   by its path
  --interface LIST tap these interfaces only (default: those that are up)
  --duration TIME  end after a time such as 10s
` + rowsUsage
