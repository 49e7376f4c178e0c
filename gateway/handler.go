package gateway

import (
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	stdjson "encoding/json"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-gateway/writ"
)

// statusOf is the one table from outcomes to HTTP.
var statusOf = map[writ.Outcome]int{
	writ.OutcomeDone:    http.StatusOK,
	writ.OutcomeCreated: http.StatusCreated,
	writ.OutcomeEmpty:   http.StatusNoContent,
	writ.OutcomePending: http.StatusAccepted,
}

// governed is the handler of every operation: credential, call, door, reply.
func governed(cfg Config, route Route, c *writ.Capability) func(huma.Context) {
	params := route.Params()
	types := queryTypes(route, c.Args)
	if route.Method != http.MethodGet && !route.TakesBytes {
		clear(types) // arguments of a change travel in the body
	}
	large := c.Large || route.Capability == capabilityInvoke
	return func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		tr := traceOf(r)
		tr.operation = route.OperationID
		fail := func(err error, receipt *writ.Receipt) { refuse(cfg, w, tr, err, receipt) }

		cred, err := credential(r)
		if err != nil {
			fail(err, nil)
			return
		}
		call := &writ.Call{
			ID: tr.id, Capability: route.Capability, Credential: cred, ReceivedAt: tr.start.UnixMilli(), Salt: tr.salt,
		}
		if who, ok := identity(r.Context()); ok {
			call.Jailed = who.Jailed
		}
		if route.Method != http.MethodGet {
			if err := preconditions(call, r); err != nil {
				fail(err, nil)
				return
			}
		}
		members, err := pathArgs(r, params)
		if err == nil {
			var extra []byte
			if extra, err = queryArgs(r.URL.RawQuery, types); len(extra) > 0 {
				if len(members) > 0 {
					members = append(members, ',')
				}
				members = append(members, extra...)
			}
		}
		var body []byte
		if err == nil && route.TakesBytes {
			var u *upload
			sent := members
			if u, members, err = newUpload(cfg, w, r, *cred, members[:len(members):len(members)]); err == nil {
				defer u.discard()
				call.Body = u
				call.Sent, err = merge(sent, nil) // what is signed is what the caller says, and not what its transport does
			}
		} else if err == nil {
			var leave func()
			body, leave, err = readBody(cfg, w, r, *cred, large)
			defer leave()
		}
		if err == nil {
			call.Raw, err = merge(members, body)
		}
		if err == nil && route.Capability == capabilityInvoke {
			if err = unwrap(call, cfg); err == nil && cfg.Registry.Get(call.Capability) != nil { // never what the caller made up
				tr.operation, tr.via = string(call.Capability), tr.operation
			}
		}
		if err != nil {
			fail(err, nil)
			return
		}

		merged := call.Raw
		if k := cfg.Registry.Get(call.Capability); k != nil && k.Class == writ.Effectful { // what it does outside has a time of its own
			control := http.NewResponseController(w)
			_ = control.SetWriteDeadline(time.Time{})
			defer func() { _ = control.SetWriteDeadline(time.Now().Add(WriteTimeout)) }()
		}
		reply, receipt, err := cfg.Door.Do(r.Context(), call)
		showCheckpoint(cfg, w, err)
		if p := call.PolicyRevision; p != "" {
			w.Header().Set("Policy-Revision", p)
		} else if cfg.PolicyRevision != nil && err == nil {
			w.Header().Set("Policy-Revision", cfg.PolicyRevision())
		}
		if err != nil {
			if call.Via == "" {
				err = inBody(err, merged, body, params)
			}
			fail(err, receipt)
			return
		}
		if route.GivesBytes {
			if err := content(cfg, w, r, *cred, reply); err != nil {
				fail(err, nil)
			}
			return
		}
		if err := respond(cfg, w, call, reply, receipt); err != nil {
			fail(err, receipt)
		}
	}
}

// largeBody is the largest body of a call whose arguments may be large: a workflow, and
// what is said beside it.
const largeBody = writ.MaxWorkflowBytes + 64<<10

func tooLarge(limit int64) error {
	return writ.Refuse(writ.CodeTooLarge, "gateway.body", "the body is larger than "+strconv.FormatInt(limit, 10)+" bytes", "send less")
}

// roomy reads a body, and wants room before it reads more than is always read.
type roomy struct {
	io.ReadCloser
	left int64
	room func() error
}

func (b *roomy) Read(p []byte) (int, error) {
	if b.left == 0 && b.room != nil {
		if err := b.room(); err != nil {
			return 0, err
		}
		b.room = nil
	}
	if b.room != nil {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= min(b.left, int64(n))
	return n, err
}

// readBody reads at most the allowed size; the edge has set the time. What is larger
// than most bodies, where that is allowed, has a place among few until leave.
func readBody(cfg Config, w http.ResponseWriter, r *http.Request, who writ.Credential, large bool) (body []byte, leave func(), err error) {
	const op = "gateway.body"
	limit, leave, in := cfg.Limits.BodyBytes, func() {}, r.Body
	if large {
		in = &roomy{r.Body, limit + 1, func() error {
			err := cfg.large.enter(who)
			if err == nil {
				leave = func() { cfg.large.leave(who) }
			}
			return err
		}}
		limit = max(limit, largeBody)
	}
	if r.ContentLength > limit {
		return nil, leave, tooLarge(limit)
	}
	if !hasBody(r) {
		return nil, leave, nil
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil, leave, writ.Refuse(writ.CodeMalformed, op, "this operation takes no body", "send its arguments in the query")
	}
	if types := r.Header.Values("Content-Type"); len(types) != 1 || !isJSON(types[0]) {
		return nil, leave, writ.Refuse(writ.CodeMalformed, op, "the body is not declared as JSON", "send Content-Type: application/json")
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, in, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, leave, tooLarge(limit)
	}
	if refused, ok := errors.AsType[*writ.Error](err); ok {
		return nil, leave, refused
	}
	if err != nil {
		return nil, leave, &writ.Error{Code: writ.CodeMalformed, Op: op, Msg: "the body could not be read to its end", Hint: "send it again", Err: err}
	}
	// The call may wait for work far longer than a body may take.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, leave, nil
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

func isJSON(contentType string) bool {
	t, params, err := mime.ParseMediaType(contentType)
	if err != nil || t != "application/json" {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}

// Invocation is the body of capability.invoke.
type Invocation struct {
	Capability writ.CapabilityID `json:"capability"`
	Args       writ.RawObject    `json:"args,omitempty"`
}

// unwrap turns a call of capability.invoke into the call it asks for. What is
// no capability of the gateway's stays a call of capability.invoke, which knows
// why it cannot be made; its arguments are nobody's to read.
func unwrap(call *writ.Call, cfg Config) error {
	var args Invocation
	const op = "gateway.invoke"
	reg := cfg.Registry
	if tooBig(call.Raw, manyValues) != "" {
		return writ.Refuse(writ.CodeMalformed, op, "the body is not an invocation", `send {"capability": "…", "args": {…}}`)
	}
	if err := json.Unmarshal(call.Raw, &args, strict); err != nil {
		e := writ.Refuse(writ.CodeMalformed, op, "the body is not an invocation", `send {"capability": "…", "args": {…}}`)
		if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			e.Err = &badText{offset: int(syn.ByteOffset)}
			return inBody(e, call.Raw, call.Raw, nil)
		}
		return e
	}
	if !args.Capability.Valid() {
		e := writ.Refuse(writ.CodeInputInvalid, op, "the invocation names no capability", "GET /v1/capabilities lists them")
		e.Fields = []writ.FieldError{{Pointer: "/capability", Msg: "expected the id of a capability"}}
		return e
	}
	if reg.Get(args.Capability) == nil {
		call.Raw = stdjson.RawMessage(`{"capability":"` + string(args.Capability) + `"}`) // a valid id needs no escapes
		return nil
	}
	if !reg.Get(args.Capability).Large && int64(len(call.Raw)) > cfg.Limits.BodyBytes {
		return tooLarge(cfg.Limits.BodyBytes)
	}
	call.Via, call.Capability, call.Raw = capabilityInvoke, args.Capability, stdjson.RawMessage(args.Args)
	if len(call.Raw) == 0 {
		call.Raw = stdjson.RawMessage("{}")
	}
	return nil
}

// Envelope is the reply to an invocation.
type Envelope struct {
	Capability    writ.CapabilityID  `json:"capability" doc:"The capability that was called."`
	SchemaVersion string             `json:"schema_version" doc:"Version of this envelope." enum:"1.0"`
	Status        writ.Outcome       `json:"status" doc:"What became of the call." enum:"done,created,empty"`
	GeneratedAt   string             `json:"generated_at" doc:"When the envelope was made." format:"date-time"`
	Data          stdjson.RawMessage `json:"data" doc:"The reply of the capability; null when there is none."`
	Receipt       writ.ReceiptID     `json:"receipt,omitempty" doc:"Receipt of the transition; absent for reads."`
	Redacted      []string           `json:"redacted,omitempty" doc:"JSON pointers into data, * for every member or element: what policy keeps from the caller, and what stands there is not the value."`
	Limited       []writ.Limit       `json:"limited,omitempty" doc:"Arguments that were greater than policy allows, and what was used instead."`
}

// respond encodes an accepted call.
func respond(cfg Config, w http.ResponseWriter, call *writ.Call, reply writ.Reply, receipt *writ.Receipt) error {
	status, ok := statusOf[reply.Outcome]
	if !ok {
		return writ.Fault(writ.CodeInternal, "gateway.respond", errors.New("the reply has no known outcome"))
	}
	body := []byte(reply.JSON)
	if call.Via != "" {
		env := Envelope{
			Capability: call.Capability, SchemaVersion: "1.0", Status: reply.Outcome,
			GeneratedAt: writ.FormatTime(cfg.Now().UnixMilli()), Data: reply.JSON, Redacted: reply.Redacted, Limited: reply.Limited,
		}
		if receipt != nil {
			env.Receipt = receipt.ID
		}
		var err error
		if body, err = stdjson.Marshal(env); err != nil {
			return writ.Fault(writ.CodeInternal, "gateway.respond", err)
		}
		if status == http.StatusNoContent {
			status = http.StatusOK // the envelope says that there is nothing
		}
	}
	h := w.Header()
	if receipt != nil {
		h.Set("Receipt-Id", string(receipt.ID))
	}
	if reply.ETag > 0 {
		h.Set("ETag", `"`+strconv.FormatInt(reply.ETag, 10)+`"`)
	}
	for _, b := range reply.Budget {
		h.Add("Budget-Warning", b.Dimension+"="+strconv.FormatInt(b.Percent, 10))
	}
	if reply.Replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	if len(reply.Redacted) > 0 { // a pointer holds nothing that would have to be escaped
		h.Set("Policy-Redacted", `"`+strings.Join(reply.Redacted, `", "`)+`"`)
	}
	if len(reply.Limited) > 0 {
		h.Set("Policy-Limited", limits(reply.Limited))
	}
	if status == http.StatusNoContent {
		h.Set("Retry-After", "1")
		w.WriteHeader(status)
		return nil
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller is gone: nobody is left to tell
	return nil
}

// limits writes limits as a dictionary of integers (RFC 9651, 3.2).
func limits(all []writ.Limit) string {
	var out []string
	for _, l := range all {
		out = append(out, l.Argument+"="+strconv.FormatInt(l.Max, 10))
	}
	return strings.Join(out, ", ")
}

// refuse answers with a problem, and logs what the caller is not shown.
func refuse(cfg Config, w http.ResponseWriter, tr *trace, err error, receipt *writ.Receipt) {
	e := writ.AsError("gateway", err)
	if e.Receipt == "" && receipt != nil {
		c := *e
		c.Receipt = receipt.ID
		e = &c
	}
	tr.code = e.Code
	if StatusOf(e.Code) >= 500 {
		level := slog.LevelError
		if tr.caller.Err() != nil && e.Code != writ.CodeInternal {
			level = slog.LevelInfo // a call fails when its caller hangs up: nothing is wrong here, unless it is a defect
		}
		cfg.Log.Log(tr.caller, level, "call failed", slog.String("request_id", string(tr.id)), slog.String("operation", tr.operation),
			slog.String("code", string(e.Code)), slog.Any("error", e))
	}
	writeProblem(w, e, tr.id)
}
