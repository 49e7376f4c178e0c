package supervisor

import (
	"bytes"
	"regexp"
	"slices"
)

// secrets are what no line of an agent's output keeps: it may have printed what it was
// given. This is a net for accidents. An agent that wants to write a secret down so
// that it is not seen can; it has none of the gateway's.
//
// Every line is looked at, so an agent must not make that dear: an expression is tried
// where one of its words, in small letters, is in the line at all.
var secrets = []struct {
	words []string
	form  *regexp.Regexp
	with  string
}{
	{[]string{".ses_"}, regexp.MustCompile(`[a-z0-9][a-z0-9-]{0,62}\.ses_[0-7][0-9A-HJKMNP-TV-Z]{25}\.[A-Za-z0-9_-]{20,}`), "[removed]"}, // our own tokens
	{[]string{"bearer", "basic"}, regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}`), "${1}[removed]"},
	{
		[]string{"password", "passwd", "secret", "key", "token"},
		regexp.MustCompile(`(?i)(\b[a-z0-9_.-]*(?:password|passwd|secret|api[_-]?key|access[_-]?key|token)["']?\s*[:=]\s*["']?)[^\s"',;]{4,}`), "${1}[removed]",
	},
	{
		[]string{"gho_", "ghp_", "ghr_", "ghs_", "ghu_", "xox", "sk-", "akia", "asia"},
		regexp.MustCompile(`\b(?:gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{16,}|A(?:KIA|SIA)[A-Z0-9]{16})\b`), "[removed]",
	},
	{[]string{"eyj"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`), "[removed]"}, // JWT
	{[]string{"://"}, regexp.MustCompile(`(://[^/\s:@]{1,256}:)[^/\s@]{1,256}@`), "${1}[removed]@"},
}

// A private key in a file (PEM, RFC 7468) begins with a line, ends with one, and its rest
// lies between. The longest of the usual kinds, RSA of 16,384 bits, has some 200 of them.
var (
	keyBegins = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----.*`)
	keyEnds   = regexp.MustCompile(`-----END [A-Z ]*PRIVATE KEY-----`)
	keyGoesOn = regexp.MustCompile(`^[^A-Za-z0-9]*(?:[A-Za-z0-9+/=]*|(?:Proc-Type|DEK-Info): .*)[^A-Za-z0-9]*$`)
)

const longestKey = 256

// Scrubber takes what looks like a secret out of the lines of one stream of output.
type Scrubber struct {
	key int // how many lines may still be of the key that began
}

// Line is the next line of the stream, as it may be kept.
func (s *Scrubber) Line(line []byte) []byte {
	if s.key > 0 {
		s.key--
		switch at := keyEnds.FindIndex(line); {
		case at != nil:
			s.key = 0
			return append([]byte("[removed]"), scrub(line[at[1]:])...)
		case keyGoesOn.Match(line):
			return []byte("[removed]")
		}
		s.key = 0
	}
	if at := keyBegins.FindIndex(line); at != nil {
		if !keyEnds.Match(line[at[0]:]) {
			s.key = longestKey
		}
		return slices.Concat(scrub(line[:at[0]]), []byte("[removed]"))
	}
	return scrub(line)
}

func scrub(line []byte) []byte {
	small := bytes.ToLower(line)
	for _, s := range secrets {
		if slices.ContainsFunc(s.words, func(w string) bool { return bytes.Contains(small, []byte(w)) }) {
			line = s.form.ReplaceAll(line, []byte(s.with))
		}
	}
	return line
}
