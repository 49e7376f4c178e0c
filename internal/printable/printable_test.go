package printable_test

import (
	"testing"
	"unicode/utf8"

	"github.com/writ-gateway/writ/internal/printable"
)

func TestText(t *testing.T) {
	for _, tc := range []struct{ name, text, keep, want string }{
		{"words", "a word — ü 語", "", "a word — ü 語"},
		{"an escape", "\x1b[2J", "", "�[2J"},
		{"an escape in one character", "\u009b31m", "", "�31m"},
		{"deletes", "a\b\x7f", "", "a��"},
		{"goes back", "a\rb", "", "a�b"},
		{"lines", "a\nb", "", "a�b"},
		{"lines that are kept", "a\n\tb\r", "\n\t", "a\n\tb�"},
		{"another line", "a\u2028b\u2029c\u0085d", "", "a�b�c�d"},
		{"turns its order", "\u202etxet\u2066", "", "�txet�"},
		{"not seen", "\u200b\ufeff\u00ad", "", "���"},
		{"no text", "\xff\xfe", "", "��"},
	} {
		if got := printable.Text(tc.text, tc.keep); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\u2028\x1b", "\n")
	f.Fuzz(func(t *testing.T, s, keep string) {
		if got := printable.Text(s, ""); !utf8.ValidString(got) || printable.Text(got, keep) != got {
			t.Errorf("%q is not text that may be shown", got)
		}
	})
}
