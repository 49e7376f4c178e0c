package pack

import (
	"github.com/writ-gateway/writ"
)

// A gate is a tool of an agent whose result says whether what its task looks at passes: the
// results of the tasks that one depends on. What a result must pass is what its task names,
// and its agent, by the registration of then.

// gated is what one needs to know of a task for that.
type gated struct {
	claimed int64   // sequence
	looks   []*task // at these, as a gate
	given   *given  // the last result; nil while there is none
}

// given is a result, and what it has passed.
type given struct {
	seq     int64
	by      party
	owes    map[string]bool
	unknown bool // what its agent's work must pass nobody says
	shown   map[string]shown
}

// shown is what a gate said last of a result.
type shown struct {
	receipt writ.ReceiptID
	pass    bool
}

// gave notes a result, which has passed nothing yet.
func (k *chain) gave(x heard, t *task) {
	by := k.lineage.acting(x.Statement.Actor)
	gate, work, known := k.lineage.gates(by.Agent, t.Capability)
	g := &given{seq: x.Commit.Seq, by: by, unknown: !known, owes: map[string]bool{}, shown: map[string]shown{}}
	for _, check := range t.Verify.Gates {
		if t.Verify.Required && writ.IsGate(check) {
			g.owes[check] = true
		}
	}
	if !gate { // a gate need pass none of its agent's
		for _, check := range work {
			g.owes[check] = true
		}
	}
	t.given = g
}

// looked notes what a gate says, with each result it was to look at that it began after, and
// that is not of its own.
func (k *chain) looked(x heard, t *task) {
	var a struct {
		Gate writ.GateStatus `json:"gate"`
	}
	st, seq := x.Statement, x.Commit.Seq
	if st.Transition != "task.complete" {
		return
	}
	if !x.ev.says(&a) { // it may have said that one it looked at does not pass
		k.unread = true
		for _, on := range t.looks {
			if on.given != nil {
				delete(on.given.shown, t.Capability)
			}
		}
		return
	}
	gate, _, known := k.lineage.gates(st.Actor.Agent, t.Capability)
	if a.Gate != writ.GatePass && a.Gate != writ.GateFail || known && !gate {
		return
	}
	for _, on := range t.looks {
		there := on.state == string(writ.TaskVerifying) || on.state == string(writ.TaskDone)
		if g := on.given; g == nil || !there || !g.owes[t.Capability] || t.claimed <= g.seq {
			continue
		}
		own, told := k.lineage.own(on.given.by, k.lineage.acting(st.Actor))
		if !known || !told {
			k.judged(LineageUnknown, seq)
		}
		if !own {
			on.given.shown[t.Capability] = shown{st.Receipt, a.Gate == writ.GatePass}
		}
	}
}

// passed holds a result to the gates it must pass, when somebody accepts it, or the run it is
// of; cited says whether a receipt is one that must be cited for it, and is.
func (k *chain) passed(x heard, t *task, cited func(gate string, by writ.ReceiptID) bool) {
	seq := x.Commit.Seq
	if t.given == nil {
		return
	}
	if t.given.unknown {
		k.judged(LineageUnknown, seq)
	}
	for gate := range t.given.owes {
		s := t.given.shown[gate]
		switch {
		case s.pass && cited(gate, s.receipt):
		case k.unread:
			k.judged(EvidenceMissing, seq)
		default:
			k.judged(GateMissing, seq)
		}
	}
}
