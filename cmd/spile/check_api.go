package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxAnswer bounds an answer of the API server, in bytes; lists are paged.
const maxAnswer = 32 << 20

// api is a cluster's API server, by plain HTTP: a typed client would more than
// double the size of the program.
type api struct {
	client *http.Client
	base   string
}

// refusal is an answer that is no success.
type refusal struct {
	code    int
	message string
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (%d)", r.message, r.code) }

// call sends body, if it is not nil, as JSON and decodes the answer into out.
func (a api) call(ctx context.Context, method, path string, body, out any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encoding a request: %w", err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(a.base, "/")+path, content)
	if err != nil {
		return fmt.Errorf("addressing the API server: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the API server: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the API server's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var s metav1.Status
		if json.Unmarshal(data, &s) != nil || s.Message == "" {
			s.Message = resp.Status
		}
		return &refusal{resp.StatusCode, s.Message}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("parsing the API server's answer: %w", err)
	}
	return nil
}

func (a api) get(ctx context.Context, path string, out any) error {
	return a.call(ctx, http.MethodGet, path, nil, out)
}

// list gets all items of a resource, page by page.
func list[T any](ctx context.Context, a api, path string) ([]T, error) {
	var all []T
	next := ""
	for {
		var page struct {
			metav1.ListMeta `json:"metadata"`
			Items           []T `json:"items"`
		}
		query := url.Values{"limit": {"500"}}
		if next != "" {
			query.Set("continue", next)
		}
		if err := a.get(ctx, path+"?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if next = page.Continue; next == "" {
			return all, nil
		}
	}
}
