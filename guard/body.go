package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/writ-gateway/writ"
)

// A call with a body is judged twice. First as it says it is, before a byte of
// the body is read: who may not make it cannot make the gateway take anything in.
// Then as it came, with the digest and size of what there is among its arguments;
// this is the call that is committed, and remembered by its Idempotency-Key.

// errBody says that a call would be accepted, and its body comes next.
type errBody struct{ max int64 }

func (e *errBody) Error() string { return "the body of the call has not come yet" }

// awaits says whether the call has a body that was not taken in yet.
func (t *try) awaits() bool { return t.call.Body != nil && t.call.Received == nil }

// wantsBody ends a try whose plan stands and whose body has not come.
func (t *try) wantsBody(tx writ.Tx, reply writ.Reply) error {
	if !t.awaits() {
		return nil
	}
	if err := t.d.admit(t.k, tx); err != nil {
		return err
	}
	return &errBody{max: reply.Accept}
}

// receive takes the body in, with no lock held, and puts what it is into the
// arguments.
func (t *try) receive(ctx context.Context, max int64) error {
	const op = "guard.receive"
	args, ok := t.call.Args.(writ.Receiver)
	if !ok {
		return writ.Fault(writ.CodeInternal, op, fmt.Errorf("%s takes no body", t.k.ID))
	}
	t.tries--
	got, err := t.call.Body.Receive(ctx, max)
	if err != nil {
		return err
	}
	if t.blind, err = args.Received(got); err != nil {
		return err
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return writ.Fault(writ.CodeInternal, op, err)
	}
	if t.call.Sent == nil {
		t.call.Sent = t.call.Raw
	}
	t.call.Raw, t.call.Digest, t.call.Memo, t.call.Received = raw, "", nil, &got
	return nil
}

// keep stores the body that was received, or what the arguments hold for it, before the commit that is about it: a
// change is never about bytes that are not there.
func (t *try) keep(ctx context.Context) error {
	store := func(context.Context) error { return nil }
	switch args, keeps := t.call.Args.(writ.Keeper); {
	case t.call.Received != nil:
		store = t.call.Body.Keep
	case !keeps || len(args.Kept()) == 0:
	case t.d.cfg.Blobs == nil:
		return &writ.Error{Code: writ.CodeNotReady, Op: "guard.keep", Msg: "this gateway has no store for what is as large", Hint: "operators: give it a store of blobs"}
	default:
		store = func(ctx context.Context) error {
			_, err := t.d.cfg.Blobs.Put(ctx, bytes.NewReader(args.Kept()))
			return err
		}
	}
	if err := store(ctx); err != nil {
		if e, ok := errors.AsType[*writ.Error](err); ok && e.Msg != "" {
			return e
		}
		return &writ.Error{
			Code: writ.CodeStore, Op: "guard.keep", RetryMs: 1000, Err: err,
			Msg: "the store of blobs does not answer", Hint: "repeat the call",
		}
	}
	return nil
}
