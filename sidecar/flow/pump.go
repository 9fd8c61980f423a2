package flow

import (
	"errors"
	"io"
	"time"

	"github.com/spile-dev/spile/sidecar/capture"
)

// Pump passes the packets of a source to a table until the source ends, and then
// closes the table. It returns nil at io.EOF.
func Pump(source capture.Source, table *Table) error {
	var last int64
	for {
		p, err := source.Next()
		switch {
		case err == nil:
			last = max(last, p.At)
			table.Packet(p)
			continue
		case errors.Is(err, capture.ErrIdle):
			last = time.Now().UnixNano()
			table.Tick(last)
			continue
		case errors.Is(err, capture.ErrWoken): // packets of the last moments may be in the ring
			continue
		}
		table.Close(last)
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}
