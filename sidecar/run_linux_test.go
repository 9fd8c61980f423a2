package sidecar

import (
	"strings"
	"testing"

	"github.com/spile-dev/spile/sidecar/capture"
	"github.com/spile-dev/spile/sidecar/exchange"
	"github.com/spile-dev/spile/sidecar/flow"
)

type hostile struct{}

func (hostile) Next() (capture.Packet, error) { panic("index out of range") }

func (hostile) Close() error { return nil }

func TestPanicEndsCapture(t *testing.T) {
	err := follow(hostile{}, flow.NewTable(flow.Config{Emit: func(*exchange.Exchange) {}}))
	if err == nil || !strings.Contains(err.Error(), "index out of range") || !strings.Contains(err.Error(), "hostile.Next") {
		t.Errorf("%v: want what happened, and where", err)
	}
}
