// Package secrets keeps values that the gateway puts into the requests it makes for others,
// and shows to nobody: not to who asks for the request, not to operators, in no receipt,
// evidence, log or reply.
//
// It is pure planning: values come sealed (guard, secrets/vault), and only the vault opens
// them. Its invariants:
//
//   - a secret is for one host, and one place in a request; what is sealed opens for those
//     alone, so nobody who can write the store can have it sent elsewhere;
//   - all secrets of a store are sealed under one key;
//   - receipts name a secret by an id of the gateway's and a version.
package secrets

import (
	"net/netip"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// Capabilities are the verbs of this room.
func Capabilities() []*writ.Capability {
	return []*writ.Capability{put(), list(), remove()}
}

// MaxValue is how long a value may be.
const MaxValue = 4096

var (
	hostName   = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	headerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,63}$`)
)

// spelled says whether a host is in the one spelling there is of it: lower case, an IP
// address as it is written shortest, IPv6 in brackets, and a port unless that is 443.
func spelled(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 || n == 443 || strconv.Itoa(n) != port {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		return ok && err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" && a.String() == inner
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; last != "" && strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		a, err := netip.ParseAddr(host)
		return err == nil && a.Is4() && a.String() == host
	}
	return len(host) <= 253 && hostName.MatchString(host)
}

// fixed are headers that say how a request is to be read, or where it goes.
var fixed = []string{
	"Host", "Content-Length", "Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade", "Keep-Alive", "Expect", "Proxy-Authorization", "Proxy-Connection", "Content-Encoding", "Content-Type",
}

// place takes "Authorization: Bearer {{secret}}" apart.
func place(text string) (header, template string, ok bool) {
	header, template, ok = strings.Cut(text, ":")
	header, template = textproto.CanonicalMIMEHeaderKey(header), strings.TrimSpace(template)
	if !ok || !headerName.MatchString(header) || slices.Contains(fixed, header) || strings.Count(template, writ.SecretMark) != 1 || !visible(template) {
		return "", "", false
	}
	return header, template, true
}

// visible says whether a text may stand in a header: ASCII, nothing that ends a line.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}
