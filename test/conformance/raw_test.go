//go:build conformance && linux

package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// rawClient sends to the server at addr, host:port, byte for byte what clients
// seldom do; what not every server understands only to one that is modern.
func rawClient(addr string, args []string) int {
	err := rawAll(addr)
	if len(args) > 0 && args[0] == "modern" {
		err = errors.Join(err, rawModern(addr))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// talk is a connection of its own: pieces are sent 2 ms apart.
type talk struct {
	pieces    []string
	halfClose bool
	resetAt   int // reset after so many bytes of the response, rather than read to its end
	reset     bool
}

func rawGet(target, fields string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: a.example\r\n" + fields + "\r\n"
}

// bytewiseContent is the target of a request that tshark does not show: its chunks
// come byte by byte.
const bytewiseContent = "/count?bytewise"

// resetTarget is that of requests whose connection is reset at any point.
const resetTarget = "/large?reset"

// resetStep is how many bytes of such a request one connection sends more than
// another, resetResponses after how many of the response others are reset.
const resetStep = 7

var resetResponses = []int{0, 1, 20, 300, 1000, 10_000, 100_000, 1_000_000}

// resetHeads returns how many connections were reset in a head, if these are the
// exchanges of the others.
func resetHeads(exchanges []exchanged) int {
	whole := 0
	for _, x := range exchanges {
		if x.target == resetTarget {
			whole++
		}
	}
	runs := (whole + len(resetResponses) - 1) / len(resetResponses) // of rawClient
	return runs * ((len(rawGet(resetTarget, "")) - 1 + resetStep - 1) / resetStep)
}

const bye = "Connection: close\r\n"

func rawAll(addr string) error {
	var pipelined string
	for i := range 30 {
		pipelined += rawGet(fmt.Sprint("/small?pipelined=", i), "")
	}
	last := rawGet("/medium?last", bye)
	bytewise := strings.Split(rawGet("/small?bytewise", bye), "")
	talks := []talk{
		{pieces: bytewise},
		{pieces: []string{pipelined + last}},
		{pieces: []string{rawGet("/large", bye)}},
		{pieces: []string{"GET /small?1.0 HTTP/1.0\r\n\r\n"}},
		{pieces: []string{"HEAD /large?1.0 HTTP/1.0\r\n\r\n"}},
		{pieces: []string{rawGet("/small?1", ""), rawGet("/small?2", ""), last}},
		{pieces: []string{rawGet("/small?long="+strings.Repeat("x", 3000), bye)}},
	}
	// Reset at any point of the request, and of the response.
	request := rawGet(resetTarget, "")
	for at := 1; at < len(request); at += resetStep {
		talks = append(talks, talk{pieces: []string{request[:at]}, reset: true})
	}
	for _, at := range resetResponses {
		talks = append(talks, talk{pieces: []string{request}, reset: true, resetAt: at})
	}
	return talkAll(addr, talks)
}

func rawModern(addr string) error {
	var pipelined string
	for i := range 40 {
		pipelined += rawGet(fmt.Sprint("/small?pipelined=", i), "")
	}
	const post = "POST /count HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n"
	const chunks = "Transfer-Encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n16;x=\"y\"\r\n" + fake + "\r\n0\r\nX-Sum: 1\r\n\r\n"
	return talkAll(addr, []talk{
		{pieces: []string{pipelined + rawGet("/medium", bye)}},
		{pieces: []string{rawGet("/small?half", "")}, halfClose: true},
		{pieces: []string{pipelined}, halfClose: true},
		{pieces: []string{post + chunks}},
		{pieces: strings.Split("POST "+bytewiseContent+strings.TrimPrefix(post, "POST /count")+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "")},
		{pieces: []string{post + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", "hello"}},
		{pieces: []string{post + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"}},
		{pieces: []string{rawGet("http://a.example/small?absolute", bye)}},
		{pieces: []string{rawGet("/hints", ""), rawGet("/trailers", ""), rawGet("/chunked", bye)}},
		{pieces: []string{rawGet("/small?head", "X: "+strings.Repeat("x", 7000)+"\r\n"+bye)}},
		{pieces: []string{post + "Content-Length: 100000\r\n\r\n" + strings.Repeat(fake, 100)}, reset: true},
		{pieces: []string{pipelined}, reset: true, resetAt: 500},
	})
}

func talkAll(addr string, talks []talk) error {
	var errs []error
	for _, t := range talks {
		if err := t.run(addr); err != nil {
			errs = append(errs, fmt.Errorf("%.60q: %w", t.pieces, err))
		}
	}
	return errors.Join(errs...)
}

// run returns an error only if it cannot connect: what a server does with a
// connection is its own affair.
func (t talk) run(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	conn := c.(*net.TCPConn)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	for i, p := range t.pieces {
		if i > 0 {
			time.Sleep(2 * time.Millisecond)
		}
		if _, err := io.WriteString(conn, p); err != nil {
			return nil
		}
	}
	if t.reset {
		_, _ = io.CopyN(io.Discard, conn, int64(t.resetAt))
		return conn.SetLinger(0) // closing resets
	}
	if t.halfClose {
		_ = conn.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, conn)
	return nil
}
