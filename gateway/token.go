package gateway

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/writ-gateway/writ"
)

// Bounds of the secret in a token: 256 bits as text, with room for any
// encoding of them.
const (
	minSecret = 22
	maxSecret = 128
)

// ParseToken reads "<tenant>.ses_<ulid>.<secret>" into a credential. It looks
// at the form only; whether the session exists is the door's question.
func ParseToken(token string) (*writ.Credential, bool) {
	tenant, rest, ok := strings.Cut(token, ".")
	if !ok {
		return nil, false
	}
	session, secret, ok := strings.Cut(rest, ".")
	if !ok || len(secret) < minSecret || len(secret) > maxSecret || !secretText(secret) {
		return nil, false
	}
	c := &writ.Credential{
		Tenant: writ.Tenant(tenant), Session: writ.SessionID(session), SecretHash: sha256.Sum256([]byte(secret)),
	}
	return c, c.Tenant.Valid() && c.Session.Valid()
}

// secretText holds secrets to the URL-safe base64 alphabet, which hex is part of.
func secretText(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// credential finds the one bearer token of a request (RFC 6750, section 2.1). Where
// the listener says who speaks there is none to find.
func credential(r *http.Request) (*writ.Credential, error) {
	if who, ok := identity(r.Context()); ok {
		return &who.Credential, nil
	}
	values := r.Header.Values("Authorization")
	if len(values) == 1 {
		scheme, token, ok := strings.Cut(values[0], " ")
		if ok && strings.EqualFold(scheme, "Bearer") {
			if c, ok := ParseToken(token); ok {
				return c, nil
			}
		}
	}
	return nil, writ.Refuse(writ.CodeUnauthenticated, "gateway.credential", "the request carries no session token",
		"send Authorization: Bearer <tenant>.ses_<id>.<secret>")
}
