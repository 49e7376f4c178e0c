package policies

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// Keys of the input, made once. Nothing changes a term after it was made.
var (
	kAgent      = ast.StringTerm("agent")
	kBand       = ast.StringTerm("band")
	kBudget     = ast.StringTerm("budget")
	kCall       = ast.StringTerm("call")
	kCapability = ast.StringTerm("capability")
	kClass      = ast.StringTerm("class")
	kCost       = ast.StringTerm("cost")
	kDimension  = ast.StringTerm("dimension")
	kDomain     = ast.StringTerm("domain")
	kEnv        = ast.StringTerm("env")
	kFits       = ast.StringTerm("fits")
	kID         = ast.StringTerm("id")
	kKind       = ast.StringTerm("kind")
	kLabels     = ast.StringTerm("labels")
	kLimit      = ast.StringTerm("limit")
	kNow        = ast.StringTerm("now_ms")
	kOnExceed   = ast.StringTerm("on_exceed")
	kPrincipal  = ast.StringTerm("principal")
	kRequested  = ast.StringTerm("requested")
	kRole       = ast.StringTerm("role")
	kRun        = ast.StringTerm("run")
	kSafety     = ast.StringTerm("safety")
	kScopes     = ast.StringTerm("scopes")
	kSession    = ast.StringTerm("session")
	kSinks      = ast.StringTerm("sinks")
	kState      = ast.StringTerm("state")
	kStatus     = ast.StringTerm("status")
	kTask       = ast.StringTerm("task")
	kVia        = ast.StringTerm("via")
	kWriteScope = ast.StringTerm("write_scope")
)

// buildInput is the one place that decides what packs see: what
// schema/input.json describes, and nothing else. Arguments, names and texts of
// callers are not in it. Text that is empty is an absent key.
//
// It writes the value for OPA and, in the same pass, the same document as
// canonical JSON (RFC 8785) for the digest, so keys MUST be put in order.
func buildInput(in writ.PolicyInput) (ast.Value, []byte, error) {
	b := builder{json: make([]byte, 0, 1536), items: make([][2]*ast.Term, 0, 24)}
	sub := in.Subject
	b.open(nil)
	if a := sub.Agent; a != nil {
		b.open(kAgent)
		b.text(kDomain, a.Domain)
		b.text(kID, string(a.ID))
		b.text(kStatus, string(a.Status))
		list(&b, kWriteScope, a.WriteScope)
		b.shut()
	}
	b.openList(kBudget)
	for _, e := range sub.Budget {
		b.open(nil)
		b.number(kBand, e.Band)
		b.number(kCost, e.Cost)
		b.text(kDimension, e.Dimension)
		b.boolean(kFits, e.Fits)
		b.number(kLimit, e.Limit)
		b.text(kOnExceed, e.OnExceed)
		b.shut()
	}
	b.shut()
	b.open(kCall)
	b.text(kCapability, string(in.Capability.ID))
	b.text(kClass, string(in.Capability.Class))
	b.text(kSafety, string(in.Capability.Safety))
	b.text(kVia, string(in.Call.Via))
	b.shut()
	b.open(kEnv)
	b.number(kNow, in.Now-in.Now%1000)
	b.shut()
	list(&b, kLabels, sub.Labels)
	b.open(kPrincipal)
	b.text(kKind, string(in.Call.Caller.Kind))
	b.shut()
	if r := sub.Run; r != nil {
		b.open(kRun)
		b.text(kID, string(r.ID))
		b.text(kState, string(r.State))
		b.shut()
	}
	b.open(kScopes)
	list(&b, kRequested, sub.Scopes)
	b.shut()
	if s := in.Session; s != nil {
		b.open(kSession)
		b.text(kID, string(s.ID))
		b.text(kRole, string(s.Role))
		b.text(kState, string(s.State))
		b.shut()
	}
	list(&b, kSinks, sub.Sinks)
	if t := sub.Task; t != nil {
		b.open(kTask)
		b.text(kCapability, string(t.Capability))
		b.text(kDomain, t.Domain)
		b.text(kID, string(t.ID))
		b.text(kSafety, string(t.Safety))
		b.text(kState, string(t.State))
		b.shut()
	}
	b.shut()
	return b.done, b.json, b.err
}

// known holds the terms of texts that come from closed lists, so that they are
// not made again for every call. It is only read.
var known = func() map[string]*ast.Term {
	m := map[string]*ast.Term{}
	for _, s := range []string{
		string(writ.Ordinary), string(writ.Mandate),
		string(writ.SafetyReadOnly), string(writ.SafetyMutating), string(writ.SafetyDestructive), string(writ.SafetyBlocked),
		string(writ.KindHuman), string(writ.KindAgent), string(writ.KindService), string(writ.KindConnector), string(writ.KindSystem),
		string(writ.RunActive), string(writ.SessionOpened), string(writ.AgentSuspended), string(writ.AgentPlanned),
		string(writ.TaskQueued), string(writ.TaskRunning), writ.BudgetSteps, "hard_stop",
	} {
		m[s] = ast.StringTerm(s)
	}
	for _, r := range allRoles {
		m[string(r)] = ast.StringTerm(string(r))
	}
	for _, l := range writ.Labels() {
		m[string(l)] = ast.StringTerm(string(l))
	}
	for _, s := range writ.Sinks() {
		m[string(s)] = ast.StringTerm(string(s))
	}
	return m
}()

func textTerm(s string) *ast.Term {
	if t := known[s]; t != nil {
		return t
	}
	return ast.StringTerm(s)
}

func numberTerm(n int64) *ast.Term {
	if n >= 0 && n <= 100 {
		return ast.InternedTerm(int(n))
	}
	return ast.NewTerm(ast.Number(strconv.FormatInt(n, 10)))
}
