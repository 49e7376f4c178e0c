package writtest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/writ-gateway/writ"
)

// Hops is how often a capability may ask for more reads.
const Hops = 4

// Planned is a call that was read and planned but not committed, so that a
// test can let another call in between.
type Planned struct {
	Call     *writ.Call
	Cap      *writ.Capability
	Snapshot writ.Snapshot
	Subject  writ.Subject
	Tx       writ.Tx
	Reply    writ.Reply
}

// Conflict says which guard, or which limit, did not hold at the commit.
type Conflict struct{ What string }

func (c *Conflict) Error() string { return "conflict: " + c.What }

// NewCall makes a call with a fresh id.
func (w *World) NewCall(c *writ.Capability, by writ.Caller, args any) *writ.Call {
	w.calls++
	var e [10]byte
	binary.BigEndian.PutUint64(e[2:], uint64(w.calls))
	return &writ.Call{
		ID:         writ.CallID(writ.MakeID(writ.PrefixCall, w.Now, e)),
		Capability: c.ID, ReceivedAt: w.Now, Caller: by, Args: args,
	}
}

// Call runs a capability from reads to commit. args is a pointer to the
// capability's argument type. A guard that fails is a *Conflict: with nothing
// in between there should be none.
func (w *World) Call(c *writ.Capability, by writ.Caller, args any) (writ.Reply, writ.Tx, error) {
	return w.Do(c, w.NewCall(c, by, args))
}

// Do is Call for a call the test made itself.
func (w *World) Do(c *writ.Capability, call *writ.Call) (writ.Reply, writ.Tx, error) {
	p, err := w.Plan(c, call)
	if err != nil {
		return writ.Reply{}, writ.Tx{}, err
	}
	reply, err := w.Commit(p)
	return reply, p.Tx, err
}

// Plan reads, describes and plans.
func (w *World) Plan(c *writ.Capability, call *writ.Call) (*Planned, error) {
	var first writ.ReadSet
	first.Docs = append(first.Docs, writ.GateKey)
	if call.Caller.Session != "" {
		first.Docs = append(first.Docs, writ.SessionKey(call.Caller.Session))
	}
	if call.Caller.Agent != "" {
		first.Docs = append(first.Docs, writ.AgentKey(call.Caller.Agent))
	}
	if w.docs[writ.QuotasKey].Version != 0 && c.Class != writ.Mandate && !c.ReadOnly() { // as the door does
		first.Docs = append(first.Docs, writ.QuotasKey)
	}
	s := w.Snapshot(writ.ReadSet{})
	for hop := 0; ; hop++ {
		want, err := c.Reads(call, s)
		if err != nil {
			return nil, err
		}
		if hop == 0 {
			want.Docs = append(want.Docs, first.Docs...)
		}
		want = s.Missing(want)
		if want.Empty() {
			break
		}
		if hop == max(Hops, c.Hops) {
			return nil, fmt.Errorf("%s still asks for reads after %d hops", c.ID, max(Hops, c.Hops))
		}
		for _, r := range want.Ranges {
			if r.Limit < 1 || r.Limit > 1000 {
				return nil, fmt.Errorf("%s reads a range with limit %d", c.ID, r.Limit)
			}
		}
		w.readInto(&s, want)
	}
	sub, err := c.Describe(call, s)
	if err != nil {
		return nil, err
	}
	d := writ.Decision{Effect: writ.EffectAllow}
	tx, reply, err := c.Plan(call, s, d)
	if err != nil {
		return nil, err
	}
	p := &Planned{Call: call, Cap: c, Snapshot: s, Subject: sub, Tx: tx, Reply: reply}
	if err := p.check(); err != nil {
		return nil, err
	}
	if !c.ReadOnly() {
		p.Tx.GuardSnapshot(s)
	}
	p.Tx.Call = call.ID
	return p, nil
}

// check holds a plan to the rules of planning.
func (p *Planned) check() error {
	tx := &p.Tx
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%s: %s", p.Cap.ID, fmt.Sprintf(format, a...))
	}
	if p.Cap.ReadOnly() && (!tx.Empty() || len(tx.Changes) > 0) {
		return bad("a read-only capability planned writes")
	}
	if p.Cap.Class == writ.Mandate && !tx.Mandate {
		return bad("a mandate did not mark its transaction")
	}
	moved := map[string]string{} // to what state
	for _, m := range tx.Changes {
		if !writ.LegalMove(m.Kind, m.From, m.To) {
			return bad("the move of %s %s from %q to %q is not legal", m.Kind, m.ID, m.From, m.To)
		}
		key := m.Kind + "/" + m.ID
		if to, twice := moved[key]; twice && to != m.From {
			return bad("%s moves to %q and then from %q", key, to, m.From)
		}
		moved[key] = m.To
	}
	receipt := p.Call.NewID(writ.PrefixReceipt, 0)
	for _, o := range tx.Ops {
		if o.Kind != writ.OpPut && o.Kind != writ.OpDelete {
			continue
		}
		if !p.Snapshot.Has(o.Key) {
			return bad("document %s is written but was not read", o.Key)
		}
		kind, _, _ := strings.Cut(string(o.Key), "/")
		for _, k := range writ.ObjectKinds() {
			if k != kind {
				continue
			}
			_, gate := moved["gate/gate"]
			if _, ok := moved[string(o.Key)]; !ok && !(o.Key == writ.GateKey && gate) {
				return bad("document %s is written without a move", o.Key)
			}
			var e struct {
				Kind string
				Body struct{ Receipt string }
			}
			if o.Kind == writ.OpPut {
				if err := json.Unmarshal(o.Body, &e); err != nil {
					return err
				}
				if e.Kind != kind || e.Body.Receipt != receipt {
					return bad("document %s has kind %q and receipt %q, want %q and %q", o.Key, e.Kind, e.Body.Receipt, kind, receipt)
				}
			}
		}
	}
	if len(tx.Changes) > 0 {
		tx.Fact = &writ.Fact{ID: writ.ReceiptID(receipt)}
	}
	return tx.Check()
}

// Commit checks the guards and applies the transaction, all or nothing, and
// finishes the reply.
func (w *World) Commit(p *Planned) (writ.Reply, error) {
	var version int64
	if !p.Cap.ReadOnly() {
		if err := w.Apply(p.Tx); err != nil {
			return writ.Reply{}, err
		}
		if p.Tx.Fact != nil {
			version = w.seq
			w.Facts = append(w.Facts, Fact{
				Call: p.Call.ID, Verb: p.Cap.ID, Receipt: p.Tx.Fact.ID, Changes: p.Tx.Changes, Version: version,
			})
		}
	}
	return finish(p.Reply, version)
}

func finish(r writ.Reply, version int64) (writ.Reply, error) {
	if r.ETag == -1 {
		r.ETag = version
	}
	if r.Body == nil {
		return r, nil
	}
	raw, err := json.Marshal(r.Body)
	if err != nil {
		return r, err
	}
	if len(r.Versioned) > 0 {
		var body map[string]any
		if err := json.Unmarshal(raw, &body); err != nil {
			return r, err
		}
		for _, path := range r.Versioned {
			at := body
			steps := strings.Split(path, ".")
			for _, step := range steps[:len(steps)-1] {
				next, ok := at[step].(map[string]any)
				if !ok {
					return r, fmt.Errorf("the body has no object at %q", path)
				}
				at = next
			}
			last := steps[len(steps)-1]
			if _, ok := at[last]; !ok {
				return r, fmt.Errorf("the body has no field at %q", path)
			}
			at[last] = version
		}
		if raw, err = json.Marshal(body); err != nil {
			return r, err
		}
	}
	r.JSON = raw
	return r, nil
}
