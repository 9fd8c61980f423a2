package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/spile-dev/spile/test/e2e/traffic"
)

// quotes serves gRPC. A request is the status code to end with.
func quotes(_ []string, stdout io.Writer) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", traffic.GRPCPort))
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "quotes: listening on", listener.Addr())
	return grpc.NewServer(grpc.UnknownServiceHandler(quote)).Serve(listener)
}

func quote(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	messages := map[string]int{"/" + traffic.GRPCUnary: 1, "/" + traffic.GRPCStream: 3}[method]
	if messages == 0 {
		return status.Error(codes.Unimplemented, "no such method")
	}
	var request wrapperspb.Int32Value
	if err := s.RecvMsg(&request); err != nil {
		return err
	}
	if code := codes.Code(request.Value); code != codes.OK {
		return status.Error(code, "as asked")
	}
	for range messages {
		if err := s.SendMsg(wrapperspb.String("a quote")); err != nil {
			return err
		}
	}
	return nil
}

// calls carries out a plan of gRPC calls, and fails if one ended otherwise.
func calls(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("calls", flag.ContinueOnError)
	target := fs.String("target", "", "`host` of the service")
	n := fs.Int("calls", 1, "`number` of calls in the plan")
	if err := fs.Parse(args); err != nil {
		return err
	}
	address := net.JoinHostPort(*target, strconv.Itoa(traffic.GRPCPort))
	if err := reachable("http://" + address); err != nil {
		return err
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	faults := make([]error, *n)
	room := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, c := range traffic.Calls(*n) {
		room <- struct{}{}
		wg.Go(func() {
			if code := status.Code(call(conn, c)); int(code) != c.Code {
				faults[i] = fmt.Errorf("%s ended with %s, want %s", c.Method, code, codes.Code(c.Code))
			}
			<-room
		})
	}
	wg.Wait()
	fmt.Fprintf(stdout, "calls: %d calls\n", *n)
	return errors.Join(faults...)
}

func call(conn *grpc.ClientConn, c traffic.Call) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.TraceParent != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", c.TraceParent)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+c.Method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(wrapperspb.Int32(int32(c.Code))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for {
		var reply wrapperspb.StringValue
		switch err := s.RecvMsg(&reply); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
