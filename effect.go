package writ

import (
	"maps"
	"slices"
)

// EffectID names one effect: something a call does outside the store. It is also the
// idempotency key the outside is given, the same for every attempt.
type EffectID string // eff_…

const (
	PrefixEffect  = "eff_"
	PatternEffect = `^eff_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
)

func (id EffectID) Valid() bool { return validID(string(id), PrefixEffect) }

// IntentState is where an effect stands.
type IntentState string

const (
	// IntentUnderWay: committed before anything happens outside. A replica runs it,
	// and renews its lease.
	IntentUnderWay IntentState = "intended"
	// IntentOK: it has happened. Terminal. With a code, what was answered was not passed
	// on, or not whole.
	IntentOK IntentState = "ok"
	// IntentError: it has not happened, or not all of it, and that is known. Terminal.
	IntentError IntentState = "error"
	// IntentUnknown: nobody renewed its lease any more, or who ran it cannot tell. Left
	// by the outcome that comes late, by another attempt under the same key, or by what
	// a person finds out.
	IntentUnknown IntentState = "unknown"
)

// IntentMoves are the legal moves of an effect.
var IntentMoves = Table[IntentState]{
	"":             {IntentUnderWay},
	IntentUnderWay: {IntentOK, IntentError, IntentUnknown},
	IntentUnknown:  {IntentUnderWay, IntentUnknown, IntentOK, IntentError}, // unknown → unknown: what it came to is known, or it may be attempted again
	IntentOK:       {},
	IntentError:    {},
}

// Open says whether what became of the effect is still to be said.
func (s IntentState) Open() bool { return s == IntentUnderWay || s == IntentUnknown }

// Intent is the document of an effect. It changes with its state; the end of its lease is
// a counter beside it.
type Intent struct {
	ID         EffectID         `json:"id"`
	Capability CapabilityID     `json:"capability"`
	State      IntentState      `json:"state"`
	Idempotent bool             `json:"idempotent,omitempty"` // it may be attempted again while it is unknown
	Repeat     bool             `json:"repeat,omitempty"`     // a person lets it be attempted once more
	Attempt    int64            `json:"attempt"`              // from 1
	Session    SessionID        `json:"session"`
	Principal  PrincipalID      `json:"principal"`
	Agent      AgentID          `json:"agent,omitempty"`
	Run        RunID            `json:"run_id,omitempty"`
	Task       TaskID           `json:"task_id,omitempty"`
	Held       map[string]int64 `json:"held,omitempty"`    // charged to the run for this attempt, in advance
	Quotas     []QuotaHold      `json:"quotas,omitempty"`  // taken of what may be sent outside in a day, until it is settled
	Settled    map[string]int64 `json:"settled,omitempty"` // what it came to
	SettledAt  int64            `json:"settled_at,omitempty"`
	SettledBy  CallID           `json:"settled_by,omitempty"` // the outcome that did: said twice it is the same
	Secrets    []SecretUse      `json:"secrets,omitempty"`
	Late       bool             `json:"late,omitempty"` // the outcome came after it was unknown
	Code       Code             `json:"code,omitempty"` // why it did not happen, or why its caller does not have the answer
	DecidedBy  SessionID        `json:"decided_by,omitempty"`
	CreatedAt  int64            `json:"created_at"`
	UpdatedAt  int64            `json:"updated_at"`
	Receipt    ReceiptID        `json:"receipt"`
}

// Copy returns an intent that shares no memory with i.
func (i Intent) Copy() Intent {
	i.Held, i.Settled = maps.Clone(i.Held), maps.Clone(i.Settled)
	i.Secrets, i.Quotas = slices.Clone(i.Secrets), slices.Clone(i.Quotas)
	return i
}

// MayRepeat says whether another attempt may be made under the same key.
func (i Intent) MayRepeat() bool { return i.State == IntentUnknown && (i.Idempotent || i.Repeat) }

// IntentKey is the document of an effect, EffectReplyKey the reply to whoever asks again
// under its key. Of an effect that has ended both are forgotten after a day; its receipts
// stay.
func IntentKey(id EffectID) Key      { return Key(ObjectEffect + "/" + string(id)) }
func EffectReplyKey(id EffectID) Key { return Key("effectreply/" + string(id)) }

// EffectKeptMs is how long that is.
const EffectKeptMs = 24 * 3600 * 1000

// EffectLease is when the lease of an effect that is under way ends, in milliseconds; the
// score in IndexEffectLeases is only the alarm.
func EffectLease(id EffectID) Counter { return Counter{ObjectEffect + "/" + string(id), "lease"} }

// RunEffects counts the effects of a run that are under way: its budget is not settled
// before they are.
func RunEffects(id RunID) Counter { return Counter{"run/" + string(id), "effects"} }

// IndexEffects lists effects that are under way or unknown, IndexUnknown those that are
// unknown, IndexEffectLeases when the leases of those under way end.
const (
	IndexEffects      Index = "list/effects"
	IndexUnknown      Index = "list/unknown"
	IndexEffectLeases Index = "due/effect"
)

// Enter puts an effect on the lists of its state and takes it off the others, and keeps
// what its run counts. to is its next state.
func (i Intent) Enter(tx *Tx, to IntentState) {
	listed := func(is bool, list Index) {
		if is {
			tx.Index(list, string(i.ID), 0)
		} else {
			tx.Unindex(list, string(i.ID))
		}
	}
	listed(to.Open(), IndexEffects)
	listed(to == IntentUnknown, IndexUnknown)
	if i.Run == "" {
		return
	}
	switch {
	case to == IntentUnderWay:
		tx.Add(RunEffects(i.Run), 1)
		for _, dim := range Dimensions(i.Held) {
			tx.Add(BudgetHeld(i.Run, dim), i.Held[dim])
		}
	case i.State == IntentUnderWay:
		tx.Add(RunEffects(i.Run), -1)
		for _, dim := range Dimensions(i.Held) {
			tx.Add(BudgetHeld(i.Run, dim), -i.Held[dim])
		}
	}
}

// Settle charges the run what the effect came to instead of what was held for it, and
// says by how much that is more. It may be more than was held, and more than the run has
// left: it has happened. It is done once of each attempt. run is its run, if it has one,
// and decides what counts.
func (i *Intent) Settle(tx *Tx, run Run, used map[string]int64, now int64) (more map[string]int64) {
	if i.SettledAt != 0 {
		return nil
	}
	i.SettledAt, i.Settled = now, used
	if i.Run == "" {
		return nil
	}
	counts := run.Metered(used)
	all := map[string]int64{}
	maps.Copy(all, i.Held)
	maps.Copy(all, counts)
	more = map[string]int64{}
	for _, dim := range Dimensions(all) {
		if n := counts[dim] - i.Held[dim]; n != 0 {
			more[dim] = n
			tx.Add(BudgetUsed(i.Run, dim), n)
		}
	}
	return more
}

// EffectFact is what the receipt of a transition says of an effect, beside its move.
type EffectFact struct {
	Attempt int64
	Code    Code             // why it did not happen
	Held    map[string]int64 // for the attempt that begins
	Late    bool
	Secrets []SecretUse      // put into what is sent
	Settled map[string]int64 // what the attempt came to
}

// Errand is what the plan of an effect asks the door to have done, once the intent is
// committed.
type Errand struct {
	// TimeoutMs is how long it may take; 0: EffectTimeoutMs. At most MaxEffectMs.
	TimeoutMs int64
	// Secrets are put into what is sent. Only those can be: the intent states them.
	Secrets []SecretUse
	// While names documents that must stay as they were read: the effect is stopped
	// when one of them changes.
	While []Key
	// Task is the one it is done for, under which lease, and Labels what it was judged to
	// carry: it is stopped when that lease ends, or when its session is given data of
	// another kind. "": for no task, and whatever the session is given.
	Task   TaskID
	Lease  LeaseID
	Labels []Label
	// Detail is for who carries it out: what the plan found. It is stored nowhere.
	Detail any
}

// How long effects may take.
const (
	EffectTimeoutMs = 60_000
	MaxEffectMs     = 3600_000
)

// SecretID names a secret in receipts: it is not what people call it.
type SecretID string // sec_…

const (
	PrefixSecret  = "sec_"
	PatternSecret = `^sec_[0-7][0-9A-HJKMNP-TV-Z]{25}$`
)

func (id SecretID) Valid() bool { return validID(string(id), PrefixSecret) }

// SecretUse says that a secret is put into what is sent, and which version of it.
type SecretUse struct {
	ID      SecretID `json:"id"`
	Version int64    `json:"version"`
}

// EffectSettleArgs say what became of one attempt at an effect.
type EffectSettleArgs struct {
	Effect  EffectID         `json:"effect_id" doc:"The effect." pattern:"^eff_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Attempt int64            `json:"attempt" doc:"The attempt that has ended." minimum:"1" maximum:"1000000"`
	By      CallID           `json:"by" doc:"Names this outcome: said twice it is the same." pattern:"^cll_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	State   IntentState      `json:"state" doc:"What became of it." enum:"ok,error,unknown"`
	Code    Code             `json:"code,omitempty" doc:"Why it did not happen; of what has happened, why its caller does not have the answer." maxLength:"64"`
	Used    map[string]int64 `json:"used,omitempty" doc:"What it came to, by dimension of budgets."`
	Reply   RawObject        `json:"reply,omitempty" doc:"The reply for who asks again under the same key."`
}

// Witnessed keeps the reply out of the evidence: callers' data is not the gateway's to
// keep for as long as receipts.
func (a *EffectSettleArgs) Witnessed() any {
	c := *a
	c.Reply = nil
	return &c
}

// EffectSettle is the capability that takes them.
const EffectSettle CapabilityID = "effect.settle"

// EffectSettled is its reply.
type EffectSettled struct {
	State   IntentState `json:"state" doc:"What the effect is now."`
	Taken   bool        `json:"taken" doc:"Whether this outcome is the one that holds."`
	Version int64       `json:"version" doc:"Version of its document."`
	Receipt ReceiptID   `json:"receipt" doc:"Receipt of that."`
}
