package manifest

import "bytes"

// bracketEnd is the offset of the bracket that closes the one at text[at], or
// -1, and the offset behind what comes last before it but space and comments.
func bracketEnd(text []byte, at int) (end, last int) {
	if at >= len(text) || text[at] != '{' && text[at] != '[' {
		return -1, -1
	}
	depth := 0
	for i := at; i < len(text); i++ {
		switch c := text[i]; c {
		case ' ', '\t', '\r', '\n':
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i, last
			}
		case '"', '\'':
			// Within a plain scalar a quote is a letter.
			if bytes.IndexByte([]byte(" \t\r\n{[,:"), text[i-1]) < 0 {
				break
			}
			end := skipQuoted(text, i)
			if end < 0 {
				return -1, -1
			}
			i = end - 1
		case '#':
			if bytes.IndexByte([]byte(" \t\r\n"), text[i-1]) < 0 {
				break
			}
			end := bytes.IndexByte(text[i:], '\n')
			if end < 0 {
				return -1, -1
			}
			i += end
			continue
		}
		last = i + 1
	}
	return -1, -1
}

// skipQuoted is the offset behind the quoted scalar that begins at text[at], or -1.
func skipQuoted(text []byte, at int) int {
	if at >= len(text) {
		return -1
	}
	quote := text[at]
	for i := at + 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i + 1
		}
	}
	return -1
}
