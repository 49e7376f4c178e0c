// Package quotas holds calls to limits on how much, and how often: of a tenant, an
// agent, a session, a role or a capability. It plans the verbs that set them, and
// is the obligor that counts.
//
// It is pure planning. Its invariants:
//
//   - quotas and the gate change in one commit, so no call commits under quotas of
//     before, on any replica;
//   - what is counted is counted by the transaction that makes it so, under the
//     limit: of callers who meet at the last place exactly one gets it;
//   - a window begins and ends by the store's clock: what is judged in one commits
//     in it or not at all;
//   - what ends, stops or decides something is held to no quota on calls, and so is
//     changing quotas: nobody is locked out, and work that has begun can end.
//
// What counts an object in keeps with the object where (writ.QuotaTags), and counts
// it out there. So a level is the number of objects that came to be since its quota
// was set and still are, after whatever crash, cancellation or expiry.
package quotas

import (
	"github.com/writ-gateway/writ"
)

// Config is what the room needs from outside.
type Config struct {
	// Capability finds what callers may invoke; nil when there is no such thing.
	Capability func(writ.CapabilityID) *writ.Capability
}

// Room plans quotas.
type Room struct{ cfg Config }

// New makes a Room.
func New(cfg Config) Room { return Room{cfg} }

// Capabilities are the verbs of this room.
func (r Room) Capabilities() []*writ.Capability {
	return []*writ.Capability{r.set(), r.delete(), r.get(), r.list(), tidy()}
}

// Calls that quotas are about, by what they bring into being.
const (
	enqueues writ.CapabilityID = "task.enqueue"
	claims   writ.CapabilityID = "task.claim"
	puts     writ.CapabilityID = "artifact.put"
)

// counted says what of a call each metric counts. A metric that is not in it counts
// nothing yet, and no quota can be set on it: whoever brings its source adds a row.
var counted = map[string]func(c *writ.Call, k *writ.Capability, sub writ.Subject) (amount, bool){
	writ.QuotaQueued:      ofTasks,
	writ.QuotaRunning:     ofCall(claims),
	writ.QuotaClaims:      ofCall(claims),
	writ.QuotaTokens:      ofCharge(writ.BudgetTokens),
	writ.QuotaMoney:       ofCharge(writ.BudgetMoney),
	writ.QuotaEgress:      ofSending,
	writ.QuotaArtifacts:   ofBytes,
	writ.QuotaInvocations: ofAny,
	writ.QuotaApprovals:   ofRequest,
}

// amount is what a call would add to a metric, for whom.
type amount struct {
	n        int64
	unstated bool // nobody says how much it would be
	who      writ.QuotaWho
}

// free are calls that end, stop or decide something, or keep it alive.
var free = map[writ.CapabilityID]bool{
	"task.heartbeat": true, "task.complete": true, "task.handoff": true, "task.fail": true, "task.release": true, "task.cancel": true, "task.verify": true,
	"run.cancel": true, "run.close": true, "run.seal": true,
	"session.start": true, "session.heartbeat": true, "session.close": true, "session.revoke": true, "agent.suspend": true, "agent.revoke": true, "agent.retire": true, "agent.supersede": true,
	"approval.decide": true, "approval.respond": true, "approval.revoke": true,
	"role.bind": true, "role.unbind": true, "quota.set": true, "quota.delete": true,
	"policy.activate": true, "policy.rollback": true, "policy.withdraw": true, "policy.stage": true,
	"effect.resolve": true, "secret.delete": true,
	"key.introduce": true, "key.activate": true, "key.retire": true, "key.revoke": true,
}

// ofAny counts calls that change something.
func ofAny(c *writ.Call, k *writ.Capability, _ writ.Subject) (amount, bool) {
	return amount{n: 1, who: writ.QuotaCaller(c.Caller, k.ID)}, !free[k.ID]
}

// ofRequest counts what a call asks people. Where policy asks people before an operator
// ends, stops or decides something, no quota keeps it from asking: those who are to be
// stopped could have used it up.
func ofRequest(c *writ.Call, k *writ.Capability, _ writ.Subject) (amount, bool) {
	return amount{n: 1, who: writ.QuotaCaller(c.Caller, k.ID)}, !free[k.ID] || c.Caller.Role != writ.RoleOperator
}

// ofTasks counts calls that make a task: what is judged as task.enqueue, and work
// that is handed on to a new one, which has a price then.
func ofTasks(c *writ.Call, k *writ.Capability, sub writ.Subject) (amount, bool) {
	makes := k.Judged() == enqueues || k.ID == "task.handoff" && sub.Charge != nil
	return amount{n: 1, who: ofTask(c, sub)}, makes
}

// ofCall counts what one capability brings into being, for the capability the task
// asks for.
func ofCall(id writ.CapabilityID) func(*writ.Call, *writ.Capability, writ.Subject) (amount, bool) {
	return func(c *writ.Call, k *writ.Capability, sub writ.Subject) (amount, bool) {
		return amount{n: 1, who: ofTask(c, sub)}, k.ID == id
	}
}

// ofCharge counts the most an attempt may use, as its tool states it: what an
// agent reports is not relied on, here as in budgets.
func ofCharge(dimension string) func(*writ.Call, *writ.Capability, writ.Subject) (amount, bool) {
	return func(c *writ.Call, k *writ.Capability, sub writ.Subject) (amount, bool) {
		a := amount{n: 1, who: ofTask(c, sub)} // of a claim that names no task yet
		if sub.Task != nil {
			n, stated := sub.Charge[dimension]
			a.n, a.unstated = n, !stated
		}
		return a, k.ID == claims
	}
}

// ofBytes counts the bytes of a workflow, and those of an artifact as far as they are more
// than what it replaces. How many these are is known when they have come: so much as
// the call says of them is refused before.
func ofBytes(c *writ.Call, k *writ.Capability, sub writ.Subject) (amount, bool) {
	if a, ok := c.Args.(writ.Keeper); ok {
		n := int64(len(a.Kept()))
		return amount{n: n, who: writ.QuotaCaller(c.Caller, k.ID)}, n > 0
	}
	return amount{n: sub.Charge[writ.BudgetStorage] - sub.Gives, who: ofTask(c, sub)}, k.ID == puts
}

// ofSending counts the most an exchange may send outside, as much as is set aside for it of its
// run's budget. What it does not send is given back (writ.Tx.SettleQuotas).
func ofSending(c *writ.Call, k *writ.Capability, sub writ.Subject) (amount, bool) {
	n, sends := sub.Charge[writ.BudgetEgress]
	return amount{n: n, who: ofTask(c, sub)}, sends && k.Class == writ.Effectful
}

func ofTask(c *writ.Call, sub writ.Subject) writ.QuotaWho {
	who := writ.QuotaCaller(c.Caller, "")
	if sub.Task != nil {
		who.Capability = sub.Task.Capability
	}
	return who
}

// polls says whether a call waits for any task.
func polls(k *writ.Capability, sub writ.Subject) bool { return k.ID == claims && sub.Task == nil }

// held says whether quotas hold for a call at all. Reads change nothing and are not
// counted; what the gateway does itself is decided already.
func held(c *writ.Call, k *writ.Capability) bool {
	return k.Class != writ.Mandate && !k.ReadOnly() && c.Caller.Role != writ.RoleSystem
}
