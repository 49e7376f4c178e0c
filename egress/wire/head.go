package wire

import (
	"bytes"
	"strconv"
	"strings"
)

const maxHeaders = 100

// plausible says whether bytes can be the beginning of a head: what cannot is
// refused before more of it comes.
func plausible(b []byte) bool {
	for i, c := range b {
		switch {
		case c == '\n' && (i == 0 || b[i-1] != '\r'), c == '\r' && i+1 < len(b) && b[i+1] != '\n':
			return false
		case i == 0 && (c < 'A' || c > 'Z'):
			return false
		}
	}
	return true
}

// readHead reads a head, each line with its CRLF, and says what follows it.
func readHead(b []byte) (next state, left int64, ok bool) {
	if !plausible(b) {
		return 0, 0, false
	}
	lines := bytes.Split(bytes.TrimSuffix(b, []byte("\r\n")), []byte("\r\n"))
	method, old, ok := requestLine(lines[0])
	if !ok || len(lines) > maxHeaders+1 {
		return 0, 0, false
	}
	hosts, lengths, codings, length := 0, 0, 0, int64(0)
	for _, line := range lines[1:] {
		name, value, ok := headerLine(line)
		if !ok {
			return 0, 0, false
		}
		switch strings.ToLower(name) {
		case "host":
			hosts++
		case "content-length":
			lengths++
			if length, ok = contentLength(value); !ok {
				return 0, 0, false
			}
		case "transfer-encoding":
			codings++
			if !strings.EqualFold(value, "chunked") {
				return 0, 0, false
			}
		case "expect":
			if !strings.EqualFold(value, "100-continue") {
				return 0, 0, false
			}
		}
	}
	switch {
	case hosts > 1, hosts == 0 && !old, lengths+codings > 1:
		return 0, 0, false
	case method == "CONNECT":
		return inTunnel, 0, lengths+codings == 0
	case codings == 1:
		return inSize, 0, true
	case length > 0:
		return inBody, length, true
	}
	return inHead, 0, true
}

// requestLine reads METHOD SP target SP HTTP/1.1. For CONNECT it takes HTTP/1.0 too, which
// knows no Host: stock clients ask so for tunnels. Nothing that follows could be framed in
// another way by that: it has no body, and behind it is the tunnel or the end.
func requestLine(line []byte) (method string, old, ok bool) {
	parts := strings.Split(string(line), " ")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		return "", false, false
	}
	old = parts[0] == "CONNECT" && parts[2] == "HTTP/1.0"
	if parts[2] != "HTTP/1.1" && !old {
		return "", false, false
	}
	for i := range len(parts[0]) {
		if c := parts[0][i]; (c < 'A' || c > 'Z') && c != '-' {
			return "", false, false
		}
	}
	for i := range len(parts[1]) {
		if c := parts[1][i]; c <= ' ' || c >= 0x7f {
			return "", false, false
		}
	}
	return parts[0], old, true
}

// headerLine reads name ":" value. White space before the colon, or at the beginning
// of the line, is what other readers join to something else.
func headerLine(line []byte) (name, value string, ok bool) {
	name, value, ok = strings.Cut(string(line), ":")
	if !ok || name == "" {
		return "", "", false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return "", "", false
		}
	}
	value = strings.Trim(value, " \t")
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "", "", false
		}
	}
	return name, value, true
}

func contentLength(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

// chunkSize reads the line before a chunk. Extensions have no meaning here and are
// refused; so are sizes that overflow some readers.
func chunkSize(line []byte) (int64, bool) {
	if len(line) == 0 || len(line) > 8 {
		return 0, false
	}
	for _, c := range line {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(line), 16, 64)
	return n, err == nil
}
