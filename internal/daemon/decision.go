package daemon

import (
	"context"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/registry"
)

// record reads the decision a receipt is of. If the policies that took it are
// held here, they are asked again: that they no longer decide the same must not
// happen, and is logged as an error.
func (d *Daemon) record(r writ.Receipt) (registry.PolicyRecord, error) {
	var opened []byte
	if r.Evidence != nil {
		if b, err := d.evidence(r); err == nil {
			opened = b
		}
	}
	rec, err := registry.RecordOf(r, opened)
	if err != nil || rec.Input == nil {
		return rec, err
	}
	rules := d.engine.OfRevision(rec.PolicyRevision)
	if rules == nil {
		return rec, nil
	}
	now, err := rules.Judge(context.Background(), rec.Capability, rec.Input)
	agrees := err == nil && now.Effect == rec.Effect
	if !agrees {
		d.log.Error("policies do not decide what they are recorded to have decided", "receipt", rec.ReceiptID, "error", err)
	}
	rec.Agrees = &agrees
	return rec, nil
}

// explain says why a decision was taken, by the policies that took it.
func (d *Daemon) explain(rec registry.PolicyRecord) (any, error) {
	const op = "daemon.explain"
	if rec.Input == nil {
		return nil, writ.Refuse(writ.CodeUnavailable, op, "the decision cannot be explained: "+rec.WhyNot, "choose a receipt of a call that policy decided")
	}
	rules := d.engine.OfRevision(rec.PolicyRevision)
	if rules == nil {
		return nil, writ.Refuse(writ.CodeUnavailable, op, "the policies that decided are not held here any more", "stage the bundle of the revision named in details, and ask again").
			With("policy_revision", rec.PolicyRevision)
	}
	out, err := rules.Explain(context.Background(), rec.Capability, rec.Input)
	if err != nil {
		return nil, writ.Fault(writ.CodePolicyDown, op, err)
	}
	return out, nil
}
