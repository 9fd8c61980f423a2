package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// splice replaces text[at:end].
type splice struct {
	at, end int
	text    string
	depth   int // of the block that the lines are put into; more is further in
}

// spliceYAML makes edits in YAML text: it parses the text for the positions of
// its nodes, and puts new lines between the old ones. What it does not
// understand gives errLayout; that the result is right is for the caller to check.
func spliceYAML(text []byte, edits []edit) ([]byte, error) {
	// YAML 1.1 counts more characters as the end of a line than editors do.
	if otherBreaks.Match(text) {
		return nil, errLayout
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) != 1 {
		return nil, errLayout
	}
	l := newLayout(text)
	var splices []splice
	for _, e := range edits {
		s, err := l.splice(root.Content[0], nil, e)
		if err != nil {
			return nil, err
		}
		splices = append(splices, s)
	}
	// Where an inner and an outer block end together, the inner one comes first.
	slices.SortStableFunc(splices, func(a, b splice) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.depth, a.depth))
	})
	var out bytes.Buffer
	at := 0
	for _, s := range splices {
		if s.at < at {
			return nil, errLayout
		}
		out.Write(text[at:s.at])
		out.WriteString(s.text)
		at = s.end
	}
	out.Write(text[at:])
	return out.Bytes(), nil
}

// layout is a text and its habits.
type layout struct {
	text    []byte
	lines   []int // offset of each line, and of the end
	newline string
	compact bool // "- " stands below the first letter of its key
}

func newLayout(text []byte) *layout {
	l := &layout{text: text, lines: []int{0}, newline: "\n"}
	for line := range bytes.Lines(text) {
		l.lines = append(l.lines, l.lines[len(l.lines)-1]+len(line))
	}
	if bytes.Contains(text, []byte("\r\n")) {
		l.newline = "\r\n"
	}
	// The first sequence below a key shows how the others are.
	if m := keyThenItem.FindSubmatch(text); m != nil {
		l.compact = len(m[1]) == len(m[2])
	}
	return l
}

var otherBreaks = regexp.MustCompile(`\r[^\n]|\r$|[\x{85}\x{2028}\x{2029}\x{FEFF}]`)

var keyThenItem = regexp.MustCompile(`(?m)^( *)\w+:[ \t]*\r?\n( *)- `)

// offset of a node's first byte. Columns count characters.
func (l *layout) offset(n *yaml.Node) int {
	at := l.lines[n.Line-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(l.text[at:])
		at += size
	}
	return at
}

// splice for one edit below n, whose key is key if n is the value of a member.
func (l *layout) splice(n, key *yaml.Node, e edit) (splice, error) {
	switch {
	case len(e.path) == 0:
		return l.replace(n, key, e)
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return l.replace(n, key, e)
	case n.Kind == yaml.MappingNode:
		for i := len(n.Content) - 2; i >= 0; i -= 2 {
			if n.Content[i].Value == e.path[0] && n.Content[i].Kind == yaml.ScalarNode {
				return l.splice(n.Content[i+1], n.Content[i], edit{path: e.path[1:], json: e.json, tree: e.tree})
			}
		}
		return l.insert(n, nest(e), '}')
	case n.Kind == yaml.SequenceNode && e.path[0] == "-":
		return l.insert(n, e, ']')
	case n.Kind == yaml.SequenceNode:
		if i, err := strconv.Atoi(e.path[0]); err == nil && i < len(n.Content) {
			return l.splice(n.Content[i], nil, edit{path: e.path[1:], json: e.json, tree: e.tree})
		}
	}
	return splice{}, errLayout
}

// nest makes the objects and arrays between the first step of e's path and its value.
func nest(e edit) edit {
	for i := len(e.path) - 1; i > 0; i-- {
		if e.path[i] == "-" {
			e.json = fmt.Appendf(nil, "[%s]", e.json)
			continue
		}
		name, _ := json.Marshal(e.path[i]) // a string never fails
		e.json = fmt.Appendf(nil, "{%s:%s}", name, e.json)
	}
	e.path = e.path[:1]
	return e
}

// replace puts a value in the place of a scalar that stands on one line, or of nothing.
func (l *layout) replace(n, key *yaml.Node, e edit) (splice, error) {
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0 || n.Anchor != "" || key == nil {
		return splice{}, errLayout
	}
	value := nest(edit{path: append([]string{""}, e.path...), json: e.json}).json
	if n.Value == "" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		at := l.offset(key)
		colon := bytes.IndexByte(l.text[at:l.lines[key.Line]], ':')
		if colon < 0 {
			return splice{}, errLayout
		}
		at += colon + 1
		return splice{at: at, end: at, text: " " + string(value)}, nil
	}
	at := l.offset(n)
	end := at + len(n.Value)
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		end = skipQuoted(l.text, at)
	}
	if end < 0 || end > l.lines[n.Line] {
		return splice{}, errLayout
	}
	return splice{at: at, end: end, text: string(value)}, nil
}

// insert adds a member or an item at the end of a collection.
func (l *layout) insert(n *yaml.Node, e edit, closing byte) (splice, error) {
	if n.Style&yaml.FlowStyle != 0 {
		return l.insertFlow(n, e, closing)
	}
	if len(n.Content) == 0 {
		return splice{}, errLayout
	}
	indent := n.Column - 1
	end := l.blockEnd(n.Content[0].Line, n.Content[len(n.Content)-1].Line, indent)
	node, err := l.block(e)
	if err != nil {
		return splice{}, err
	}
	var b strings.Builder
	if end > 0 && l.text[end-1] != '\n' {
		b.WriteString(l.newline)
	}
	for line := range strings.Lines(node) {
		b.WriteString(strings.Repeat(" ", indent) + strings.TrimSuffix(line, "\n") + l.newline)
	}
	text := b.String()
	if end == len(l.text) && end > 0 && l.text[end-1] != '\n' {
		text = strings.TrimSuffix(text, l.newline)
	}
	// The items of a compact sequence have the indent of the key they belong to.
	depth := 2 * indent
	if n.Kind == yaml.SequenceNode {
		depth++
	}
	return splice{end, end, text, depth}, nil
}

// blockEnd is the offset behind the last line of a block collection that is
// indented by indent and whose last child begins on line last (counted from 1).
func (l *layout) blockEnd(first, last, indent int) int {
	item := strings.HasPrefix(strings.TrimLeft(l.line(first), " "), "- ") && l.indentOf(first) == indent
	end := l.lines[last]
	for i := last + 1; i < len(l.lines); i++ {
		line := strings.TrimSpace(l.line(i))
		if line == "" {
			continue
		}
		deeper := l.indentOf(i) > indent
		// A sequence may be indented no more than the key it belongs to.
		child := l.indentOf(i) == indent && !item && (line == "-" || strings.HasPrefix(line, "- "))
		if !deeper && !child {
			break
		}
		end = l.lines[i]
	}
	return end
}

// line i, counted from 1.
func (l *layout) line(i int) string { return string(l.text[l.lines[i-1]:l.lines[i]]) }

func (l *layout) indentOf(i int) int {
	line := l.line(i)
	return len(line) - len(strings.TrimLeft(line, " "))
}

// insertFlow adds JSON, which is YAML's flow style, before the closing bracket.
func (l *layout) insertFlow(n *yaml.Node, e edit, closing byte) (splice, error) {
	end, at := bracketEnd(l.text, l.offset(n))
	if end < 0 || l.text[end] != closing {
		return splice{}, errLayout
	}
	text := string(e.json)
	if e.path[0] != "-" {
		name, err := json.Marshal(e.path[0])
		if err != nil {
			return splice{}, fmt.Errorf("encoding %q: %w", e.path[0], err)
		}
		text = string(name) + ": " + text
	}
	switch {
	case len(n.Content) == 0:
	case l.text[at-1] == ',':
		text = " " + text
	default:
		text = ", " + text
	}
	return splice{at: at, end: at, text: text}, nil
}

// block renders a member or an item in block style, not indented, as the text
// renders its own.
func (l *layout) block(e edit) (string, error) {
	var value yaml.Node
	if err := yaml.Unmarshal(e.json, &value); err != nil {
		return "", fmt.Errorf("parsing %s: %w", e.json, err)
	}
	plain(&value)
	outer := &yaml.Node{Kind: yaml.SequenceNode, Content: value.Content}
	if e.path[0] != "-" {
		name := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e.path[0]}
		outer = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{name, value.Content[0]}}
	}
	var b strings.Builder
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if l.compact {
		encoder.CompactSeqIndent()
	}
	if err := encoder.Encode(outer); err != nil {
		return "", fmt.Errorf("encoding YAML: %w", err)
	}
	return b.String(), encoder.Close()
}

// unquoted strings mean the same in YAML 1.1, 1.2 and to a hurried reader.
var unquoted = regexp.MustCompile(`^([A-Za-z/]([A-Za-z0-9._/:=,@$()-]*[A-Za-z0-9_/)])?|[0-9]+(m|[KMGT]i))$`)

var booleans = regexp.MustCompile(`^(?i:y|yes|n|no|on|off|true|false|null)$`)

// plain makes JSON's style that of people.
func plain(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style = 0
	} else if n.ShortTag() == "!!str" && unquoted.MatchString(n.Value) && !booleans.MatchString(n.Value) {
		n.Style = 0
	}
	for _, c := range n.Content {
		plain(c)
	}
}
