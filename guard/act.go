package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/writ-gateway/writ"
)

// begun is an effect whose intent is committed, or may be.
type begun struct {
	*intent
	fence int64 // the version of its document
}

// act carries out an effect whose intent is committed, with no lock and no slot held, and
// commits what became of it. The answer to the call is the outcome. intended and ierr are
// what became of the intent: without a receipt of it nothing is done outside.
func (d *Door) act(ctx context.Context, t *try, begins writ.Reply, intended *writ.Receipt, ierr error) (writ.Reply, *writ.Receipt, error) {
	b := t.begun
	out := writ.EffectSettleArgs{Effect: b.doc.ID, Attempt: b.doc.Attempt, State: writ.IntentError}
	var by writ.Call
	if err := d.Stamp(&by); err != nil && ierr == nil {
		ierr = err
	}
	out.By = by.ID
	if ierr != nil {
		out.Code = writ.CodeOf(ierr)
		d.effects.do(func() { _, _ = d.settleEffect(t.call.Caller.Tenant, out) })
		return writ.Reply{}, nil, ierr
	}

	a := &writ.Acting{
		Effect: b.doc.ID, Attempt: b.doc.Attempt, Intent: intended.ID, Call: t.call,
		Detail: b.errand.Detail, Secrets: b.errand.Secrets, Meter: writ.NewMeter(t.sub.Charge),
	}
	run, u := d.effects.begin(ctx, d, t)
	reply, err := d.carryOut(a.With(run), a)
	var failed, unsaid *writ.Error // unsaid: it has happened, and the answer cannot say so
	out.State, failed = outcomeOf(run, err)
	if failed != nil {
		out.Code = failed.Code
	} else {
		reply.Limited, reply.Budget, reply.Durability = begins.Limited, begins.Budget, begins.Durability
		reply.Effect, reply.Intent = a.Effect, a.Intent
		if reply.Outcome == "" {
			reply.Outcome = writ.OutcomeDone
		}
		unsaid = writ.AsError("guard.act", t.finish(&reply, writ.Committed{Seq: -1}))
	}
	out.Used = a.Meter.Used()
	if failed == nil && unsaid == nil && t.call.IdempotencyKey != "" {
		if out.Reply, err = t.keptReply(a.Effect, reply); err != nil {
			d.cfg.Log.ErrorContext(ctx, "the reply of an effect is not kept", "effect", a.Effect, "error", err)
		}
	}

	// What has happened is noted whoever has gone meanwhile.
	type noted struct {
		r   *writ.Receipt
		err error
	}
	done := make(chan noted, 1)
	d.effects.do(func() {
		defer d.effects.end(u)
		r, err := d.settleEffect(t.call.Caller.Tenant, out)
		done <- noted{r, err}
	})
	wait := time.NewTimer(settleWait)
	defer wait.Stop()
	var receipt *writ.Receipt
	select {
	case n := <-done:
		receipt, err = n.r, n.err
	case <-wait.C:
		err = &writ.Error{
			Code: writ.CodeStore, Op: "guard.act", RetryMs: 1000,
			Msg: "it was carried out, and what became of it is not committed yet", Hint: "repeat the call with the same Idempotency-Key",
		}
	}
	if err != nil {
		return writ.Reply{}, nil, writ.AsError("guard.act", err).With("effect", string(a.Effect))
	}
	if failed == nil {
		failed = unsaid
	}
	if failed != nil {
		failed = failed.With("effect", string(a.Effect))
		failed.Receipt = receipt.ID
		return writ.Reply{}, nil, failed
	}
	return reply, receipt, nil
}

// settleWait is how long a caller waits for the outcome to be committed.
const settleWait = 15 * time.Second

// carryOut calls the effector. One that panics leaves nobody knowing what has happened.
func (d *Door) carryOut(ctx context.Context, a *writ.Acting) (reply writ.Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.cfg.Log.Error("an effector panicked", "capability", a.Call.Capability, "effect", a.Effect, "stack", string(debug.Stack()))
			reply, err = writ.Reply{}, &writ.Error{
				Code: writ.CodeEffectUnknown, Op: "guard.act", Err: errors.New("the effector panicked"),
				Msg: "nobody knows whether what was asked for has happened", Hint: "find out before you ask again",
			}
		}
	}()
	return d.cfg.Effectors[a.Call.Capability].Act(ctx, a)
}

// outcomeOf says what became of an effect. An effector that cannot tell says so with
// CodeEffectUnknown; one that cannot pass on what was answered, with writ.Happened. One
// that failed after it was stopped failed for that.
func outcomeOf(run context.Context, err error) (writ.IntentState, *writ.Error) {
	if err == nil {
		return writ.IntentOK, nil
	}
	is := writ.IntentError
	if _, happened := errors.AsType[*writ.Happened](err); happened {
		is = writ.IntentOK
	}
	c := *writ.AsError("guard.act", err) // it may be shared
	e := &c
	switch {
	case e.Code == writ.CodeEffectUnknown:
		return writ.IntentUnknown, e
	case run.Err() != nil:
		why, ok := errors.AsType[*writ.Error](context.Cause(run))
		if !ok {
			why = stopped("caller")
		}
		s := *why
		s.Err = err
		return is, &s
	case e.Code == "" || e.Code == writ.CodeInternal && e.Msg == "":
		f := writ.Refuse(writ.CodeEffectFailed, "guard.act", "what was to be done outside did not succeed", "its receipt says that; operators see the cause in the log")
		if is == writ.IntentOK {
			f = writ.Refuse(writ.CodeEffectFailed, "guard.act", "it was done, and the answer did not come through whole", "do not ask again for what must happen once; its receipt says that it has")
		}
		f.Err = err
		return is, f
	}
	return is, e
}

// stopped is why an effect was stopped.
func stopped(reason string) *writ.Error {
	return writ.Refuse(writ.CodeEffectStopped, "guard.act", "it was stopped before its end", "reason in details says why").With("reason", reason)
}

// keptReply is the document of the reply for who asks again under the same key.
func (t *try) keptReply(id writ.EffectID, reply writ.Reply) (writ.RawObject, error) {
	body, withheld, err := withoutSecrets(reply.Body)
	if err != nil {
		return nil, err
	}
	body, redacted, err := redact(body, t.hidden(reply))
	if err != nil {
		return nil, err
	}
	rec := kept{
		Digest: t.call.Digest, Outcome: reply.Outcome, Body: body, Redacted: redacted, Limited: t.limited, Withheld: withheld, Durability: reply.Durability,
	}
	if withheld || len(body) > maxReply {
		rec.Body, rec.Withheld = json.RawMessage("null"), true
	}
	return writ.EncodeDoc(writ.Snapshot{}, writ.EffectReplyKey(id), "effectreply", rec)
}

// settleFor is how long an outcome is tried to be committed. Until then the sweeper may
// have called the effect unknown: the outcome is late, and holds.
const settleFor = 10 * time.Minute

// settleEffect commits what became of an effect, however often that takes.
func (d *Door) settleEffect(shard writ.Tenant, out writ.EffectSettleArgs) (*writ.Receipt, error) {
	ctx, cancel := context.WithTimeout(d.effects.alive, settleFor)
	defer cancel()
	if len(out.Reply) == 0 {
		out.Reply = nil
	}
	wait := 50 * time.Millisecond
	for {
		r, err := d.settleOnce(ctx, shard, out)
		switch code := writ.CodeOf(err); {
		case err == nil, code == writ.CodeEffectStopped, code == writ.CodeInputInvalid, code == writ.CodeMalformed, ctx.Err() != nil:
			if err != nil {
				d.cfg.Log.Error("what became of an effect is not committed", "effect", out.Effect, "state", out.State, "error", err)
			}
			return r, err
		}
		pause(ctx, wait)
		wait = min(2*wait, 5*time.Second)
	}
}

func (d *Door) settleOnce(ctx context.Context, shard writ.Tenant, out writ.EffectSettleArgs) (*writ.Receipt, error) {
	try, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reply, receipt, err := d.System(try, shard, writ.EffectSettle, &out, nil)
	if receipt != nil && err == nil {
		return receipt, nil
	}
	if err != nil {
		return nil, err
	}
	var is writ.EffectSettled
	if err := json.Unmarshal(reply.JSON, &is); err != nil {
		return nil, writ.Fault(writ.CodeInternal, "guard.settle", fmt.Errorf("the outcome of an effect: %w", err))
	}
	if !is.Taken {
		return nil, stopped("lease")
	}
	return &writ.Receipt{ID: is.Receipt, Seq: is.Version - 1}, nil
}
