package bpf

// The object is the same for amd64 and arm64: it uses no kernel structure whose
// layout depends on the architecture.
//
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -tags linux -go-package bpf -cflags "-O2 -g -Wall -Wextra -Werror -mcpu=v2 -ffile-prefix-map=$PWD=." -type tap_skip -type tap_counters -type tap_room -type tap_walk tap tap.bpf.c
