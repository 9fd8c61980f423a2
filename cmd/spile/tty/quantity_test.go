package tty

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ns", 999: "999ns", 1500: "1.50µs", 42_420: "42.4µs", 812_300: "812µs",
		12_440_000: "12.4ms", 999_600: "1.00ms", 999_600_000: "1.00s", 1_234_000_000: "1.23s", 75 * time.Second: "75.0s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "1.00kB", 9_996: "10.0kB", 99_960: "100kB", 999_499: "999kB", 999_600: "1.00MB",
		1_500_000_000: "1.50GB", 1<<63 - 1: "9.22EB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
