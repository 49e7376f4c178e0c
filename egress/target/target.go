package target

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// ErrSpelling says that a host, port or path is not in its one spelling. It does
// not repeat the text.
var ErrSpelling = errors.New("this is not the one way to write it: hosts are lower-case names without a dot at the end, or plain addresses; ports are decimal; paths are clean")

// Target is a host and a port.
type Target struct {
	Host string // without brackets
	Port uint16
}

// String writes the target as Parse reads it.
func (t Target) String() string {
	h := t.Host
	if strings.Contains(h, ":") {
		h = "[" + h + "]"
	}
	return h + ":" + strconv.Itoa(int(t.Port))
}

// Addr is the address a target is written as; ok is false for a name.
func (t Target) Addr() (a netip.Addr, ok bool) {
	a, err := netip.ParseAddr(t.Host)
	return a, err == nil
}

// Parse reads host:port. Both must be there.
func Parse(authority string) (Target, error) {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || len(authority) > maxHost+len("[]:65535") {
		return Target{}, ErrSpelling
	}
	host, port := authority[:i], authority[i+1:]
	if strings.HasPrefix(host, "[") {
		if !strings.HasSuffix(host, "]") || !strings.Contains(host, ":") {
			return Target{}, ErrSpelling
		}
		host = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return Target{}, ErrSpelling
	}
	n, ok := parsePort(port)
	if !ok || !ValidHost(host) {
		return Target{}, ErrSpelling
	}
	return Target{host, n}, nil
}

// New makes a target of a host without brackets and a port.
func New(host string, port int64) (Target, error) {
	if port < 1 || port > 65535 || !ValidHost(host) {
		return Target{}, ErrSpelling
	}
	return Target{host, uint16(port)}, nil
}

// ParseURL reads an absolute URL of the scheme http or https without user and
// fragment: where it goes, and what the request line says there. A port that is
// left out is the scheme's.
func ParseURL(raw string) (scheme string, t Target, path, query string, err error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme != "http" && scheme != "https" || len(raw) > maxURL {
		return "", t, "", "", ErrSpelling
	}
	end := strings.IndexAny(rest, "/?#\\")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	if !hasPort(authority) {
		authority += map[string]string{"http": ":80", "https": ":443"}[scheme]
	}
	if t, err = Parse(authority); err != nil {
		return "", t, "", "", err
	}
	path, query, err = ParseRequest(rest)
	return scheme, t, path, query, err
}

// hasPort says whether an authority states a port: colons of an address stand in
// brackets.
func hasPort(authority string) bool {
	return strings.LastIndexByte(authority, ':') > strings.LastIndexByte(authority, ']')
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

const (
	maxHost = 253
	maxURL  = 8 << 10
)

// ValidHost says whether a host, without brackets, is in its one spelling.
func ValidHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Zone() == "" && !a.Is4In6() && a.String() == host
	}
	if host == "" || len(host) > maxHost {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return false
		}
		last = label
	}
	return !numeric(last)
}

func validLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// numeric says whether some program would read a last label as part of an IPv4
// address: decimal, octal, or hexadecimal.
func numeric(label string) bool {
	hex, isHex := strings.CutPrefix(label, "0x")
	digits := "0123456789"
	if isHex {
		label, digits = hex, "0123456789abcdef"
	}
	return strings.Trim(label, digits) == ""
}
