// Package traffic is the plan of the requests of the end-to-end test: the load
// generator carries it out, the test compares the spans with it.
package traffic

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Request is a request and the status that the backend answers it with.
type Request struct {
	Method string
	Path   string
	Status int
	// TraceParent is the value of the field of that name (W3C Trace Context), if
	// the request carries one, and ParentID the identity of the span it names.
	TraceParent, TraceID, ParentID string
}

// Key identifies a request of a plan in its spans.
func (r Request) Key() string { return Key(r.Method, r.Path, r.Status) }

// Key returns what Request.Key would for these values.
func Key(method, path string, status int) string {
	return fmt.Sprintf("%s %s %d", method, path, status)
}

// traced is the part of the plan, one in so many, that carries a traceparent.
const traced = 25

// paths by the status that they are answered with.
var paths = map[int]string{
	http.StatusOK:                 "/orders/",
	http.StatusCreated:            "/carts/",
	http.StatusNotFound:           "/missing/",
	http.StatusServiceUnavailable: "/down/",
}

// Plan returns n requests, no two with the same path.
func Plan(n int) []Request {
	plan := make([]Request, n)
	for i := range plan {
		r := Request{Method: http.MethodGet, Status: http.StatusOK}
		switch {
		case i%5 == 1:
			r.Method, r.Status = http.MethodPost, http.StatusCreated
		case i%10 == 2:
			r.Method, r.Status = http.MethodDelete, http.StatusNotFound
		case i%25 == 3:
			r.Status = http.StatusServiceUnavailable
		}
		r.Path = paths[r.Status] + strconv.Itoa(i)
		if i%traced == 0 {
			r.TraceID = fmt.Sprintf("e2e00000000000000000%012x", i+1)
			r.ParentID = fmt.Sprintf("e2e0%012x", i+1)
			r.TraceParent = "00-" + r.TraceID + "-" + r.ParentID + "-01"
		}
		plan[i] = r
	}
	return plan
}

// Status returns the status that the path of a planned request is answered with,
// 400 for any other.
func Status(path string) int {
	for status, prefix := range paths {
		if strings.HasPrefix(path, prefix) {
			return status
		}
	}
	return http.StatusBadRequest
}

// delays are far from the bounds of the buckets of the conventions' histograms.
var delays = []time.Duration{0, 35 * time.Millisecond, 170 * time.Millisecond, 350 * time.Millisecond}

// Delay returns by how much a slow backend is late with the answer to a path.
func Delay(path string) time.Duration {
	n, err := strconv.Atoi(path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return 0
	}
	return delays[n%len(delays)]
}

// Route returns the pattern of the path of a planned request.
func Route(path string) string { return path[:strings.LastIndexByte(path, '/')+1] + "{id}" }

// Done is a request that was answered as planned. The load generator prints each
// as a line of JSON.
type Done struct {
	Method, Path string
	Status       int
	Start        time.Time
	Took         time.Duration // until the end of the response
}

// Key returns the Key of the request.
func (d Done) Key() string { return Key(d.Method, d.Path, d.Status) }

// Keys returns the sorted keys of a plan.
func Keys(plan []Request) []string {
	keys := make([]string, len(plan))
	for i, r := range plan {
		keys[i] = r.Key()
	}
	slices.Sort(keys)
	return keys
}
