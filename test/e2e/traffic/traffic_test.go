package traffic

import "testing"

func TestPlan(t *testing.T) {
	plan := Plan(500)
	keys, statuses, parents := map[string]bool{}, map[int]int{}, 0
	for _, r := range plan {
		keys[r.Key()] = true
		statuses[r.Status]++
		if r.TraceParent != "" {
			parents++
		}
		if got := Status(r.Path); got != r.Status {
			t.Errorf("%s is answered with %d, planned %d", r.Path, got, r.Status)
		}
		if len(r.TraceParent) != 0 && len(r.TraceParent) != 55 {
			t.Errorf("traceparent %q is not 55 characters long", r.TraceParent)
		}
	}
	if len(keys) != len(plan) {
		t.Errorf("%d different keys for %d requests", len(keys), len(plan))
	}
	for _, status := range []int{200, 201, 404, 503} {
		if statuses[status] == 0 {
			t.Errorf("no request is answered with %d", status)
		}
	}
	if parents == 0 {
		t.Error("no request carries a traceparent")
	}
	if got := Route(plan[7].Path); got != "/orders/{id}" {
		t.Errorf("%s has route %s", plan[7].Path, got)
	}
	if a, b := Delay("/orders/4"), Delay("/carts/7"); a != delays[0] || b != delays[3] {
		t.Errorf("answers are late by %s and %s", a, b)
	}
	if got := Status("/"); got != 400 {
		t.Errorf("an unplanned path is answered with %d, want 400", got)
	}
}
