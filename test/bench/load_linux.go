package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// load is what the clients do.
type load struct {
	Name        string
	Title       string
	Method      string
	Path        string
	Connections int
	Rate        float64 // requests/s of all connections, whatever the answers take; 0: one after the other
	Size        int     // of the content of a POST, or of a response that is large, in bytes
	Chunked     bool
	Reconnect   bool // a new connection for each request
	Go          bool // the client is Go's, not one of plain system calls
	Streams     int  // of HTTP/2 at once, on each connection; 0: HTTP/1.1
}

var allLoads = []load{
	{Name: "small-2000", Title: "Small responses, 16 keep-alive connections, 2,000/s", Method: "GET", Path: "/small", Connections: 16, Rate: 2000},
	{Name: "small-max", Title: "Small responses, 16 keep-alive connections, as fast as they can", Method: "GET", Path: "/small", Connections: 16},
	{Name: "connect-100", Title: "A new connection for each request, 100/s", Method: "GET", Path: "/small", Connections: 4, Rate: 100, Reconnect: true},
	{Name: "download", Title: "Downloads of 10 MB, 4 connections", Method: "GET", Path: "/download", Connections: 4, Size: large},
	{Name: "download-chunked", Title: "Downloads of 10 MB in chunks of 64 KiB, 4 connections", Method: "GET", Path: "/download-chunked", Connections: 4, Size: large},
	{Name: "upload", Title: "Uploads of 10 MB with Content-Length, 4 connections", Method: "POST", Path: "/upload", Connections: 4, Size: large},
	{Name: "upload-chunked", Title: "Uploads of 10 MB in chunks of 64 KiB, 4 connections", Method: "POST", Path: "/upload", Connections: 4, Size: large, Chunked: true},
	{Name: "h2-small-max", Title: "HTTP/2, small responses, 100 streams on one connection, as fast as they can", Method: "GET", Path: "/small", Connections: 1, Go: true, Streams: 100},
	{Name: "h2-download", Title: "HTTP/2, downloads of 10 MB, 4 connections", Method: "GET", Path: "/download", Connections: 4, Size: large, Go: true, Streams: 1},
	{Name: "h2-upload", Title: "HTTP/2, uploads of 10 MB, 4 connections", Method: "POST", Path: "/upload", Connections: 4, Size: large, Go: true, Streams: 1},
	{Name: "gib-download", Title: "Downloads of 1 GiB by Go's client", Method: "GET", Path: "/download/1073741824", Connections: 1, Size: 1 << 30, Go: true},
	{Name: "gib-upload", Title: "Uploads of 1 GiB by Go's client", Method: "POST", Path: "/upload/1073741824", Connections: 1, Size: 1 << 30, Go: true},
	{Name: "h2-gib-download", Title: "HTTP/2, downloads of 1 GiB", Method: "GET", Path: "/download/1073741824", Connections: 1, Size: 1 << 30, Go: true, Streams: 1},
	{Name: "h2-gib-upload", Title: "HTTP/2, uploads of 1 GiB", Method: "POST", Path: "/upload/1073741824", Connections: 1, Size: 1 << 30, Go: true, Streams: 1},
}

// outcome is what a load came to.
type outcome struct {
	Requests int // answered with 200
	Failed   int
	Error    string  // of the first that failed
	Seconds  float64 // from the first request to the last answer
	CPU      int64   // of the clients, in nanoseconds

	Latencies histogram // from when a request was due
}

// add adds what a load came to later.
func (o *outcome) add(later outcome) {
	o.Requests += later.Requests
	o.Seconds += later.Seconds
	o.CPU += later.CPU
	o.Latencies.merge(later.Latencies)
}

// generate is the load generator: arguments are the server's address and port, a
// load as JSON and how long. Threads that make plain system calls cost little
// beside what is measured, and wake up when they should.
func generate(args []string, stdout io.Writer) error {
	if len(args) != 3 {
		return errors.New("want an address, a load and a duration")
	}
	server, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	var l load
	if err := json.Unmarshal([]byte(args[1]), &l); err != nil {
		return err
	}
	duration, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	if l.Go {
		return json.NewEncoder(stdout).Encode(l.generateGo(server, duration))
	}
	runtime.GOMAXPROCS(2 + l.Connections)
	request := l.request(server)
	clients := make([]client, l.Connections)
	var wg sync.WaitGroup
	start := now() + int64(5*time.Millisecond)
	for i := range clients {
		c := &clients[i]
		*c = client{load: l, server: server, request: request, fd: -1, buf: make([]byte, 256<<10)}
		wg.Go(func() {
			runtime.LockOSThread()
			c.run(start, start+int64(duration), i)
		})
	}
	wg.Wait()
	return json.NewEncoder(stdout).Encode(summary(clients, start))
}

func summary(clients []client, start int64) outcome {
	o := outcome{Latencies: histogram{}}
	end := start
	for i := range clients {
		c := &clients[i]
		o.Requests += len(c.latencies)
		for _, ns := range c.latencies {
			o.Latencies.add(ns)
		}
		end = max(end, c.end)
		if c.err != nil {
			o.Failed++
			o.Error = c.err.Error()
		}
	}
	o.Seconds = float64(end-start) / 1e9
	return o
}

// request returns the bytes of a request.
func (l load) request(server netip.AddrPort) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s?page=2 HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n", l.Method, l.Path, server)
	b.WriteString("Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n")
	switch {
	case l.Chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		b.Write(chunked(make([]byte, l.Size)))
	case l.Method == "POST":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", l.Size)
		b.Write(make([]byte, l.Size))
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

const (
	chunk = 64 << 10
	// wireLength is the field with the length of content in chunks, framing included,
	// so that clients need not read it.
	wireLength = "X-Wire-Length"
)

// chunked returns content in the chunked transfer coding.
func chunked(content []byte) []byte {
	var b bytes.Buffer
	for c := range slices.Chunk(content, chunk) {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(c), c)
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

// client is one connection after another.
type client struct {
	load      load
	server    netip.AddrPort
	request   []byte
	fd        int
	buf       []byte
	latencies []int64
	end       int64
	err       error // of the request that failed, which ends it
}

func (c *client) run(start, end int64, index int) {
	defer func() {
		c.end = now()
		c.disconnect()
	}()
	for n := index; ; n += c.load.Connections {
		due := now()
		if c.load.Rate > 0 {
			due = start + int64(float64(n)/c.load.Rate*1e9)
		}
		if due >= end {
			return
		}
		sleepUntil(max(due, start))
		if c.load.Rate == 0 {
			due = now()
		}
		if c.err = c.exchange(); c.err != nil {
			return
		}
		c.latencies = append(c.latencies, now()-due)
	}
}

func (c *client) exchange() error {
	if c.fd < 0 {
		if err := c.connect(); err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
	}
	for b := c.request; len(b) > 0; {
		n, err := unix.Write(c.fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("sending: %w", err)
		}
		b = b[max(n, 0):]
	}
	if err := c.response(); err != nil {
		return err
	}
	if c.load.Reconnect {
		c.disconnect()
	}
	return nil
}

// response reads a response with a Content-Length or an X-Wire-Length.
func (c *client) response() error {
	have, total := 0, -1
	for total < 0 || have < total {
		at := have
		if total >= 0 {
			at = 0 // the content is not kept
		}
		n, err := unix.Read(c.fd, c.buf[at:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("receiving: %w", err)
		case n == 0:
			return errors.New("receiving: the connection was closed")
		}
		have += n
		if total < 0 {
			if total, err = responseSize(c.buf[:have]); err != nil {
				return err
			}
		}
	}
	return nil
}

// responseSize returns how long a response is, or -1 while its head is not whole.
func responseSize(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return -1, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answered with %q", b[:min(end, 80)])
	}
	for _, name := range []string{"\r\nContent-Length: ", "\r\n" + wireLength + ": "} {
		if _, value, ok := bytes.Cut(b[:end+2], []byte(name)); ok {
			value, _, _ = bytes.Cut(value, []byte("\r\n"))
			n, err := strconv.Atoi(string(value))
			return end + 4 + n, err
		}
	}
	return 0, errors.New("answered without a length")
}

func (c *client) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	timeout := unix.Timeval{Sec: 10}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout),
	)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(c.server.Port()), Addr: c.server.Addr().As4()})
	}
	if errors.Is(err, unix.EINTR) { // it goes on, and may not be called again
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(timeout.Sec)*1000)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	c.fd = fd
	return nil
}

func (c *client) disconnect() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

// now is the monotonic clock, in nanoseconds.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

func sleepUntil(at int64) {
	t := unix.NsecToTimespec(at)
	for errors.Is(unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &t, nil), unix.EINTR) {
	}
}
