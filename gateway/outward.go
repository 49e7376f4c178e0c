package gateway

import (
	"context"
	"net/http"

	stdjson "encoding/json"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress"
)

// egressFetch is the one call that leads out.
const egressFetch writ.CapabilityID = "egress.fetch"

// outward answers requests that are meant for hosts outside. There are such on a Face
// only: elsewhere a token would have to come along, and could go out with the rest.
func outward(cfg Config, who Identity, w http.ResponseWriter, r *http.Request) {
	tr := traceOf(r)
	tr.operation = string(egressFetch)
	p := &egress.Proxy{
		Auth:     authorizer{cfg, who, tr},
		Fail:     func(w http.ResponseWriter, _ *http.Request, err error) { refuse(cfg, w, tr, err, nil) },
		BodyTime: cfg.Limits.BodyTime,
	}
	p.ServeHTTP(w, r)
}

// authorizer has the door judge attempts. What lets one pass also carries it out: with
// the streams of the call, once its intent is committed.
type authorizer struct {
	cfg Config
	who Identity
	tr  *trace
}

// Authorize implements [egress.Authorizer].
func (o authorizer) Authorize(ctx context.Context, a egress.Attempt, s *egress.Streams) error {
	args := map[string]any{"length": a.Length}
	switch a.Mode {
	case egress.Reverse:
		args["grant"], args["path"] = a.Grant, a.Path
	case egress.Forward:
		args["to"] = "http://" + a.Target.String() + a.Path
	case egress.Connect:
		args["to"], args["mode"] = a.Target.String(), string(writ.EgressTunnel)
	}
	if a.Mode != egress.Connect {
		args["method"] = a.Method
		if a.Query != "" {
			for _, name := range []string{"path", "to"} {
				if text, ok := args[name].(string); ok {
					args[name] = text + "?" + a.Query
				}
			}
		}
	}
	call, err := o.call(args)
	if err != nil {
		return err
	}
	call.Streams = s
	reply, receipt, err := o.cfg.Door.Do(ctx, call)
	if err == nil && reply.Outcome == writ.OutcomePending { // nothing has happened, and a proxy has no way to say so but a refusal
		e := writ.Refuse(writ.CodeApprovalRequired, "gateway.outward", "people must agree to this first", "make the same request again once they have, or use egress.fetch, which shows what is waited for")
		if p, ok := reply.Body.(writ.Pending); ok {
			e = e.With("approval", string(p.Approval))
		}
		if receipt != nil {
			e.Receipt = receipt.ID // of the request to them
		}
		return e
	}
	return err
}

// Deny implements [egress.Authorizer].
func (o authorizer) Deny(ctx context.Context, method, to string, why error) error {
	call, err := o.call(map[string]any{"method": method, "to": to})
	if err != nil {
		return err
	}
	call.Refused = writ.AsError("gateway.outward", why)
	if _, _, err = o.cfg.Door.Do(ctx, call); err == nil {
		err = why // it is none the less
	}
	return err
}

// call is a call of the session that speaks here.
func (o authorizer) call(args map[string]any) (*writ.Call, error) {
	raw, err := stdjson.Marshal(args)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "gateway.outward", err)
	}
	cred := o.who.Credential
	return &writ.Call{
		ID: o.tr.id, Capability: egressFetch, Credential: &cred, ReceivedAt: o.tr.start.UnixMilli(), Salt: o.tr.salt,
		Raw: raw, Jailed: o.who.Jailed,
	}, nil
}
