// Package tty is what the tables and drawings of the CLI need to know of a
// terminal: whether there is one, colours, and text that is safe to show.
package tty

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"
)

// IsTerminal tells whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// A Palette colours text, or leaves it alone if it is not On.
type Palette struct{ On bool }

// NewPalette returns a palette that colours if w is a terminal that can, and
// the user did not set NO_COLOR (no-color.org).
func NewPalette(w io.Writer, getenv func(string) string) Palette {
	return Palette{On: IsTerminal(w) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
}

// Style is a parameter of the control sequence SGR (ECMA-48, section 8.3.117).
type Style string

// The styles in use.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Blue   Style = "34"
	Cyan   Style = "36"
)

// Paint returns s in a style.
func (p Palette) Paint(style Style, s string) string {
	if !p.On || style == Plain || s == "" {
		return s
	}
	return "\x1b[" + string(style) + "m" + s + "\x1b[0m"
}

// Status returns the style of an HTTP status code, 0 if there was no response.
func Status(code int) Style {
	switch {
	case code == 0 || code >= 500:
		return Red
	case code >= 400:
		return Yellow
	case code >= 300:
		return Cyan
	}
	return Green
}

// Escape makes a string that came from the network safe to show as one word of
// at most limit columns, whatever bytes it has: all but visible ASCII is
// written as \xNN, and what is too long ends in an ellipsis.
func Escape(s string, limit int) string { return escape(s, limit, '!') }

// EscapeText is Escape for text of several words: spaces stay.
func EscapeText(s string, limit int) string { return escape(s, limit, ' ') }

func escape(s string, limit int, lowest byte) string {
	const hex = "0123456789abcdef"
	// The backslash is escaped, so that an escape cannot be mistaken.
	asItself := func(c byte) bool { return c >= lowest && c < 0x7f && c != '\\' }
	clean := len(s) <= limit
	for i := 0; clean && i < len(s); i++ {
		clean = asItself(s[i])
	}
	if clean {
		return s
	}
	var b strings.Builder
	cut := 0 // where to cut so that an ellipsis has room
	for i := 0; i < len(s); i++ {
		word := s[i : i+1]
		if !asItself(s[i]) {
			word = `\x` + string(hex[s[i]>>4]) + string(hex[s[i]&15])
		}
		if b.Len()+len(word) > limit {
			return b.String()[:cut] + "…"
		}
		b.WriteString(word)
		if b.Len() < limit {
			cut = b.Len()
		}
	}
	return b.String()
}

// EscapeJSON makes JSON text, which has no control characters of ASCII but
// perhaps DEL, safe to show: of what is not ASCII, control and format characters
// (which a terminal may obey, or which reorder text) are written as \uNNNN.
func EscapeJSON(text []byte) []byte {
	if bytes.IndexFunc(text, obeyed) < 0 {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		switch {
		case !obeyed(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// obeyed tells of a character that it is no text to a terminal. The line feed
// is, which ends a line of JSON.
func obeyed(r rune) bool {
	return r >= 0x7f && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r))
}
