package writ

import (
	"errors"
	"fmt"
)

// Code is the stable, public name of a failure. The gateway owns the one table
// that maps codes to HTTP statuses; the client uses it backwards.
type Code string

const (
	CodeMalformed        Code = "malformed"              // the request is not well formed
	CodeTooLarge         Code = "too_large"              // body over the limit
	CodeUnauthenticated  Code = "unauthenticated"        // no, wrong or dead credential
	CodeRBAC             Code = "rbac_denied"            // the role may not invoke the capability
	CodePolicy           Code = "policy_denied"          // a rule denies this call
	CodeScope            Code = "scope_denied"           // a write outside the agent's scope
	CodeBudget           Code = "budget_exceeded"        // a hard limit of the run
	CodeClassification   Code = "classification_denied"  // data may not flow there
	CodeEgress           Code = "egress_denied"          // the call may not go there
	CodeSoD              Code = "sod_violation"          // nobody judges what they had a part in
	CodeApprovalRequired Code = "approval_required"      // a person must agree first
	CodeApprovalDenied   Code = "approval_denied"        // a person said no, or agreed to something else
	CodeNotFound         Code = "not_found"              // unknown, or not yours to know
	CodeIllegal          Code = "illegal_transition"     // the state machine has no such move
	CodeVersion          Code = "version_conflict"       // If-Match no longer holds
	CodeNotHolder        Code = "not_holder"             // somebody else's lease
	CodeNotEligible      Code = "not_eligible"           // this agent may not take the task
	CodeClaimed          Code = "already_claimed"        // somebody else holds the task
	CodeLeaseLost        Code = "lease_lost"             // the lease or fence is no longer yours
	CodeScopeConflict    Code = "scope_conflict"         // another task holds an overlapping scope
	CodeDeps             Code = "deps_unmet"             // the task depends on others that have not ended
	CodeHandoffLoop      Code = "handoff_loop"           // the work was handed on too often
	CodePreflight        Code = "preflight_unhealthy"    // an agent the work needs is not healthy
	CodePredicate        Code = "predicate_unsatisfied"  // what must be shown for this is missing, or out of date
	CodeVerdict          Code = "verdict_refused"        // the signature of a verdict is missing, or does not count
	CodeArtifact         Code = "artifact_digest"        // stored bytes are gone, or not those of their digest
	CodeShredded         Code = "evidence_shredded"      // the key of the evidence was destroyed
	CodeExists           Code = "already_exists"         // the name is taken
	CodeUnavailable      Code = "capability_unavailable" // known, but not callable now
	CodeInputInvalid     Code = "input_invalid"          // arguments fail their schema
	CodeNoAgent          Code = "no_eligible_agent"      // nobody could ever run the task
	CodeIdempotency      Code = "idempotency_mismatch"   // same key, other request
	CodeTokenIssued      Code = "token_already_issued"   // a secret is shown once
	CodeInFlight         Code = "in_flight"              // the request of this key is being carried out
	CodeEffectFailed     Code = "effect_failed"          // what was to be done outside did not succeed
	CodeEffectStopped    Code = "effect_stopped"         // it was stopped before its end
	CodeEffectUnknown    Code = "effect_unknown"         // nobody knows whether it has happened
	CodePaused           Code = "run_paused"             // the run waits
	CodeQuota            Code = "quota_exceeded"         // a rate or concurrency limit
	CodeBackpressure     Code = "backpressure"           // the gateway sheds load
	CodeContention       Code = "contention"             // too many conflicts; try again
	CodeStore            Code = "store_unavailable"      // nothing happened
	CodePolicyDown       Code = "policy_unavailable"     // policy cannot answer: fail closed
	CodeReceiptPending   Code = "receipt_pending"        // committed, not yet sealed: repeat with the key
	CodeUpgrade          Code = "upgrade"                // written by a newer version
	CodeNotReady         Code = "not_ready"              // starting or stopping
	CodeInternal         Code = "internal"               // a defect of ours
)

// Codes lists every code, for tables and documentation.
func Codes() []Code {
	return []Code{
		CodeMalformed, CodeTooLarge, CodeUnauthenticated, CodeRBAC, CodePolicy, CodeScope, CodeBudget,
		CodeClassification, CodeEgress, CodeSoD, CodeApprovalRequired, CodeApprovalDenied, CodeNotFound, CodeIllegal, CodeVersion, CodeNotHolder, CodeNotEligible, CodeClaimed, CodeLeaseLost,
		CodeScopeConflict, CodeDeps, CodeHandoffLoop, CodePreflight, CodePredicate, CodeVerdict, CodeArtifact, CodeShredded, CodeExists, CodeUnavailable, CodeInputInvalid, CodeNoAgent, CodeIdempotency, CodeTokenIssued, CodeInFlight, CodeEffectFailed, CodeEffectStopped, CodeEffectUnknown, CodePaused,
		CodeQuota, CodeBackpressure, CodeContention, CodeStore, CodePolicyDown, CodeReceiptPending, CodeUpgrade,
		CodeNotReady, CodeInternal,
	}
}

// Receipted says whether a refusal with this code is a denial that must leave
// a receipt. Malformed requests, unknown ids and outages leave none.
func (c Code) Receipted() bool {
	switch c {
	case CodeRBAC, CodePolicy, CodeScope, CodeBudget, CodeClassification, CodeEgress, CodeSoD, CodeApprovalRequired, CodeApprovalDenied, CodeIllegal, CodeNotHolder, CodeNotEligible, CodeClaimed, CodeLeaseLost,
		CodeScopeConflict, CodeDeps, CodeHandoffLoop, CodePreflight, CodePredicate, CodeVerdict, CodeArtifact, CodeExists, CodeUnavailable, CodePaused, CodeQuota, CodeNoAgent:
		return true
	}
	return false
}

// Passes says whether what was refused with this code may go through a moment later, though
// nobody changed it: the store, policy, the load or a start is in its way.
func (c Code) Passes() bool {
	switch c {
	case CodeStore, CodeContention, CodeBackpressure, CodePolicyDown, CodeNotReady:
		return true
	}
	return false
}

// FieldError points at one argument. Pointer is a JSON pointer (RFC 6901);
// Msg never contains the value.
type FieldError struct {
	Pointer string `json:"pointer"`
	Msg     string `json:"message"`
}

// Error is the one error type that crosses package borders. Msg and Hint are
// safe to show to the caller and never hold what the caller sent; Err is for
// the log.
type Error struct {
	Code    Code
	Op      string // "queue.Claim"
	Msg     string
	Hint    string            // what the caller can do next
	Rules   []string          // policy rules, for denials
	Details map[string]string // ids and enums only, e.g. holder_agent, from, to
	Fields  []FieldError
	Missing []string // required arguments that were absent
	Probes  []Probe  // of agents that are not healthy
	RetryMs int64    // Retry-After

	Precondition bool // what the caller made a condition does not hold (If-Match)

	Once *Once // a denial that is receipted once in a time; nil: each time

	Receipt    ReceiptID // the denial's receipt
	Aggregated bool      // counted in an aggregate instead of a receipt of its own
	Err        error
}

// Once says that of denials like this one only the first has a receipt, as long
// as the counter holds the time At or a later one. The others are counted.
type Once struct {
	Counter Counter
	At      int64
}

func (e *Error) Error() string {
	s := string(e.Code)
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Msg != "" {
		s += ": " + e.Msg
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// With returns a copy of e with one more detail.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Details = make(map[string]string, len(e.Details)+1)
	for k, v := range e.Details {
		c.Details[k] = v
	}
	c.Details[key] = value
	return &c
}

// Refuse makes an Error with a message and a hint.
func Refuse(code Code, op, msg, hint string) *Error {
	return &Error{Code: code, Op: op, Msg: msg, Hint: hint}
}

// Fault wraps an unexpected error as code (CodeInternal, CodeStore, …).
func Fault(code Code, op string, err error) *Error { return &Error{Code: code, Op: op, Err: err} }

// CodeOf is the code of err; CodeInternal when it carries none, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// AsError returns err as *Error, wrapping it as CodeInternal when it is none.
func AsError(op string, err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Fault(CodeInternal, op, err)
}

// IllegalMove is the refusal for a move the state machine does not have.
func IllegalMove(op, kind, from, to string) *Error {
	e := &Error{Code: CodeIllegal, Op: op, Hint: "read the " + kind + " again and act on its present state"}
	switch from {
	case to:
		e.Msg, e.Hint = fmt.Sprintf("the %s is %s already", kind, to), "read the "+kind+" again: it is where this call would bring it"
	case "":
		e.Msg = fmt.Sprintf("the %s is not there, so it cannot become %q", kind, to)
	default:
		e.Msg = fmt.Sprintf("the %s is %q and cannot become %q", kind, from, to)
	}
	return e.With("kind", kind).With("from", from).With("to", to)
}
