//go:build conformance && linux

package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

// grpcCall is a call that a client makes. The fields of Meta tell the server what
// to do: x-code, x-size and x-count of its messages, x-sleep in milliseconds;
// x-early answers at once.
type grpcCall struct {
	Method   string            `json:"method"`
	Meta     map[string]string `json:"meta"`
	Messages int               `json:"messages"`
	Size     int               `json:"size"`    // of each
	Timeout  int               `json:"timeout"` // milliseconds
	GZIP     bool              `json:"gzip"`
}

// grpcStreams are the methods of the service, and whether requests and responses
// are streams.
var grpcStreams = map[string][2]bool{
	"Unary": {}, "Early": {}, "Deadline": {}, "Upload": {true, false}, "Download": {false, true}, "Bidi": {true, true}, "Cancel": {true, true},
}

func serveGRPC(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.MaxConcurrentStreams(2000), grpc.UnknownServiceHandler(answerGRPC),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Millisecond, PermitWithoutStream: true}))
	return s.Serve(listener)
}

func answerGRPC(_ any, ss grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(ss)
	streams, ok := grpcStreams[path[len("/spile.Test/"):]]
	if !ok {
		return status.Error(codes.Unimplemented, "no such method")
	}
	md, _ := metadata.FromIncomingContext(ss.Context())
	number := func(key string, otherwise int) int {
		if v := md.Get(key); len(v) > 0 {
			otherwise, _ = strconv.Atoi(v[0])
		}
		return otherwise
	}
	code, message := codes.Code(number("x-code", 0)), make([]byte, number("x-size", 10))
	ss.SetTrailer(metadata.Pairs("x-trailer", "t"))
	if len(md.Get("x-early")) == 0 {
		for in := []byte(nil); ; {
			err := ss.RecvMsg(&in)
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			if streams == [2]bool{true, true} {
				_ = ss.SendMsg(&message)
			}
		}
		time.Sleep(time.Duration(number("x-sleep", 0)) * time.Millisecond)
		switch {
		case streams == [2]bool{false, true}:
			for range number("x-count", 3) {
				_ = ss.SendMsg(&message)
			}
		case !streams[1] && code == codes.OK:
			_ = ss.SendMsg(&message)
		}
	}
	if ss.Context().Err() == nil {
		fmt.Println("LOG", path, int(code))
	}
	return status.Error(code, "as asked")
}

// pauseAfterDeadlines has calls with a deadline, which come first, sent before others
// are made.
const pauseAfterDeadlines = 500 * time.Millisecond

func requestGRPC(address, file, atOnce string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var calls []grpcCall
	if err := json.Unmarshal(b, &calls); err != nil {
		return err
	}
	n, err := strconv.Atoi(atOnce)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return err
	}
	defer conn.Close()
	room := make(chan struct{}, n)
	var all sync.WaitGroup
	for i, c := range calls {
		if i > 0 && c.Timeout == 0 && calls[i-1].Timeout > 0 {
			time.Sleep(pauseAfterDeadlines)
		}
		room <- struct{}{}
		all.Go(func() {
			code := status.Code(callGRPC(conn, c))
			fmt.Println("CALL", "/spile.Test/"+c.Method, int(code))
			<-room
		})
	}
	all.Wait()
	return nil
}

func callGRPC(conn *grpc.ClientConn, c grpcCall) error {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), metadata.New(c.Meta)))
	defer cancel()
	if c.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Timeout)*time.Millisecond)
		defer cancel()
	}
	var options []grpc.CallOption
	if c.GZIP {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	path, streams, message, in := "/spile.Test/"+c.Method, grpcStreams[c.Method], make([]byte, c.Size), []byte(nil)
	if streams == [2]bool{} {
		return conn.Invoke(ctx, path, &message, &in, options...)
	}
	cs, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: streams[0], ServerStreams: streams[1]}, path, options...)
	if err != nil {
		return err
	}
	for range max(c.Messages, 1) {
		if err := cs.SendMsg(&message); err != nil {
			break
		}
	}
	if c.Method != "Cancel" {
		_ = cs.CloseSend()
	}
	for {
		if err := cs.RecvMsg(&in); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if c.Method == "Cancel" {
			cancel()
		}
		if !streams[1] {
			return nil
		}
	}
}
