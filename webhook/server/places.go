package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/spile-dev/spile/webhook"
)

// patience with the API server while a pod waits to be admitted: well within
// the timeout of the webhook, so that the pod's creator is told why.
const patience = 500 * time.Millisecond

// places tells of namespaces what decides about injection, from a watch.
type places struct {
	cache  cache.Cache
	live   client.Reader
	minor  int
	synced []func() bool
}

// newPlaces watches the metadata of all namespaces, LimitRanges and ResourceQuotas.
func newPlaces(ctx context.Context, mgr manager.Manager, minor int) (*places, error) {
	p := &places{cache: mgr.GetCache(), live: mgr.GetAPIReader(), minor: minor}
	for _, o := range []client.Object{emptyNamespace(), &corev1.LimitRange{}, &corev1.ResourceQuota{}} {
		informer, err := p.cache.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watching namespaces and their limits: %w", err)
		}
		p.synced = append(p.synced, informer.HasSynced)
	}
	return p, nil
}

func emptyNamespace() *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return m
}

// at returns the place that a namespace is. A namespace that the watch does not
// know yet, having been created this moment, is asked for.
func (p *places) at(ctx context.Context, name string) (webhook.Place, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, key := emptyNamespace(), types.NamespacedName{Name: name}
	err := p.cache.Get(ctx, key, m)
	if apierrors.IsNotFound(err) {
		m = emptyNamespace()
		err = p.live.Get(ctx, key, m)
	}
	if err != nil {
		return webhook.Place{}, fmt.Errorf("reading namespace %s: %w", name, err)
	}
	var ranges corev1.LimitRangeList
	if err := p.cache.List(ctx, &ranges, client.InNamespace(name), client.UnsafeDisableDeepCopy); err != nil {
		return webhook.Place{}, fmt.Errorf("reading limit ranges of namespace %s: %w", name, err)
	}
	var quotas corev1.ResourceQuotaList
	if err := p.cache.List(ctx, &quotas, client.InNamespace(name), client.UnsafeDisableDeepCopy); err != nil {
		return webhook.Place{}, fmt.Errorf("reading resource quotas of namespace %s: %w", name, err)
	}
	return webhook.Place{
		Namespace:      &corev1.Namespace{ObjectMeta: m.ObjectMeta},
		LimitRanges:    ranges.Items,
		ResourceQuotas: quotas.Items,
		Minor:          p.minor,
	}, nil
}

// ready fails until everything has been listed: until then pods would wait.
func (p *places) ready(*http.Request) error {
	for _, synced := range p.synced {
		if !synced() {
			return errors.New("namespaces, limit ranges and resource quotas are not listed yet")
		}
	}
	return nil
}

// minorVersion of the cluster's Kubernetes 1.
func minorVersion(cluster *rest.Config) (int, error) {
	d, err := discovery.NewDiscoveryClientForConfig(cluster)
	if err != nil {
		return 0, fmt.Errorf("asking the API server for its version: %w", err)
	}
	v, err := d.ServerVersion()
	if err != nil {
		return 0, fmt.Errorf("asking the API server for its version: %w", err)
	}
	// Some distributions append a plus sign.
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	if err != nil {
		return 0, fmt.Errorf("the API server's minor version is %q: %w", v.Minor, err)
	}
	return minor, nil
}
