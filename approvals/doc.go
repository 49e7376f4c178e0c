// Package approvals plans how people decide the calls that policy allows only
// with approval: asking (which is what becomes of such a call), deciding,
// answering, taking back, expiry and use.
//
// It is pure planning: it holds no store and no clock. Its invariants:
//
//   - an approval is bound to what was asked (see writ.Ask), is used at most as
//     often as it may be, and never after it expired, whether or not a sweep has
//     come by;
//   - the call is judged again when it is used, and the votes count for what
//     policy asks then: for more than was asked, people are asked again;
//   - nobody decides what they stand behind: not the requester, not the person
//     answerable for it, not who opened its session, not who enqueued the task;
//     and one person counts once, however many sessions they have;
//   - one no is enough, and nothing leads from denied or expired to approved; a
//     yes with other arguments is a yes to another call, and a no to this one.
package approvals

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Config is what the room needs from outside.
type Config struct {
	// Waiters are the rooms whose objects wait while people decide.
	Waiters []Waiter
	// Validate holds an answer to the schema policy asked for. Its error names
	// no value.
	Validate func(schema, value writ.RawObject) error
	// Capability finds a capability; nil when there is none.
	Capability func(writ.CapabilityID) *writ.Capability
	// Decode holds raw arguments to the schema of a capability, as the door
	// does with those of a call.
	Decode func(k *writ.Capability, raw []byte) (any, error)
	// Bound says whether a principal has a role now. Nil: nobody has any.
	Bound func(p writ.PrincipalID, role writ.Role, tenant writ.Tenant) bool
	// Work says which capabilities are work, whose arguments a person may agree to
	// change. Default: run.… and task.….
	Work func(writ.CapabilityID) bool
	// Tell says who outside is told what becomes of approvals. Nil: nobody.
	Tell writ.Subscribers
}

// Waiter is a room whose objects wait for approvals. Its functions are pure.
// What waits for an approval waits for the one that takes its place with other
// arguments (Modified): both functions are told of that one only.
type Waiter interface {
	// Reads names what Wait and Wake must see, given what has been read.
	Reads(a writ.Approval, s writ.Snapshot) (writ.ReadSet, error)
	// Wait stops in tx what must not go on until a is decided.
	Wait(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error
	// Wake lets go on in tx what waited for a when it was approved, and ends
	// what waited when it was denied or expired.
	Wake(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error
}

// Room plans approvals.
type Room struct{ cfg Config }

// New makes a Room.
func New(cfg Config) Room {
	if cfg.Work == nil {
		cfg.Work = func(id writ.CapabilityID) bool {
			return strings.HasPrefix(string(id), "run.") || strings.HasPrefix(string(id), "task.")
		}
	}
	if cfg.Bound == nil {
		cfg.Bound = func(writ.PrincipalID, writ.Role, writ.Tenant) bool { return false }
	}
	return Room{cfg}
}

// Capabilities are the verbs of this room.
func (r Room) Capabilities() []*writ.Capability {
	return []*writ.Capability{r.decide(), r.respond(), r.revoke(), r.expire(), r.withdraw(), r.get(), r.list()}
}

// readWaiting adds what the waiting rooms must see.
func (r Room) readWaiting(rs *writ.ReadSet, a writ.Approval, s writ.Snapshot) error {
	for _, w := range r.cfg.Waiters {
		more, err := w.Reads(a, s)
		if err != nil {
			return err
		}
		rs.Docs, rs.Counters, rs.Ranges = append(rs.Docs, more.Docs...), append(rs.Counters, more.Counters...), append(rs.Ranges, more.Ranges...)
	}
	return nil
}

func (r Room) wait(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error {
	for _, w := range r.cfg.Waiters {
		if err := w.Wait(c, s, a, tx); err != nil {
			return err
		}
	}
	return nil
}

func (r Room) wake(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error {
	for _, w := range r.cfg.Waiters {
		if err := w.Wake(c, s, a, tx); err != nil {
			return err
		}
	}
	return nil
}

// put writes an approval that was in state from, keeps its lists, and tells of
// it whoever wants to know.
func (r Room) put(c *writ.Call, s writ.Snapshot, tx *writ.Tx, a *writ.Approval, from writ.ApprovalState) error {
	if !writ.ApprovalMoves.May(from, a.State) {
		return writ.IllegalMove("approvals", writ.ObjectApproval, string(from), string(a.State))
	}
	if from == "" { // for whoever asked, not for who decides
		var err error
		who := writ.QuotaWho{Agent: a.Requester.Agent, Session: a.Requester.Session, Role: a.Requester.Role, Capability: a.Capability}
		if a.Counted, err = writ.QuotaTags(s, writ.QuotaApprovals, who); err != nil {
			return err
		}
	}
	a.UpdatedAt, a.Receipt = s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
	tx.Move(writ.ObjectApproval, string(a.ID), string(from), string(a.State))
	for _, by := range a.Behind { // as long as it counts it can be taken back
		switch {
		case from == "":
			tx.Index(writ.SetGoing(writ.ObjectApproval, by), string(a.ID), 0)
		case writ.ApprovalMoves.Terminal(a.State):
			tx.Unindex(writ.SetGoing(writ.ObjectApproval, by), string(a.ID))
		}
	}
	if from != a.State {
		if from != "" {
			tx.Unindex(writ.ApprovalsIn(from), string(a.ID))
		}
		tx.Index(writ.ApprovalsIn(a.State), string(a.ID), 0)
		switch asked := writ.ApprovalsAsked(a.Requester.Principal); {
		case a.State == writ.ApprovalPending:
			tx.AddUpTo(asked, 1, writ.MaxApprovalsAsked)
			tx.Count(a.Counted, 1)
		case from == writ.ApprovalPending:
			tx.Add(asked, -1)
			tx.Count(a.Counted, -1)
		}
		if writ.ApprovalMoves.Terminal(a.State) {
			tx.Unindex(writ.IndexExpiries, string(a.ID))
		}
		if event := told(from, a.State, r.standing(c, *a).MeetsAll(a.Needs)); event != "" {
			tx.Tell(r.cfg.Tell, writ.Notice{Event: event, Receipt: a.Receipt, At: s.Now, Approval: a.ID, State: a.State})
		}
	}
	return tx.PutDoc(s, writ.ApprovalKey(a.ID), writ.ObjectApproval, *a)
}

// told is the event of a move; "" for one that nobody is told of: people who
// were asked learn that they need not answer any more, not how it was used.
// Nobody is asked by a request that has enough votes from the start, as one with
// other arguments may by its maker's.
func told(from, to writ.ApprovalState, enough bool) writ.Event {
	switch {
	case from == "" && enough:
		return ""
	case from == "":
		return writ.EventApprovalRequested
	case from == writ.ApprovalPending && slices.Contains([]writ.ApprovalState{writ.ApprovalApproved, writ.ApprovalDenied, writ.ApprovalSuperseded}, to):
		return writ.EventApprovalDecided
	case from == writ.ApprovalPending && to == writ.ApprovalExpired:
		return writ.EventApprovalExpired
	}
	return ""
}

// load reads an approval the caller may know.
func load(op string, c *writ.Call, s writ.Snapshot, id writ.ApprovalID) (writ.Approval, int64, error) {
	a, version, ok, err := writ.Get[writ.Approval](s, writ.ApprovalKey(id))
	if err == nil && (!ok || !maySee(c.Caller, a)) {
		err = writ.Refuse(writ.CodeNotFound, op, "there is no such approval, or it is not yours to know", "approval.list shows the ones you can see")
	}
	return a, version, err
}

// maySee says whether a caller may know an approval: who decides, operates and
// audits sees all, everybody else what they asked for.
func maySee(c writ.Caller, a writ.Approval) bool {
	switch c.Role {
	case writ.RoleApprover, writ.RoleOperator, writ.RoleAuditor, writ.RoleSystem:
		return true
	}
	return c.Principal == a.Requester.Principal
}
