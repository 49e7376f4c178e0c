package writtest

import (
	"maps"

	"github.com/writ-gateway/writ"
)

// Obligor is the part of guard.Obligor that charges calls.
type Obligor interface {
	Reads(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject) (writ.ReadSet, error)
	Facts(c *writ.Call, k *writ.Capability, s writ.Snapshot, moves func() bool, sub *writ.Subject) error
	Oblige(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, tx *writ.Tx) (map[string]int64, []writ.BudgetWarning, error)
}

// Charge is Call with the part of an obligor, as the door adds it to an allowed
// call. It says what the call was charged.
func (w *World) Charge(k *writ.Capability, by writ.Caller, args any, o Obligor) (writ.Reply, map[string]int64, error) {
	call := w.NewCall(k, by, args)
	p, took, err := w.PlanCharged(k, call, o)
	if err != nil {
		return writ.Reply{}, nil, err
	}
	reply, err := w.Commit(p)
	return reply, took, err
}

// PlanCharged is Plan with the part of an obligor.
func (w *World) PlanCharged(k *writ.Capability, call *writ.Call, o Obligor) (*Planned, map[string]int64, error) {
	p, err := w.Plan(k, call)
	if err != nil {
		return nil, nil, err
	}
	s := p.Snapshot
	for {
		rs, err := o.Reads(call, k, s, p.Subject)
		if err != nil {
			return nil, nil, err
		}
		if rs = s.Missing(rs); rs.Empty() {
			break
		}
		more := w.Snapshot(rs)
		maps.Copy(s.Docs, more.Docs)
		maps.Copy(s.Counters, more.Counters)
	}
	if err := o.Facts(call, k, s, func() bool { return len(p.Tx.Changes) > 0 }, &p.Subject); err != nil {
		return nil, nil, err
	}
	took, _, err := o.Oblige(call, k, s, p.Subject, &p.Tx)
	return p, took, err
}
