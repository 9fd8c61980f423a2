package export

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// A span field is written before its length is known: of any length it reads as
// what protowire would have written.
func TestSpanField(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 129, 1<<14 - 1, 1 << 14, 1<<14 + 1, 1 << 21} {
		content := bytes.Repeat([]byte{7}, n)
		got := endSpan(append(beginSpan([]byte("before")), content...), len("before"))
		if want := appendBytes([]byte("before"), fieldSpan, content); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: % x…, want % x…", n, got[:min(len(got), 16)], want[:min(len(want), 16)])
		}
	}
}

// A request in the batch's own memory is what it would be elsewhere, and so is the
// next one in that memory.
func TestLentBatch(t *testing.T) {
	resource := pcommon.NewResource()
	resource.Attributes().PutStr("service.name", "cart")
	env := newEnvelope(resource, "1")
	for _, containers := range [][]string{{""}, {"web"}, {"web", "cart"}, {}} {
		var lends, copies openBatch
		for round, n := range []int{3, 300, 1} {
			for i := range n {
				for _, c := range containers {
					for _, o := range []*openBatch{&lends, &copies} {
						p := o.part(env, c)
						at := len(p.buf)
						p.buf = endSpan(append(beginSpan(p.buf), fmt.Sprintf("span %d of %s", i, c)...), at)
						o.spans++
					}
				}
			}
			lent, copied := lends.seal(env, true), copies.seal(env, false)
			if !bytes.Equal(lent.request, copied.request) || lent.spans != copied.spans {
				t.Errorf("containers %q, round %d: %d spans\n% x\nwant %d\n% x", containers, round, lent.spans, lent.request, copied.spans, copied.request)
			}
			if one := len(containers) == 1; one != (lent.memory != nil) {
				t.Errorf("containers %q: lent memory %v", containers, lent.memory != nil)
			}
			lends.takeBack(lent)
		}
	}
}

// Batches that leave as they come take turns in the same memory, and each arrives
// as it was.
func TestMemoryIsUsedAgain(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			b, endpoint := startBackend(t)
			p := newPipeline(t, Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint,
				"OTEL_EXPORTER_OTLP_PROTOCOL="+protocol, "OTEL_BSP_SCHEDULE_DELAY=10")
			const rounds, spans = 5, 20
			for round := range rounds {
				p.emit(spans)
				want := uint64((round + 1) * spans)
				for deadline := time.Now().Add(10 * time.Second); p.Stats().Exported < want && time.Now().Before(deadline); {
					time.Sleep(time.Millisecond)
				}
				p.mu.Lock()
				kept := p.open.spare != nil
				p.mu.Unlock()
				if !kept {
					t.Errorf("round %d: the memory of the batch was not kept", round)
				}
			}
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if n, again := b.count(); n != rounds*spans || again != 0 {
				t.Errorf("backend has %d spans and %d again, want %d and 0", n, again, rounds*spans)
			}
		})
	}
}
