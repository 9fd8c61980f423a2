package tty

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct {
		name, in string
		limit    int
		want     string
	}{
		{"plain", "/items?q=1", 20, "/items?q=1"},
		{"terminal escape", "/\x1b[2J\x1b]0;title\x07", 60, `/\x1b[2J\x1b]0;title\x07`},
		{"C1 control", "a\x9bb", 20, `a\x9bb`},
		{"UTF-8", "/é", 20, `/\xc3\xa9`},
		{"space and newline", "a b\nc", 20, `a\x20b\x0ac`},
		{"backslash", `a\x20`, 20, `a\x5cx20`},
		{"exact fit", "12345", 5, "12345"},
		{"too long", "123456", 5, "1234…"},
		{"not inside an escape", "12\x00\x00", 5, "12…"},
		{"escape fits", "1\x00", 5, `1\x00`},
		{"escape and no room", "1\x00\x00", 5, "1…"},
		{"escape and just room", "1\x00\x00", 6, `1\x00…`},
		{"nothing fits", "\x00\x00", 2, "…"},
		{"empty", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Escape(c.in, c.limit); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("/\x1b[31m\\", 4)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = 1 + max(limit, -limit)&0xff
		got := Escape(s, limit)
		if n := utf8.RuneCountInString(got); n > limit {
			t.Errorf("%q has %d columns, limit %d", got, n, limit)
		}
		for i, r := range got {
			if r == '…' && i == len(got)-len("…") {
				continue
			}
			if r <= ' ' || r >= 0x7f {
				t.Errorf("%q has %q", got, r)
			}
		}
	})
}

func TestPaint(t *testing.T) {
	if got := (Palette{}).Paint(Red, "500"); got != "500" {
		t.Errorf("without colour: %q", got)
	}
	if got := (Palette{On: true}).Paint(Red, "500"); got != "\x1b[31m500\x1b[0m" {
		t.Errorf("with colour: %q", got)
	}
}

func FuzzEscapeJSON(f *testing.F) {
	f.Add("\x7f\u009b\u202e\U000e0041é\xff\n\"<")
	f.Fuzz(func(t *testing.T, s string) {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		escaped := EscapeJSON(text)
		if bytes.IndexFunc(escaped, obeyed) >= 0 {
			t.Errorf("%q is left in %q", s, escaped)
		}
		var want, got string
		if err := errors.Join(json.Unmarshal(text, &want), json.Unmarshal(escaped, &got)); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%q becomes %q", want, got)
		}
	})
}
