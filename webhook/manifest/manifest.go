// Package manifest injects the sidecar into files of Kubernetes objects, as
// people keep them: YAML of one or several documents, or JSON. It decides by
// [webhook.Inject], so that a file gets what the cluster would have given, and
// edits the text, so that whatever is not added stays as it was written.
package manifest

import (
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spile-dev/spile/webhook"
)

// Options for a file.
type Options struct {
	// Sidecar to inject.
	Sidecar webhook.Config
	// Namespace of objects that name none.
	Namespace string
}

// Result is what became of one pod or pod template.
type Result struct {
	// Kind, Namespace and Name of the object, the name may be empty.
	Kind, Namespace, Name string
	webhook.Decision
	// Reformatted reports that the object's document could not be edited in
	// place and lost its comments and layout.
	Reformatted bool
}

// Inject returns in with the sidecar added to every pod and every pod template
// of the workloads of Kubernetes, and a result for each of them. A namespace
// counts as annotated spile.dev/inject=enabled unless in holds that Namespace
// and says otherwise: who gives a file asks for it. Documents without such an
// object are returned as they are, byte for byte, and a second round changes
// nothing. The error names the document that is not YAML or JSON.
func Inject(in []byte, o Options) (out []byte, results []Result, err error) {
	docs := split(in)
	places := map[string]webhook.Place{}
	for i := range docs {
		if err := docs[i].parse(); err != nil {
			return nil, nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		docs[i].survey(places, o.Namespace)
	}
	for i := range docs {
		changed, r, err := docs[i].inject(places, o)
		if err != nil {
			return nil, nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		out = append(append(out, docs[i].before...), changed...)
		results = append(results, r...)
	}
	return out, results, nil
}

// inject returns the document's new text.
func (d *document) inject(places map[string]webhook.Place, o Options) ([]byte, []Result, error) {
	var results []Result
	var edits []edit
	for _, t := range templates(d.value, nil) {
		name := t.namespace
		if name == "" {
			name = o.Namespace
		}
		raw, err := t.pod()
		if err != nil {
			return nil, nil, err
		}
		decision, ops, err := webhook.Inject(raw, asked(places[name], name), o.Sidecar)
		if err != nil {
			return nil, nil, fmt.Errorf("%s %s: %w", t.kind, t.name, err)
		}
		results = append(results, Result{Kind: t.kind, Namespace: name, Name: t.name, Decision: decision})
		for _, op := range ops {
			e, err := newEdit(t.path, op)
			if err != nil {
				return nil, nil, err
			}
			edits = append(edits, e)
		}
	}
	if len(edits) == 0 {
		return d.text, results, nil
	}
	text, err := d.apply(edits)
	if errors.Is(err, errLayout) {
		text, err = d.reformat()
		for i := range results {
			results[i].Reformatted = true
		}
	}
	return text, results, err
}

// asked is a place that opts in, unless p says something else.
func asked(p webhook.Place, name string) webhook.Place {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	ns.Annotations = map[string]string{webhook.AnnotationInject: "enabled"}
	if p.Namespace != nil {
		ns.Labels = p.Namespace.Labels
		maps.Copy(ns.Annotations, p.Namespace.Annotations)
	}
	p.Namespace = ns
	return p
}
