package traffic

import "fmt"

// GRPCPort is the port of the gRPC service of the end-to-end test.
const GRPCPort = 50051

// Call is a gRPC call and the status code that it ends with.
type Call struct {
	Method string // package.Service/Method
	Code   int
	// Messages is the number of messages of a response that is OK.
	Messages int
	// TraceParent is the value of the metadata of that name, if there is one, and
	// TraceID and ParentID what it names.
	TraceParent, TraceID, ParentID string
}

// Methods of the gRPC service. It does not have GRPCMissing.
const (
	GRPCUnary   = "e2e.Quotes/Quote"
	GRPCStream  = "e2e.Quotes/Watch"
	GRPCMissing = "e2e.Quotes/Missing"
)

// Calls returns a plan of n calls.
func Calls(n int) []Call {
	const notFound, unimplemented, internal = 5, 12, 13
	plan := make([]Call, n)
	for i := range plan {
		c := Call{Method: GRPCUnary, Messages: 1}
		switch {
		case i%5 == 1:
			c.Code = notFound
		case i%10 == 2:
			c.Code = internal
		case i%20 == 3:
			c.Method, c.Code = GRPCMissing, unimplemented
		case i%4 == 0:
			c.Method, c.Messages = GRPCStream, 3
		}
		if i%traced == 0 {
			c.TraceID = fmt.Sprintf("e2f00000000000000000%012x", i+1)
			c.ParentID = fmt.Sprintf("e2f0%012x", i+1)
			c.TraceParent = "00-" + c.TraceID + "-" + c.ParentID + "-01"
		}
		plan[i] = c
	}
	return plan
}
