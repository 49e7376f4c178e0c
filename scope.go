package writ

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrScope says that a resource URI is not canonical.
var ErrScope = errors.New("not a canonical resource URI")

var scopeSchemes = []string{"fs", "mem", "conn", "http", "task", "secret"}

// ScopeForm says how a resource URI is written, for hints.
const ScopeForm = "write resource URIs like fs:site/docs/ or http:api.example.com/v1/: one of fs, mem, conn, http, task or secret, a colon, " +
	"and segments of printable ASCII without spaces, %, *, ?, # and backslashes, none of them empty, . or .."

// CanonicalScope checks a resource URI and returns its canonical form:
// "<scheme>:<segment>/…/", always ending in "/". A scope covers itself and
// everything below it by whole segments, so "fs:repo/ops/plug/" does not cover
// "fs:repo/ops/plugins2/".
//
// It refuses rather than repairs: an empty, "." or ".." segment, a control
// character, a space, a percent sign, a backslash or anything outside
// printable ASCII is ErrScope. Only the scheme is lowered, with the host of an
// http scope, and the missing final "/" is added. One host has one spelling:
// user names, a final dot, addresses not in their usual form and the default
// ports are ErrScope too.
func CanonicalScope(s string) (string, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || rest == "" || len(s) > 512 || !utf8.ValidString(s) {
		return "", ErrScope
	}
	scheme = strings.ToLower(scheme)
	known := false
	for _, k := range scopeSchemes {
		known = known || k == scheme
	}
	if !known {
		return "", ErrScope
	}
	rest = strings.TrimSuffix(rest, "/")
	segments := strings.Split(rest, "/")
	for i, seg := range segments {
		if seg == "" || seg == "." || seg == ".." {
			return "", ErrScope
		}
		for j := 0; j < len(seg); j++ {
			c := seg[j]
			if c <= ' ' || c >= 0x7f || c == '%' || c == '\\' || c == '*' || c == '?' || c == '#' {
				return "", ErrScope
			}
		}
		if i == 0 && scheme == "http" {
			if segments[0] = strings.ToLower(seg); !canonicalHost(segments[0]) {
				return "", ErrScope
			}
		}
	}
	return scheme + ":" + strings.Join(segments, "/") + "/", nil
}

// canonicalHost says whether a lower-case host[:port] is spelled in the one way
// it is in scopes.
func canonicalHost(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || n == 80 || n == 443 || strconv.FormatUint(n, 10) != port {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		return ok && err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" && a.String() == inner
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	// A last label that is a number makes it an address (0x7f.1 is one, too).
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		a, err := netip.ParseAddr(host)
		return err == nil && a.Is4() && a.String() == host
	}
	return true
}

// ScopeCovers says whether canonical scope a is b or an ancestor of b.
func ScopeCovers(a, b string) bool { return strings.HasPrefix(b, a) }

// ScopesOverlap says whether one canonical scope covers the other.
func ScopesOverlap(a, b string) bool { return ScopeCovers(a, b) || ScopeCovers(b, a) }

// ScopeAncestors lists the proper ancestors of a canonical scope, outermost
// first: "fs:a/b/c/" has "fs:a/" and "fs:a/b/".
func ScopeAncestors(s string) []string {
	var out []string
	for i := 0; i < len(s)-1; i++ {
		if s[i] == '/' {
			out = append(out, s[:i+1])
		}
	}
	return out
}

// What holds a scope is a member of IndexScopes, all with score 0, so that one
// lexical range finds everything on a scope or below it; a space cannot occur in a
// canonical scope. A task that runs has "<scope> <task>", a session that claims it
// "<scope> <session>", and " shared" behind it when it lets others claim it too: so
// a guard lets exactly those pass who share, and sees them where nobody may be.

// ScopeMode says whether a session lets others claim where it does.
type ScopeMode string

const (
	ScopeExclusive ScopeMode = "exclusive"
	ScopeShared    ScopeMode = "shared"
)

// WriteClaim is a scope that a session claims for as long as it lives.
type WriteClaim struct {
	Resource string    `json:"resource" doc:"Resource URI, canonical."`
	Mode     ScopeMode `json:"mode" doc:"Exclusive: nobody else writes there, or above or below it. Shared: sessions that share too may." enum:"exclusive,shared"`
}

// MaxScopeRanges bounds the scopes and their ancestors that one commit takes: the
// guards it needs.
const MaxScopeRanges = 96

// Holder is who holds a scope: a task or a session.
type Holder string

// Key is the document of the holder; ok is false for what is neither.
func (h Holder) Key() (k Key, ok bool) {
	switch {
	case TaskID(h).Valid():
		return TaskKey(TaskID(h)), true
	case SessionID(h).Valid():
		return SessionKey(SessionID(h)), true
	}
	return "", false
}

// Docs are the documents that say whether it holds anything: its own, and of a session
// that of its jail.
func (h Holder) Docs() []Key {
	k, ok := h.Key()
	switch {
	case !ok:
		return nil
	case SessionID(h).Valid():
		return []Key{k, JailKey(SessionID(h))}
	}
	return []Key{k}
}

// ScopeMember is the lock a task holds on a scope, and the claim of a session that
// does not share it.
func ScopeMember[ID ~string](scope string, holder ID) string { return scope + " " + string(holder) }

// Member is the claim of a session.
func (c WriteClaim) Member(by SessionID) string {
	m := ScopeMember(c.Resource, by)
	if c.Mode == ScopeShared {
		m += " " + string(ScopeShared)
	}
	return m
}

// SplitScopeMember takes a member of IndexScopes apart.
func SplitScopeMember(m string) (scope string, by Holder, mode ScopeMode) {
	scope, rest, _ := strings.Cut(m, " ")
	holder, mark, _ := strings.Cut(rest, " ")
	mode = ScopeExclusive
	if mark == string(ScopeShared) {
		mode = ScopeShared
	}
	return scope, Holder(holder), mode
}

// ScopeRanges are the lexical ranges of IndexScopes that must hold nobody else's
// lock or claim before anybody may have scope: each ancestor itself, and the scope
// with all below it.
func ScopeRanges(scope string) [][2]string {
	var out [][2]string
	for _, a := range ScopeAncestors(scope) {
		out = append(out, [2]string{a + " ", a + "!"}) // '!' follows ' '
	}
	return append(out, [2]string{scope, scope[:len(scope)-1] + "0"}) // '0' follows '/'
}
