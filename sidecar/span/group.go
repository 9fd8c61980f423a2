package span

import "strings"

// Bounds of a grouper. A route has at most maxGroupDepth segments, at a position
// stand at most maxGroupValues different ones, and there are maxGroupNodes in
// all; what exceeds a bound is grouped, or has no route.
const (
	maxGroupDepth   = 8
	maxGroupValues  = 20
	maxGroupNodes   = 4096
	maxGroupLiteral = 40 // bytes of a segment that is taken as it is
)

// grouper derives routes from paths. A segment that looks like data is replaced
// by a parameter, named for what it looks like; others are kept, so long as few
// stand at their position. Which ones those are depends on what came first.
type grouper struct {
	root  groupNode
	nodes int
}

// groupNode is a segment of the routes that go through it.
type groupNode struct {
	routeName
	children map[string]*groupNode
	literals int // children that are no parameters
}

func newGrouper() *grouper {
	return &grouper{root: groupNode{routeName: routeName{text: "/"}}}
}

// route returns the route of a path, nil if it has none. Only a path that the
// server is known to know adds to the routes: others are scanners' and typing
// errors, which would use the bounds up.
func (g *grouper) route(path string, known bool) *routeName {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil
	}
	node := &g.root
	for depth := 0; rest != ""; depth++ {
		var segment string
		if depth == maxGroupDepth {
			segment, rest = "*", ""
		} else {
			segment, rest, _ = strings.Cut(rest, "/")
			if segment == "" {
				continue
			}
			if p := parameterOf(segment); p != "" {
				segment = p
			}
		}
		if node = g.child(node, segment, known); node == nil {
			return nil
		}
	}
	return &node.routeName
}

// child returns the child of a node for a segment, {value} if there are too many.
func (g *grouper) child(n *groupNode, segment string, add bool) *groupNode {
	if c, ok := n.children[segment]; ok {
		return c
	}
	literal := segment[0] != '{' && segment != "*"
	if literal && n.literals >= maxGroupValues {
		segment, literal = parameterValue, false
		if c, ok := n.children[segment]; ok {
			return c
		}
	}
	if !add || g.nodes >= maxGroupNodes {
		return nil
	}
	if literal {
		n.literals++
	}
	g.nodes++
	if n.children == nil {
		n.children = make(map[string]*groupNode, 1)
	}
	segment = strings.Clone(segment)
	c := &groupNode{routeName: routeName{text: strings.TrimSuffix(n.text, "/") + "/" + segment}}
	n.children[segment] = c
	return c
}

// Parameters that stand for segments.
const (
	parameterNumber = "{number}"
	parameterUUID   = "{uuid}"
	parameterDate   = "{date}"
	parameterHash   = "{hash}"  // hexadecimal
	parameterToken  = "{token}" // long, and random by its looks
	parameterText   = "{text}"  // what people write
	parameterID     = "{id}"    // a word with a number in it
	parameterValue  = "{value}" // one of too many
)

// parameterOf returns the parameter that stands for a segment, "" for a segment
// that stands for itself.
func parameterOf(s string) string {
	letters, hexLetters, digits, run, longest, changes := 0, 0, 0, 0, 0, 0
	var last byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		class := byte(0)
		switch {
		case isDigit(c):
			class = 'd'
			digits++
			run++
			longest = max(longest, run)
		case isAlpha(c):
			class = c & 0x20 // of one case
			letters++
			if c|0x20 <= 'f' {
				hexLetters++
			}
		case c != '-' && c != '_' && c != '.' && c != '~':
			return parameterText // percent-encoded, or from a list of delimiters
		}
		if class != 'd' {
			run = 0
		}
		if i > 0 && class != last {
			changes++
		}
		last = class
	}
	marks := len(s) - letters - digits
	switch {
	case digits == len(s):
		return parameterNumber
	case letters == 0 && digits > 0 && isDate(s):
		return parameterDate
	case letters == 0 && digits > 0:
		return parameterNumber // 3.14, 10-20, -1
	case isUUID(s):
		return parameterUUID
	case marks == 0 && letters == hexLetters && len(s) >= 8 && (digits > 0 || len(s) >= 16):
		return parameterHash
	case len(s) > maxGroupLiteral,
		len(s) >= 16 && digits >= 2 && changes*4 >= len(s),
		len(s) >= 20 && marks == 0 && digits > 0 && changes*6 >= len(s),
		len(s) >= 20 && marks == 0 && changes*3 >= len(s):
		return parameterToken
	case longest >= 4, digits > letters:
		return parameterID
	}
	return ""
}

// isDate reports whether s begins as a date of the calendar: 2026-03 and on.
func isDate(s string) bool {
	if len(s) != len("2006-01") && len(s) != len("2006-01-02") {
		return false
	}
	for i := 0; i < len(s); i++ {
		if mark := i == 4 || i == 7; mark != (s[i] == '-' || s[i] == '.' || s[i] == '_') {
			return false
		}
	}
	return s[:2] == "19" || s[:2] == "20"
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case hexDigit(c|0x20) > 0xf && !isDigit(c):
			return false
		}
	}
	return true
}
