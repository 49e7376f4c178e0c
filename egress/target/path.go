package target

import "strings"

// ParseRequest reads what stands behind the host of a URL: path and query. No path
// is "/". The query is the caller's own affair as long as it is one.
func ParseRequest(s string) (path, query string, err error) {
	path, query, _ = strings.Cut(s, "?")
	if path == "" {
		path = "/"
	}
	if !ValidPath(path) || !validQuery(query) || len(s) > maxURL {
		return "", "", ErrSpelling
	}
	return path, query, nil
}

// ValidPath says whether an escaped path is in a spelling that every server reads
// alike: it begins with a slash, no part of it is empty (but the last), "." or "..",
// nothing that needs no escape has one, and nothing is escaped that would become a
// separator, a dot, a backslash or a control character.
func ValidPath(path string) bool {
	if path == "" || path[0] != '/' || len(path) > maxURL {
		return false
	}
	if !escapes(path, plainPath, func(b byte) bool {
		return b < 0x20 || b == 0x7f || b == '/' || b == '\\' || b == '.' || b == ';' || plainName(b)
	}) {
		return false
	}
	parts := strings.Split(path[1:], "/")
	for i, part := range parts {
		name, _, _ := strings.Cut(part, ";") // some servers take parameters off before they look for dots
		if name == "." || name == ".." || name == "" && (i < len(parts)-1 || part != "") {
			return false
		}
	}
	return true
}

func validQuery(q string) bool {
	return escapes(q, func(b byte) bool { return plainPath(b) || b == '/' || b == '?' }, func(b byte) bool { return b == 0 || b == '\r' || b == '\n' })
}

// escapes says whether a text has plain characters only and escapes of others that
// are not forbidden.
func escapes(s string, plain, forbidden func(byte) bool) bool {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%':
			if i+2 >= len(s) {
				return false
			}
			hi, ok1 := unhex(s[i+1])
			lo, ok2 := unhex(s[i+2])
			if !ok1 || !ok2 || forbidden(hi<<4|lo) {
				return false
			}
			i += 2
		case !plain(s[i]):
			return false
		}
	}
	return true
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// plainName are the unreserved characters of RFC 3986.
func plainName(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("-._~", b) >= 0
}

// plainPath are the characters a path may have as they are.
func plainPath(b byte) bool { return plainName(b) || strings.IndexByte("/!$&'()*+,;=:@", b) >= 0 }

// Under says whether a path is a prefix, or lies below it: /v1 takes /v1 and /v1/x,
// and not /v10. A prefix with a slash at its end takes what lies below it only.
func Under(path, prefix string) bool {
	if prefix == "" || prefix == "/" {
		return true
	}
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/"))
}
