package console

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestFilter(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"plain text":                    {"hello\r\n\tworld\b", "hello\r\n\tworld\b"},
		"colours stay":                  {"\x1b[1;32mok\x1b[0m\x1b[m", "\x1b[1;32mok\x1b[0m\x1b[m"},
		"true colour stays":             {"\x1b[38:2:1:2:3mx", "\x1b[38:2:1:2:3mx"},
		"cursor movement goes":          {"a\x1b[2Jb\x1b[10;10Hc", "abc"},
		"private mode goes":             {"a\x1b[?1049hb", "ab"},
		"private SGR goes":              {"a\x1b[>4;2mb", "ab"},
		"title goes with its text":      {"a\x1b]0;evil title\x07b", "ab"},
		"OSC ended by ST":               {"a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"},
		"DCS goes":                      {"a\x1bP1$qm\x1b\\b", "ab"},
		"answerback goes":               {"a\x05b\x1bZc\x1b[cd", "abcd"},
		"charset choice goes":           {"a\x1b(0b", "ab"},
		"reset goes":                    {"a\x1bcb", "ab"},
		"controls go":                   {"a\x00\x07\x0e\x0f\x7fb", "ab"},
		"C1 in UTF-8 goes":              {"a\u009b31mb", "a31mb"},
		"C1 as raw byte is replaced":    {"a\x9b2Jb", "a\uFFFD2Jb"},
		"UTF-8 stays":                   {"Grüße ✓ 日本 🙂", "Grüße ✓ 日本 🙂"},
		"broken UTF-8 is replaced":      {"a\xc3(\xff", "a\uFFFD(\uFFFD"},
		"bidi override goes":            {"a\u202eb\u2066c", "abc"},
		"cancelled sequence":            {"a\x1b[31\x18mb", "amb"},
		"escape inside a colour":        {"a\x1b[3\x1b[31mb", "a\x1b[31mb"},
		"overlong colour goes":          {"a\x1b[" + string(bytes.Repeat([]byte("1;"), 100)) + "mb", "ab"},
		"endless string ends by itself": {"a\x1b]" + string(bytes.Repeat([]byte("x"), maxString+1)) + "b", "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			var f Filter
			if d := cmp.Diff(tc.want, string(f.Append(nil, []byte(tc.in)))); d != "" {
				t.Errorf("at once (-want +got):\n%s", d)
			}
			var bytewise Filter
			var got []byte
			for _, c := range []byte(tc.in) {
				got = bytewise.Append(got, []byte{c})
			}
			if d := cmp.Diff(tc.want, string(got)); d != "" {
				t.Errorf("byte by byte (-want +got):\n%s", d)
			}
		})
	}
}

// FuzzFilter holds the promise of Filter against any input: the output is valid
// UTF-8 and has no control but the allowed ones, no escape but whole colours, and
// does not depend on how the input was cut.
func FuzzFilter(f *testing.F) {
	f.Add([]byte("a\x1b[1;32mok\x1b[0m\r\n"), 3)
	f.Add([]byte("\x1b]0;t\x07\xc3\xa9\x1bP\x1b\\"), 1)
	f.Add([]byte("\xe2\x80\xae\xf0\x9f\x99"), 2)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var whole, parts Filter
		out := whole.Append(nil, in)
		if cut < 0 || cut > len(in) {
			cut = len(in) / 2
		}
		got := parts.Append(parts.Append(nil, in[:cut]), in[cut:])
		if !bytes.Equal(out, got) {
			t.Fatalf("cut at %d: %q, whole: %q", cut, got, out)
		}
		if !utf8.Valid(out) {
			t.Fatalf("not UTF-8: %q", out)
		}
		for rest := out; len(rest) > 0; {
			r, n := utf8.DecodeRune(rest)
			if r == 0x1b {
				n = colour(rest)
				if n == 0 {
					t.Fatalf("an escape sequence that is no colour: %q", rest)
				}
			} else if r < 0x20 && r != '\n' && r != '\r' && r != '\t' && r != '\b' || r >= 0x7f && r < 0xa0 || dangerous(r) {
				t.Fatalf("control %q got through: %q", r, out)
			}
			rest = rest[n:]
		}
	})
}

// colour is the length of the SGR sequence at the start of b, 0 if there is none.
func colour(b []byte) int {
	if len(b) < 3 || b[1] != '[' {
		return 0
	}
	for i, c := range b[2:] {
		switch {
		case c == 'm':
			return i + 3
		case c >= '0' && c <= '9', c == ';', c == ':':
		default:
			return 0
		}
	}
	return 0
}
