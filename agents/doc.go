// Package agents plans everything about who may act: the registry of agents
// (register, activate, suspend, revoke, supersede, retire) and the sessions that bind a principal to one
// role (open, start, heartbeat, close, revoke, and their end by time).
//
// It is pure planning: it holds no store, no clock and no secret of its own.
// Returning to the queue what an ended session held is not its business; it
// leaves a due entry "session <id>" for whoever does that.
//
// Its invariants: only an active agent's tools, keywords and write scopes are indexed,
// no two active agents' write scopes overlap unless both share them, and none own the same
// concern of a domain; a session in a terminal
// state has no deadline, is on no list of live sessions and claims no scope; a session is never
// ended for silence when a heartbeat was committed before.
package agents

import (
	"errors"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Config is what the room needs from outside.
type Config struct {
	// Secret derives the secret of the session that a call opens. It MUST be
	// unguessable without the server's key and the same for the same call, so
	// that a plan made again gives the same token. See SecretsFrom.
	Secret func(*writ.Call) string
	// Builtin says whether an id names a capability of the gateway itself:
	// agents may not declare tools of such a name. Optional.
	Builtin func(writ.CapabilityID) bool
	// CheckSchema says whether an input schema is one the gateway can hold
	// task arguments to. Its error names no value. Optional.
	CheckSchema func(writ.RawObject) error
	// PublicKey reads a key in PEM that calls may be signed with. Its error says
	// what is wrong with it, and nothing of it. Without it agents have no keys.
	PublicKey func(pem string) (writ.PublicKey, error)
	// Gate says whether an id names a policy pack or rule that is loaded. Without
	// it agents name no gates.
	Gate func(id string) bool
}

// Capabilities are the verbs of this room.
func Capabilities(cfg Config) []*writ.Capability {
	if cfg.Builtin == nil {
		cfg.Builtin = func(writ.CapabilityID) bool { return false }
	}
	if cfg.CheckSchema == nil {
		cfg.CheckSchema = func(writ.RawObject) error { return nil }
	}
	if cfg.PublicKey == nil {
		cfg.PublicKey = func(string) (writ.PublicKey, error) { return writ.PublicKey{}, errors.New("cannot be used here") }
	}
	if cfg.Gate == nil {
		cfg.Gate = func(string) bool { return false }
	}
	return []*writ.Capability{
		register(cfg), activate(), suspend(), revokeAgent(), supersede(), retire(), cleanup(), settle(), list(), info(), tools(), route(), health(), healthRecord(),
		open(cfg), start(), heartbeat(), closeOwn(), revoke(), getSession(), listSessions(), lapse(), expire(),
		spawn(cfg), noteJail(), lapseJail(),
	}
}

// ScopeIndex holds the write scopes of active agents, "<scope> <agent>", and " ~" behind it when the agent shares them. It is
// to agents what writ.IndexScopes is to tasks.
const ScopeIndex writ.Index = "scope/agents"

// Todo members this room leaves and takes: follow-up work on an agent or a
// session.
func todoAgent(id writ.AgentID) string     { return "agent " + string(id) }
func todoRecall(id writ.AgentID) string    { return "recall " + string(id) }
func todoSettle(id writ.AgentID) string    { return "settled " + string(id) }
func todoSession(id writ.SessionID) string { return "session " + string(id) }

// receipt is the id of the receipt of the commit this call is planning.
func receipt(call *writ.Call) writ.ReceiptID {
	return writ.ReceiptID(call.NewID(writ.PrefixReceipt, 0))
}

// rangesOf are the distinct ranges of ScopeIndex that must be free for an
// agent with these scopes.
func rangesOf(scopes []string) [][2]string {
	var out [][2]string
	for _, s := range scopes {
		out = append(out, writ.ScopeRanges(s)...)
	}
	slices.SortFunc(out, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	return slices.Compact(out)
}
