package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/spile-dev/spile/webhook"
)

// errLayout: the text cannot be edited in place.
var errLayout = errors.New("layout not understood")

// document of a stream. Its text and what stands before it, such as "---", are
// the stream's bytes.
type document struct {
	before, text []byte
	json         bool
	value        any // as the API server would understand it, numbers as json.Number
}

// split cuts a stream into documents, as kubectl does: JSON values one after
// another if the first is an object, YAML documents at lines of "---" else.
func split(in []byte) []document {
	if bytes.HasPrefix(bytes.TrimSpace(in), []byte("{")) {
		if docs := splitJSON(in); docs != nil {
			return docs
		}
	}
	var docs []document
	d := document{}
	for line := range bytes.Lines(in) {
		rest, marker := bytes.CutPrefix(line, []byte("---"))
		if marker && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n")) {
			docs = append(docs, d)
			d = document{before: line[:3:3], text: slices.Clone(rest)}
			continue
		}
		d.text = append(d.text, line...)
	}
	return append(docs, d)
}

// splitJSON returns nil if in is not a stream of JSON values.
func splitJSON(in []byte) (docs []document) {
	decoder := json.NewDecoder(bytes.NewReader(in))
	for end := int64(0); ; {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return append(docs, document{text: in[end:], json: true})
		}
		if err != nil {
			return nil
		}
		start := decoder.InputOffset() - int64(len(raw))
		docs = append(docs, document{before: in[end:start], text: raw, json: true})
		end = decoder.InputOffset()
	}
}

func (d *document) parse() (err error) {
	d.value, err = d.decode(d.text)
	return err
}

// decode reads text as kubectl does.
func (d *document) decode(text []byte) (v any, err error) {
	if !d.json {
		if text, err = yaml.YAMLToJSONStrict(text); err != nil {
			return nil, fmt.Errorf("parsing YAML: %w", err)
		}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return nil, fmt.Errorf("parsing JSON: %w", err)
	}
	return v, nil
}

// edit adds a value: a member of an object, or an item at the end of an array
// if the last step of its path is "-".
type edit struct {
	path []string
	json []byte
	tree any // what json means
}

func newEdit(at []string, op webhook.Operation) (edit, error) {
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	e := edit{path: slices.Clone(at)}
	for step := range strings.SplitSeq(strings.TrimPrefix(op.Path, "/"), "/") {
		e.path = append(e.path, unescape.Replace(step))
	}
	var err error
	if e.json, err = json.Marshal(op.Value); err != nil {
		return e, fmt.Errorf("encoding %s: %w", op.Path, err)
	}
	e.tree, err = (&document{json: true}).decode(e.json)
	return e, err
}

// apply returns the text with edits made in place. It fails with errLayout if
// the result does not mean exactly what it should.
func (d *document) apply(edits []edit) ([]byte, error) {
	for _, e := range edits {
		d.value = add(d.value, e.path, e.tree)
	}
	var text []byte
	var err error
	if d.json {
		text, err = spliceJSON(d.text, edits)
	} else {
		text, err = spliceYAML(d.text, edits)
	}
	if err != nil {
		return nil, err
	}
	if got, err := d.decode(text); err != nil || !reflect.DeepEqual(got, d.value) {
		return nil, errLayout
	}
	return text, nil
}

// reformat writes the document anew, from its value.
func (d *document) reformat() ([]byte, error) {
	text, err := json.Marshal(d.value)
	if err != nil || d.json {
		return text, err
	}
	if text, err = yaml.JSONToYAML(text); err != nil {
		return nil, fmt.Errorf("encoding YAML: %w", err)
	}
	if len(d.before) > 0 {
		text = append([]byte("\n"), text...)
	}
	return text, nil
}

// add returns v with a value added at path; objects and arrays that are missing
// or null on the way are made.
func add(v any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	if path[0] == "-" {
		array, _ := v.([]any)
		return append(array, value)
	}
	if array, ok := v.([]any); ok {
		if i, err := strconv.Atoi(path[0]); err == nil && i < len(array) {
			array[i] = add(array[i], path[1:], value)
		}
		return array
	}
	object, ok := v.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	object[path[0]] = add(object[path[0]], path[1:], value)
	return object
}
