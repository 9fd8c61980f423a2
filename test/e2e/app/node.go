package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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

// kill ends, as kill -9 does, the processes of a name that belong to a pod, by its
// UID. It needs the host's PIDs, as threads does.
func kill(args []string, stdout io.Writer) error {
	if len(args) != 2 {
		return errors.New("the name of a process and the UID of a pod are needed")
	}
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	killed := 0
	for _, file := range files {
		name, _ := os.ReadFile(file)
		groups, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		// A cgroup of systemd has _ for -.
		if strings.TrimSpace(string(name)) != args[0] || !strings.Contains(strings.ReplaceAll(string(groups), "_", "-"), args[1]) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		killed++
	}
	fmt.Fprintf(stdout, "kill: %d processes\n", killed)
	if killed != 1 {
		return fmt.Errorf("killed %d processes %s of pod %s", killed, args[0], args[1])
	}
	return nil
}

// files serves a folder, for an image that has no shell to read it with.
func files(args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("a folder is needed")
	}
	fmt.Fprintln(stdout, "files: listening on", listen)
	return http.ListenAndServe(listen, http.FileServer(http.Dir(args[0])))
}
