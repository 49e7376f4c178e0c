// Package printable keeps what strangers wrote (agents, packs, files) from moving the
// cursor of whoever reads it on a terminal, from turning the order of its text, and from
// looking like more lines than it is.
package printable

import (
	"strings"
	"unicode"
)

// Rune says whether a character may be shown as it is. Controls (Unicode's category Cc),
// formats, such as those that turn the order of text (Cf), and separators of lines and
// paragraphs (Zl, Zp) may not.
func Rune(r rune) bool { return !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// Text has U+FFFD where s has a character that may not be shown and is not one of keep,
// and where s is not UTF-8.
func Text(s, keep string) string {
	return strings.Map(func(r rune) rune {
		if Rune(r) || strings.ContainsRune(keep, r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
