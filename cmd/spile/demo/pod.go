package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spile-dev/spile/cmd/spile/shop"
)

// PodCommand is the hidden subcommand that runs a part of the shop:
//
//	demo-pod NAME [HOST=ADDRESS…]
//
// A service accepts connections on file descriptor 3; the shopper writes what
// it did to standard output when it is done.
const PodCommand = "demo-pod"

// shopper is the name of the pod that sends the requests.
const shopper = "shopper"

// patience is how long a part gets to end by itself.
const patience = 5 * time.Second

// pause is the time between two requests of a customer.
const pause = 900 * time.Millisecond

// Pod runs a part of the shop until the context ends.
func Pod(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("want the name of a pod")
	}
	hosts := map[string]string{}
	for _, a := range args[1:] {
		name, addr, _ := strings.Cut(a, "=")
		hosts[name] = addr
	}
	transport := newTransport(hosts)
	if args[0] == shopper {
		return json.NewEncoder(stdout).Encode(shop.Shop(ctx, transport, pause))
	}
	service, err := shop.NewService(args[0], transport, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	server := http.Server{Handler: service, ReadHeaderTimeout: 5 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true) // gRPC
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newTransport resolves names by a table in the place of the cluster's DNS.
func newTransport(hosts map[string]string) *http.Transport {
	var dialer net.Dialer
	return &http.Transport{
		ResponseHeaderTimeout: 5 * time.Second,
		MaxIdleConnsPerHost:   16,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			ip, ok := hosts[host]
			if !ok {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return dialer.DialContext(ctx, network, net.JoinHostPort(ip, port))
		},
	}
}
