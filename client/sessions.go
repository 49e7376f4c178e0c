package client

import (
	"cmp"
	"context"
	"slices"

	"github.com/writ-gateway/writ"
)

// SessionOptions say for whom and as what a session is opened.
type SessionOptions struct {
	Principal  writ.PrincipalID   `json:"principal"`
	Kind       writ.PrincipalKind `json:"kind"`
	Role       writ.Role          `json:"role"`
	Agent      writ.AgentID       `json:"agent_id,omitempty"`
	Controller writ.PrincipalID   `json:"controller,omitempty"`      // the person answerable for it
	TTLSeconds int64              `json:"heartbeat_ttl_s,omitempty"` // between heartbeats
	Lifetime   int64              `json:"lifetime_s,omitempty"`      // seconds
}

// Session is a session as the gateway shows it. Token is set by OpenSession
// only, once.
type Session struct {
	ID                 writ.SessionID     `json:"session_id"`
	Token              string             `json:"token,omitempty"`
	Principal          writ.PrincipalID   `json:"principal"`
	Kind               writ.PrincipalKind `json:"kind"`
	Role               writ.Role          `json:"role"`
	Agent              writ.AgentID       `json:"agent_id,omitempty"`
	State              writ.SessionState  `json:"state"`
	TTLSeconds         int64              `json:"heartbeat_ttl_s"`
	HeartbeatExpiresAt string             `json:"heartbeat_expires_at,omitempty"` // RFC 3339
	ExpiresAt          string             `json:"expires_at"`                     // RFC 3339
	WriteClaims        []writ.WriteClaim  `json:"write_claims,omitempty"`
	Receipt            writ.ReceiptID     `json:"receipt"`
	Version            int64              `json:"version"`
}

type sessionArg struct {
	ID     writ.SessionID    `json:"session_id"`
	Claims []writ.WriteClaim `json:"write_claims,omitempty"`
}

// OpenSession opens a session. If the reply is lost after the change was made,
// the error has CodeTokenIssued: the token is gone, revoke the session.
func (c *Client) OpenSession(ctx context.Context, o SessionOptions, opts ...Option) (s Session, err error) {
	_, err = c.Invoke(ctx, "session.open", o, &s, opts...)
	return s, err
}

// StartSession makes the caller's own session active.
func (c *Client) StartSession(ctx context.Context, id writ.SessionID, opts ...Option) (s Session, err error) {
	_, err = c.Invoke(ctx, "session.start", sessionArg{ID: id}, &s, opts...)
	return s, err
}

// StartSessionWith makes the caller's own session active and claims where it writes,
// all of it or none; a claim without a mode is exclusive. Where somebody is in the way
// the error has CodeScopeConflict.
func (c *Client) StartSessionWith(ctx context.Context, id writ.SessionID, claims []writ.WriteClaim, opts ...Option) (s Session, err error) {
	claims = slices.Clone(claims)
	for i := range claims {
		claims[i].Mode = cmp.Or(claims[i].Mode, writ.ScopeExclusive)
	}
	_, err = c.Invoke(ctx, "session.start", sessionArg{id, claims}, &s, opts...)
	return s, err
}

// HeartbeatSession keeps the caller's own session alive.
func (c *Client) HeartbeatSession(ctx context.Context, id writ.SessionID, opts ...Option) (s Session, err error) {
	_, err = c.Invoke(ctx, "session.heartbeat", sessionArg{ID: id}, &s, opts...)
	return s, err
}

// CloseSession ends the caller's own session; its tasks go back to the queue.
func (c *Client) CloseSession(ctx context.Context, id writ.SessionID, opts ...Option) (s Session, err error) {
	_, err = c.Invoke(ctx, "session.close", sessionArg{ID: id}, &s, opts...)
	return s, err
}

// RevokeSession ends another session.
func (c *Client) RevokeSession(ctx context.Context, id writ.SessionID, opts ...Option) (s Session, err error) {
	_, err = c.Invoke(ctx, "session.revoke", sessionArg{ID: id}, &s, opts...)
	return s, err
}

// GetSession shows a session.
func (c *Client) GetSession(ctx context.Context, id writ.SessionID) (s Session, err error) {
	_, err = c.Invoke(ctx, "session.get", sessionArg{ID: id}, &s)
	return s, err
}
