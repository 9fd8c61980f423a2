package main

import (
	"errors"
	"testing"

	"github.com/spile-dev/spile/sidecar"
)

func TestMemoryLimit(t *testing.T) {
	for _, test := range []struct {
		max  string
		err  error
		want int64
	}{
		{err: errors.New("no cgroup v2"), want: sidecar.DefaultMemory},
		{max: "max\n", want: sidecar.DefaultMemory},
		{max: "67108864\n", want: sidecar.DefaultMemory},
		{max: "33554432\n", want: 18 << 20},
		{max: "1073741824\n", want: sidecar.DefaultMemory},
	} {
		if got := memoryLimit(func(string) ([]byte, error) { return []byte(test.max), test.err }); got != test.want {
			t.Errorf("%q, %v: %d, want %d", test.max, test.err, got, test.want)
		}
	}
}
