package writ

import (
	"slices"
	"strings"
)

// A gate is a capability that an agent declares as a tool whose result says whether what
// it looks at passes. The task of a gate looks at the tasks it depends on.

// IsGate says whether the name of a check is that of a gate: those have a dot. Any other
// is a check that a verifier makes, and answers for.
func IsGate(check string) bool { return strings.ContainsRune(check, '.') }

// GateStatus is what a check gave.
type GateStatus string

const (
	GatePass GateStatus = "pass"
	GateFail GateStatus = "fail"
)

// GateResults is the document at GatesKey, of kind "gates": which gates the result that a
// task gave last must pass, and what they gave. It is written anew with each result.
type GateResults struct {
	Of      int64          `json:"of"`              // fence of the attempt that gave it
	By      Acceptance     `json:"by"`              // who gave it, and by which receipt
	Since   int64          `json:"since,omitempty"` // version this document had when it was; 0 while nothing was added
	Owes    []CapabilityID `json:"owes"`
	Results []GateResult   `json:"results,omitempty"`
}

// GateResult is what the last task of a gate gave.
type GateResult struct {
	Gate    CapabilityID `json:"gate"`
	Status  GateStatus   `json:"status"`
	Task    TaskID       `json:"task_id"`
	Receipt ReceiptID    `json:"receipt_id"`
}

// Result is what a gate gave last.
func (g GateResults) Result(gate CapabilityID) (GateResult, bool) {
	i := slices.IndexFunc(g.Results, func(r GateResult) bool { return r.Gate == gate })
	if i < 0 {
		return GateResult{}, false
	}
	return g.Results[i], true
}

// Passed says whether the result of a task has passed a gate: this result, and the last
// time it was looked at.
func (g GateResults) Passed(t Task, gate CapabilityID) bool {
	r, ok := g.Result(gate)
	return ok && g.Of == t.DoneFence && r.Status == GatePass
}

// Gave says who gave a result, to tell whoever looks at it from them.
func Gave(c *Call, keys []PublicKey) Acceptance { return newAcceptance(c, keys, nil) }

// Own says whether a caller is who gave the result, by session, principal, agent or key, or
// one of them stands behind the other. That one person answers for both is no matter: one
// who answers for nobody of them judges, whatever gates say.
func (g GateResults) Own(c Caller, keys []PublicKey) bool {
	by, theirs := g.By.caller()
	behind := func(p PrincipalID, o Caller) bool { return p == o.Controller || slices.Contains(o.Openers, p) }
	one := func(c Caller, keys []PublicKey) []string {
		return append(identitiesOfAgent(c, keys), identityOfSession(c.Session), identityItself(c.Principal))
	}
	return meets(one(c, keys), one(by, theirs)) || behind(c.Principal, by) || behind(by.Principal, c)
}
