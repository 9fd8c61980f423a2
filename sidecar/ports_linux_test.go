package sidecar

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// countingConn counts writes.
type countingConn struct {
	net.Conn
	written bytes.Buffer
	writes  int
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes++
	return c.written.Write(b)
}

func TestOwnConnReadFrom(t *testing.T) {
	content := bytes.Repeat([]byte("span "), 100_000)
	for _, test := range []struct {
		name   string
		source io.Reader
		want   []byte
		one    bool
	}{
		{"memory", io.LimitReader(bytes.NewReader(content), int64(len(content))), content, true},
		{"more memory than may be read", io.LimitReader(bytes.NewReader(content), 70_000), content[:70_000], false},
		{"a stream", io.LimitReader(io.MultiReader(bytes.NewReader(content)), int64(len(content))), content, false},
		{"no limit", io.MultiReader(bytes.NewReader(content)), content, true},
	} {
		var to countingConn
		n, err := (&ownConn{Conn: &to}).ReadFrom(test.source)
		if err != nil || n != int64(len(test.want)) || !bytes.Equal(to.written.Bytes(), test.want) {
			t.Errorf("%s: %d bytes, %v; want %d", test.name, n, err, len(test.want))
		}
		if (to.writes == 1) != test.one {
			t.Errorf("%s: %d writes", test.name, to.writes)
		}
		if l, ok := test.source.(*io.LimitedReader); ok && test.one && l.N != 0 {
			t.Errorf("%s: %d bytes left", test.name, l.N)
		}
	}
}
