//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// apiServer takes requests without a kubectl for each: for tests that make thousands.
type apiServer struct {
	client *http.Client
	base   string
}

func newAPIServer(t *testing.T) apiServer {
	t.Helper()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return apiServer{client, strings.TrimSuffix(base.String(), "/")}
}

// errAnswer is the API server's refusal, unlike that of a connection.
var errAnswer = errors.New("refused")

// dryRunPod creates a pod, in JSON, as a dry run through the whole of admission.
// The error has the API server's message.
func (a apiServer) dryRunPod(namespace string, pod []byte) (made corev1.Pod, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base+"/api/v1/namespaces/"+namespace+"/pods?dryRun=All", bytes.NewReader(pod))
	if err != nil {
		return made, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return made, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return made, err
	}
	if resp.StatusCode != http.StatusCreated {
		var s metav1.Status
		if json.Unmarshal(data, &s) != nil {
			s.Message = string(data)
		}
		return made, fmt.Errorf("%w: status %d: %.500s", errAnswer, resp.StatusCode, s.Message)
	}
	return made, json.Unmarshal(data, &made)
}

// awaitNamespace waits until pods can be created: a namespace gets its service
// account, and its quotas are counted, a moment after it was made.
func (a apiServer) awaitNamespace(t *testing.T, namespace string) {
	t.Helper()
	pod := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"first-"},"spec":{"containers":[{"name":"app","image":"app:1"}]}}`)
	var err error
	for range 100 {
		_, err = a.dryRunPod(namespace, pod)
		if err == nil || !strings.Contains(err.Error(), "serviceaccount") && !strings.Contains(err.Error(), "status unknown for quota") {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatal(err)
}
