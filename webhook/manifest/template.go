package manifest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/spile-dev/spile/webhook"
)

// template is a pod, or the template of one, within a document.
type template struct {
	kind, namespace, name string   // of the object
	path                  []string // from the document's root
	value                 map[string]any
}

// templatePaths lead to the pod template in an object of a kind; the API group
// has no other of that name.
var templatePaths = map[string]struct {
	groups []string
	path   []string
}{
	"Pod":                   {[]string{""}, nil},
	"PodTemplate":           {[]string{""}, []string{"template"}},
	"ReplicationController": {[]string{""}, []string{"spec", "template"}},
	"Deployment":            {[]string{"apps", "extensions"}, []string{"spec", "template"}},
	"ReplicaSet":            {[]string{"apps", "extensions"}, []string{"spec", "template"}},
	"StatefulSet":           {[]string{"apps"}, []string{"spec", "template"}},
	"DaemonSet":             {[]string{"apps", "extensions"}, []string{"spec", "template"}},
	"Job":                   {[]string{"batch"}, []string{"spec", "template"}},
	"CronJob":               {[]string{"batch"}, []string{"spec", "jobTemplate", "spec", "template"}},
}

// templates finds the pods of an object, or of each object in a list.
func templates(v any, at []string) []template {
	object, _ := v.(map[string]any)
	kind, _ := object["kind"].(string)
	var all []template
	if items, ok := object["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		for i, item := range items {
			all = append(all, templates(item, append(slices.Clip(at), "items", strconv.Itoa(i)))...)
		}
		return all
	}
	known, ok := templatePaths[kind]
	if !ok || !slices.Contains(known.groups, group(object)) {
		return nil
	}
	metadata, _ := object["metadata"].(map[string]any)
	t := template{kind: kind, path: slices.Concat(at, known.path), value: object}
	t.namespace, _ = metadata["namespace"].(string)
	t.name, _ = metadata["name"].(string)
	for _, step := range known.path {
		t.value, _ = t.value[step].(map[string]any)
	}
	// Without a spec it is none; the API server will say so better than we can.
	if _, ok := t.value["spec"].(map[string]any); !ok {
		return nil
	}
	return []template{t}
}

func group(object map[string]any) string {
	version, _ := object["apiVersion"].(string)
	group, _, found := strings.Cut(version, "/")
	if !found {
		return ""
	}
	return group
}

// pod returns the template as the pod that the cluster's controllers make of
// it, as far as that is known beforehand: with its workload as the owner.
func (t template) pod() ([]byte, error) {
	metadata := map[string]any{}
	if m, ok := t.value["metadata"].(map[string]any); ok {
		for k, v := range m {
			metadata[k] = v
		}
	}
	if t.kind != "Pod" {
		delete(metadata, "name")
		if t.name != "" {
			metadata["ownerReferences"] = []any{map[string]any{"kind": t.kind, "name": t.name, "controller": true}}
		}
	}
	pod := map[string]any{"metadata": metadata, "spec": t.value["spec"]}
	raw, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encoding %s %s: %w", t.kind, t.name, err)
	}
	return raw, nil
}

// survey adds what the document says of namespaces, by which its own and other
// documents' pods are judged.
func (d *document) survey(places map[string]webhook.Place, namespace string) {
	objects := []any{d.value}
	if list, ok := d.value.(map[string]any); ok && list["kind"] == "List" {
		if items, ok := list["items"].([]any); ok {
			objects = items
		}
	}
	for _, o := range objects {
		object, _ := o.(map[string]any)
		if object["apiVersion"] != "v1" {
			continue
		}
		switch object["kind"] {
		case "Namespace":
			if ns, ok := as[corev1.Namespace](object); ok {
				p := places[ns.Name]
				p.Namespace = &ns
				places[ns.Name] = p
			}
		case "LimitRange":
			if l, ok := as[corev1.LimitRange](object); ok {
				name := cmp.Or(l.Namespace, namespace)
				p := places[name]
				p.LimitRanges = append(p.LimitRanges, l)
				places[name] = p
			}
		case "ResourceQuota":
			if q, ok := as[corev1.ResourceQuota](object); ok {
				name := cmp.Or(q.Namespace, namespace)
				p := places[name]
				p.ResourceQuotas = append(p.ResourceQuotas, q)
				places[name] = p
			}
		}
	}
}

// as reads an object as a T; what is none is for the API server to refuse.
func as[T any](object map[string]any) (v T, ok bool) {
	raw, err := json.Marshal(object)
	ok = err == nil && json.Unmarshal(raw, &v) == nil
	return v, ok
}
