package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"
	"golang.org/x/sys/unix"

	"github.com/spile-dev/spile/cmd/spile/shop"
	"github.com/spile-dev/spile/internal/netns"
	"github.com/spile-dev/spile/internal/otlpsink"
)

// podNames are the pods, the shopper last: it is the last to start.
var podNames = []string{shop.Pricing, shop.Catalog, shop.Cart, shop.Ingress, shopper}

// hubAddr is the address of the bridge, where the demo receives spans. The
// addresses are those of a network that exists in the demo's namespaces alone.
var hubAddr = netip.MustParsePrefix("10.244.0.1/24")

const otlpPort = 4318

// podAddr is the address of the pod with the given index.
func podAddr(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 0, byte(10 + i)}), hubAddr.Bits())
}

// cluster is the pods, the bridge that joins them, and the receiver of their
// spans.
type cluster struct {
	config Config
	hub    *netns.NS
	bridge *netns.Bridge
	sink   *otlpsink.Sink
	pods   []*pod
	ended  chan *process // parts that ended though nobody asked them to
}

// pod is a network namespace with an application and, but for the shopper's, a
// sidecar.
type pod struct {
	name         string
	addr         netip.Addr
	ns           *netns.NS
	app, sidecar *process
}

// newCluster makes the network and the receiver, and no process yet.
func newCluster(c Config, receive func(ptrace.Traces)) (_ *cluster, err error) {
	if os.Geteuid() != 0 {
		return nil, errNotRoot
	}
	cl := &cluster{config: c, ended: make(chan *process, 2*len(podNames))}
	defer func() {
		if err != nil {
			cl.close()
		}
	}()
	if cl.hub, err = netns.New(); err != nil {
		return nil, err
	}
	if cl.bridge, err = cl.hub.AddBridge("br0", hubAddr); err != nil {
		return nil, err
	}
	for i, name := range podNames {
		p := &pod{name: name, addr: podAddr(i).Addr()}
		cl.pods = append(cl.pods, p)
		if p.ns, err = netns.New(); err != nil {
			return nil, err
		}
		if err = cl.bridge.Join(p.ns, name, podAddr(i)); err != nil {
			return nil, err
		}
	}
	l, err := listen(cl.hub, netip.AddrPortFrom(hubAddr.Addr(), otlpPort))
	if err != nil {
		return nil, fmt.Errorf("listening for spans: %w", err)
	}
	cl.sink = otlpsink.New(receive)
	go func() { _ = cl.sink.Serve(l) }() // until close
	return cl, nil
}

// listen opens a listener in a namespace; it may be used from any.
func listen(ns *netns.NS, addr netip.AddrPort) (l *net.TCPListener, err error) {
	err = ns.Do(func() error {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	return l, err
}

// start starts the processes, in each pod the sidecar before the application,
// as Kubernetes does.
func (cl *cluster) start(ctx context.Context) error {
	for _, p := range cl.pods {
		if !isService(p.name) {
			continue
		}
		var err error
		if p.sidecar, err = cl.startSidecar(p); err != nil {
			return err
		}
	}
	for _, p := range cl.pods {
		if isService(p.name) {
			if err := p.awaitCapture(ctx); err != nil {
				return err
			}
		}
		var err error
		if p.app, err = cl.startApp(p); err != nil {
			return err
		}
	}
	return nil
}

// startSidecar starts a sidecar with the environment that the webhook gives it.
func (cl *cluster) startSidecar(p *pod) (*process, error) {
	podName := p.name + "-0"
	return cl.launch(p, command{
		name: "the sidecar of " + p.name,
		path: cl.config.Sidecar,
		env: []string{
			"SPILE_POD_NAME=" + podName, "SPILE_POD_IP=" + p.addr.String(), "SPILE_HOST_IP=" + hubAddr.Addr().String(),
			"OTEL_SERVICE_NAME=" + p.name,
			"OTEL_RESOURCE_ATTRIBUTES=k8s.namespace.name=shop,k8s.pod.name=" + podName,
			"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + netip.AddrPortFrom(hubAddr.Addr(), otlpPort).String(),
			"OTEL_BSP_SCHEDULE_DELAY=200",
			// By them the two spans of a request are told to be one connection's.
			"SPILE_OPT_IN_ATTRIBUTES=network.local.address,network.local.port",
		},
		capabilities: []uintptr{unix.CAP_NET_RAW, unix.CAP_BPF},
	})
}

// startApp starts the application of a pod: this program, again.
func (cl *cluster) startApp(p *pod) (*process, error) {
	c := command{name: p.name, path: "/proc/self/exe", args: []string{PodCommand, p.name}}
	for _, other := range cl.pods {
		c.args = append(c.args, other.name+"="+other.addr.String())
	}
	if isService(p.name) {
		port, err := strconv.ParseUint(shop.Port(p.name), 10, 16)
		if err != nil {
			return nil, err
		}
		l, err := listen(p.ns, netip.AddrPortFrom(p.addr, uint16(port)))
		if err != nil {
			return nil, fmt.Errorf("listening for %s: %w", p.name, err)
		}
		defer l.Close()
		file, err := l.File()
		if err != nil {
			return nil, fmt.Errorf("passing the listener to %s: %w", p.name, err)
		}
		defer file.Close()
		c.files = []*os.File{file}
	}
	return cl.launch(p, c)
}

func (cl *cluster) launch(p *pod, c command) (*process, error) {
	proc, err := start(p.ns, c)
	if err != nil {
		return nil, err
	}
	go func() {
		<-proc.done
		cl.ended <- proc
	}()
	return proc, nil
}

// awaitCapture waits until the sidecar says that it captures.
func (p *pod) awaitCapture(ctx context.Context) error {
	timeout := time.After(patience)
	for {
		log := p.sidecar.log.bytes()
		if _, ok := logged(log, "capturing"); ok {
			return nil
		}
		if e, ok := logged(log, "not capturing; the pod is not affected"); ok {
			return fmt.Errorf("%s does not capture: %s", p.sidecar.name, e.Error)
		}
		select {
		case <-p.sidecar.done:
			return p.sidecar.obituary()
		case <-timeout:
			return fmt.Errorf("%s does not capture; %s", p.sidecar.name, p.sidecar.logTail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the parts that have something to say, in order: the shopper, so that
// no request is cut off, then the sidecars, which export what they have.
func (cl *cluster) stop() (stats shop.Stats, accounts []account, err error) {
	last := cl.pods[len(cl.pods)-1]
	last.app.stop(patience)
	if json.Unmarshal(last.app.stdout.bytes(), &stats) != nil && !last.app.terminated() {
		err = fmt.Errorf("the shopper did not say what it did; %s", last.app.logTail())
	}
	for _, p := range cl.pods {
		if p.sidecar == nil {
			continue
		}
		p.sidecar.stop(patience)
		e, ok := logged(p.sidecar.log.bytes(), "accounts")
		if !ok {
			err = errors.Join(err, fmt.Errorf("%s gave no account at its end; %s", p.sidecar.name, p.sidecar.logTail()))
			continue
		}
		accounts = append(accounts, e.Spans)
	}
	return stats, accounts, err
}

// close ends whatever is left, and with it the namespaces.
func (cl *cluster) close() {
	for _, p := range cl.pods {
		for _, proc := range []*process{p.app, p.sidecar} {
			if proc != nil {
				proc.kill()
			}
		}
		if p.ns != nil {
			p.ns.Close()
		}
	}
	if cl.sink != nil {
		cl.sink.Close()
	}
	if cl.hub != nil {
		cl.hub.Close()
	}
}

// silent names the services that no span came from, with the ends of their
// sidecars' logs.
func (cl *cluster) silent(v *view) string {
	var b strings.Builder
	b.WriteString("spans came from: " + v.services())
	for _, p := range cl.pods {
		if p.sidecar != nil && !v.heard[p.name] {
			b.WriteString("\n  " + p.sidecar.name + ": " + p.sidecar.logTail())
		}
	}
	return b.String()
}
