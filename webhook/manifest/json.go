package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// spliceJSON makes edits in JSON text. Members keep their order, numbers their
// spelling; text of several lines is indented as its first indented line is.
func spliceJSON(text []byte, edits []edit) (out []byte, err error) {
	out = text
	for _, e := range edits {
		if out, err = addJSON(out, e.path, e.json); err != nil {
			return nil, err
		}
	}
	indent := indentation(text)
	if indent == "" {
		return out, nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, out, "", indent); err != nil {
		return nil, fmt.Errorf("indenting: %w", err)
	}
	return b.Bytes(), nil
}

// indentation of the first indented line; none if there is no such line.
func indentation(text []byte) string {
	for line := range bytes.Lines(text) {
		rest := bytes.TrimLeft(line, " \t")
		if len(rest) < len(line) && len(bytes.TrimSpace(rest)) > 0 {
			return string(line[:len(line)-len(rest)])
		}
	}
	return ""
}

func addJSON(text []byte, path []string, value []byte) ([]byte, error) {
	if len(path) == 0 {
		return value, nil
	}
	m, err := membersOf(text)
	if err != nil {
		return nil, err
	}
	if m == nil { // missing or null
		m = &members{array: path[0] == "-"}
	}
	i := m.index(path[0])
	if i == len(m.values) {
		m.names, m.values = append(m.names, path[0]), append(m.values, nil)
	}
	if m.values[i], err = addJSON(m.values[i], path[1:], value); err != nil {
		return nil, err
	}
	return m.encode()
}

// members of an object in their order, or items of an array.
type members struct {
	array  bool
	names  []string
	values []json.RawMessage
}

// membersOf returns nil if text is neither an object nor an array.
func membersOf(text []byte) (*members, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	open, err := decoder.Token()
	if err != nil {
		return nil, fmt.Errorf("parsing JSON: %w", err)
	}
	if open != json.Delim('{') && open != json.Delim('[') {
		return nil, nil
	}
	m := &members{array: open == json.Delim('[')}
	for decoder.More() {
		name := ""
		if !m.array {
			token, err := decoder.Token()
			if err != nil {
				return nil, fmt.Errorf("parsing JSON: %w", err)
			}
			name, _ = token.(string) // between members nothing else is a token
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, fmt.Errorf("parsing JSON: %w", err)
		}
		m.names, m.values = append(m.names, name), append(m.values, value)
	}
	return m, nil
}

// index of a step of a path: of several members of one name the last counts.
func (m *members) index(step string) int {
	if m.array {
		if i, err := strconv.Atoi(step); err == nil && i < len(m.values) {
			return i
		}
		return len(m.values)
	}
	for i := len(m.names) - 1; i >= 0; i-- {
		if m.names[i] == step {
			return i
		}
	}
	return len(m.names)
}

func (m *members) encode() ([]byte, error) {
	var b bytes.Buffer
	open, end := byte('{'), byte('}')
	if m.array {
		open, end = '[', ']'
	}
	b.WriteByte(open)
	for i, value := range m.values {
		if i > 0 {
			b.WriteByte(',')
		}
		if !m.array {
			name, err := json.Marshal(m.names[i])
			if err != nil {
				return nil, fmt.Errorf("encoding %q: %w", m.names[i], err)
			}
			b.Write(name)
			b.WriteByte(':')
		}
		b.Write(value)
	}
	b.WriteByte(end)
	return b.Bytes(), nil
}
