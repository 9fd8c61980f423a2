package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// usageError is an error in the command line.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// helpRequest is the "error" of --help.
type helpRequest struct{ usage string }

func (*helpRequest) Error() string { return "help is asked for" }

// flags are those of a command. Unlike those of package flag they may follow
// other arguments.
type flags struct {
	*flag.FlagSet
	usage string
}

// newFlags returns flags that usage describes.
func newFlags(usage string) *flags {
	f := &flags{flag.NewFlagSet("", flag.ContinueOnError), usage}
	f.SetOutput(io.Discard)
	return f
}

// parse returns the arguments that are not flags.
func (f *flags) parse(args []string) (rest []string, err error) {
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			return nil, f.explain(err)
		}
		after := f.Args()
		if parsed := args[:len(args)-len(after)]; len(parsed) > 0 && parsed[len(parsed)-1] == "--" {
			return append(rest, after...), nil
		}
		if len(after) == 0 {
			break
		}
		rest, args = append(rest, after[0]), after[1:]
	}
	return rest, nil
}

// parseNone is parse for a command without other arguments.
func (f *flags) parseNone(args []string) error {
	rest, err := f.parse(args)
	if err == nil && len(rest) > 0 {
		err = usageErrorf("unexpected argument %q (want flags only)", rest[0])
	}
	return err
}

// explain makes an error of package flag say what is accepted.
func (f *flags) explain(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return &helpRequest{f.usage}
	}
	message := err.Error()
	if name, ok := strings.CutPrefix(message, "flag provided but not defined: -"); ok {
		var names []string
		f.VisitAll(func(known *flag.Flag) { names = append(names, dashed(known.Name)) })
		if len(names) == 0 {
			names = []string{"none"}
		}
		return usageErrorf("unknown flag %s (want %s)", dashed(name), strings.Join(names, ", "))
	}
	return &usageError{message}
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// duration defines a flag that is a time above 0.
func (f *flags) duration(d *time.Duration, name string) {
	f.Func(name, "", func(s string) error {
		v, err := time.ParseDuration(s)
		if err != nil || v <= 0 {
			return errors.New("want a duration such as 10s or 1m30s")
		}
		*d = v
		return nil
	})
}
