package span

import (
	"strings"
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// FuzzRPC: the spans of any call keep to the conventions.
func FuzzRPC(f *testing.F) {
	f.Add("/p.S/M", "p.example:80", "0", "50m", uint8(0), uint16(200), uint32(8), int64(1e9))
	f.Add("/p.S", "", "17", "", uint8(2), uint16(0), uint32(99), int64(-1))
	f.Add("\xff?token=x", "a@b", "x", "99999999H", uint8(8), uint16(503), uint32(13), int64(1<<62))
	b := NewBuilder(Default())
	f.Fuzz(func(t *testing.T, path, authority, status, timeout string, outcome uint8, code uint16, reset uint32, end int64) {
		x := exampleExchange()
		x.Protocol = exchange.GRPC
		x.Request.Target, x.Request.Host = path, authority
		x.Request.Fields = exchange.Fields{{Name: "grpc-timeout", Value: timeout}}
		x.Outcome = exchange.Outcomes()[int(outcome)%len(exchange.Outcomes())]
		x.Response.Status = int(code % 1000)
		x.End, x.FirstContent = end, end/2
		if status != "" {
			x.Response.Trailers = exchange.Fields{{Name: "grpc-status", Value: status}, {Name: "grpc-message", Value: "c4n4ry"}}
		}
		if x.Outcome == exchange.Reset {
			x.Reset = exchange.StreamReset{Seen: true, ByServer: code%2 == 0, Code: reset}
		}
		if all := checkBothRoles(t, b, x); strings.Contains(all, "c4n4ry") && !strings.Contains(path+authority, "c4n4ry") {
			t.Errorf("grpc-message is exported: %s", all)
		}
	})
}
