package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
)

// The operator of a machine is whoever may read <data>/operator.token: a
// session of role operator that the gateway opens for itself and keeps alive.

const (
	operatorFile  = "operator.token"
	operatorRenew = 4 * time.Hour // well inside the twelve hours a session lives
)

// OperatorToken is where the operator's token lies.
func OperatorToken(data string) string { return filepath.Join(data, operatorFile) }

// ensureOperator keeps the token in the file if its session has long to live,
// else opens a new session and replaces it.
func (d *Daemon) ensureOperator(ctx context.Context) error {
	path := OperatorToken(d.cfg.Data)
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		d.log.Warn("the operator's token was open to others; it is the owner's alone again: if somebody may have read it, revoke its session and start again",
			"file", path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
	}
	if b, err := os.ReadFile(path); err == nil {
		if left, ok := d.lives(ctx, strings.TrimSpace(string(b))); ok && left > operatorRenew+time.Hour {
			return nil
		}
	}
	reply, _, err := d.door.System(ctx, shard, "session.open", map[string]any{
		"principal": writ.MachineOperator, "kind": writ.KindHuman, "role": writ.RoleOperator,
	}, nil)
	if writ.CodeOf(err) == writ.CodeRBAC { // so the roles have it: others are operators here
		d.log.Warn("there is no session for operator.token: the principal operator is not bound to the role operator",
			"to have one", "an operator calls: writ role bind --principal operator --role operator")
		return nil
	}
	if err != nil {
		return err
	}
	var opened struct {
		SessionID writ.SessionID `json:"session_id"`
		Token     string         `json:"token"`
	}
	if err := json.Unmarshal(reply.JSON, &opened); err != nil {
		return err
	}
	if _, err := d.asToken(ctx, opened.Token, "session.start", map[string]any{"session_id": opened.SessionID}); err != nil {
		return err
	}
	return writeFile(path, opened.Token+"\n")
}

// lives says how long a token's session has to live.
func (d *Daemon) lives(ctx context.Context, token string) (time.Duration, bool) {
	cred, ok := gateway.ParseToken(token)
	if !ok {
		return 0, false
	}
	reply, err := d.asToken(ctx, token, "session.get", map[string]any{"session_id": cred.Session})
	if err != nil {
		return 0, false
	}
	var v struct {
		State     writ.SessionState `json:"state"`
		ExpiresAt time.Time         `json:"expires_at"`
	}
	if json.Unmarshal(reply.JSON, &v) != nil || v.State != writ.SessionActive {
		return 0, false
	}
	return time.Until(v.ExpiresAt), true
}

// asToken makes a call with a session's own credential.
func (d *Daemon) asToken(ctx context.Context, token string, id writ.CapabilityID, args map[string]any) (writ.Reply, error) {
	cred, ok := gateway.ParseToken(token)
	if !ok {
		return writ.Reply{}, writ.Refuse(writ.CodeUnauthenticated, "daemon.operator", "the operator token is damaged", "delete the file and start again")
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return writ.Reply{}, err
	}
	call := &writ.Call{Capability: id, Credential: cred, Raw: raw}
	if err := d.door.Stamp(call); err != nil {
		return writ.Reply{}, err
	}
	reply, _, err := d.door.Do(ctx, call)
	return reply, err
}
