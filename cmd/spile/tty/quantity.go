package tty

import (
	"strconv"
	"time"
)

// Duration is d with three digits.
func Duration(d time.Duration) string {
	unit, name := time.Second, "s"
	switch {
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + "ns"
	case d < 999_500*time.Nanosecond:
		unit, name = time.Microsecond, "µs"
	case d < 999_500*time.Microsecond:
		unit, name = time.Millisecond, "ms"
	}
	return threeDigits(float64(d)/float64(unit)) + name
}

// Bytes is a number of bytes with three digits, in decimal units.
func Bytes(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return strconv.FormatInt(n, 10) + "B"
	}
	v, unit := float64(n), -1
	for v >= 999.5 {
		v /= 1000
		unit++
	}
	return threeDigits(v) + units[unit:unit+1] + "B"
}

func threeDigits(v float64) string {
	digits := 2
	switch {
	case v >= 99.95:
		digits = 0
	case v >= 9.995:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}
