package supervisor

import "regexp"

// secrets are what no line of an agent's output keeps: it may have printed what it was
// given. This is a net for accidents. An agent that wants to write a secret down so
// that it is not seen can; it has none of the gateway's.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`[a-z0-9][a-z0-9-]{0,62}\.ses_[0-7][0-9A-HJKMNP-TV-Z]{25}\.[A-Za-z0-9_-]{20,}`), // our own tokens
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}`),
	regexp.MustCompile(`(?i)(\b[a-z0-9_.-]*(?:password|passwd|secret|api[_-]?key|access[_-]?key|token)["']?\s*[:=]\s*["']?)[^\s"',;]{4,}`),
	regexp.MustCompile(`\b(?:gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{16,}|A(?:KIA|SIA)[A-Z0-9]{16})\b`),
	regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`), // JWT
	regexp.MustCompile(`(://[^/\s:@]{1,256}:)[^/\s@]{1,256}@`),
	regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----.*`),
}

// Scrub takes what looks like a secret out of a line of output.
func Scrub(line []byte) []byte {
	for i, re := range secrets {
		with := "${1}[removed]"
		if i == 5 {
			with += "@"
		}
		line = re.ReplaceAll(line, []byte(with))
	}
	return line
}
