package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// threads writes a JSON array with the fields of /proc/PID/task/TID/status, name
// to value, of every thread with the given name. In a pod with hostPID it sees
// those of the whole node. Capabilities are a thread's, so a look at the
// process alone would not do.
func threads(args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("the name of a thread is needed")
	}
	files, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/status")
	if err != nil {
		return err
	}
	found := []map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		if fields["Name"] == args[0] {
			found = append(found, fields)
		}
	}
	return json.NewEncoder(stdout).Encode(found)
}
