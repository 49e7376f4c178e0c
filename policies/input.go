package policies

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// Keys of the input, in their order. Nothing changes one after it was made.
var (
	kAdmits     = newKey("admits")
	kAgent      = newKey("agent")
	kApproval   = newKey("approval")
	kBand       = newKey("band")
	kBudget     = newKey("budget")
	kCall       = newKey("call")
	kCapability = newKey("capability")
	kChanged    = newKey("changed")
	kChild      = newKey("child")
	kClaimed    = newKey("claimed")
	kClass      = newKey("class")
	kContent    = newKey("content")
	kContract   = newKey("contract")
	kCost       = newKey("cost")
	kDeclared   = newKey("declared")
	kDeferred   = newKey("deferred")
	kDomain     = newKey("domain")
	kDuty       = newKey("duty")
	kEffects    = newKey("effects")
	kEgress     = newKey("egress")
	kEntry      = newKey("entry")
	kEnv        = newKey("env")
	kExcluded   = newKey("excluded")
	kExecuted   = newKey("executed")
	kFits       = newKey("fits")
	kFound      = newKey("found")
	kGrant      = newKey("grant")
	kID         = newKey("id")
	kIntact     = newKey("intact")
	kJailed     = newKey("jailed")
	kKind       = newKey("kind")
	kKnown      = newKey("known")
	kLabels     = newKey("labels")
	kLimit      = newKey("limit")
	kLive       = newKey("live")
	kMethod     = newKey("method")
	kMetric     = newKey("metric")
	kMicroUSD   = newKey("microusd")
	kMode       = newKey("mode")
	kNewHost    = newKey("new_host")
	kNow        = newKey("now_ms")
	kOnExceed   = newKey("on_exceed")
	kOwned      = newKey("owned_elsewhere")
	kPath       = newKey("path")
	kPinned     = newKey("pinned")
	kPlanned    = newKey("planned")
	kPrice      = newKey("price")
	kPrincipal  = newKey("principal")
	kPrivate    = newKey("private")
	kQuotas     = newKey("quotas")
	kRaised     = newKey("raised")
	kReady      = newKey("ready")
	kRedirected = newKey("redirected")
	kReleased   = newKey("released")
	kRequested  = newKey("requested")
	kReserved   = newKey("reserved")
	kRole       = newKey("role")
	kRun        = newKey("run")
	kSafety     = newKey("safety")
	kScheme     = newKey("scheme")
	kScope      = newKey("scope")
	kScopes     = newKey("scopes")
	kSecret     = newKey("secret")
	kSession    = newKey("session")
	kSinks      = newKey("sinks")
	kSkill      = newKey("skill")
	kSource     = newKey("source")
	kStale      = newKey("stale")
	kState      = newKey("state")
	kStatus     = newKey("status")
	kSubject    = newKey("subject")
	kTask       = newKey("task")
	kUndeclared = newKey("undeclared")
	kVerified   = newKey("verified")
	kVia        = newKey("via")
	kVoted      = newKey("voted")
	kWaits      = newKey("waits")
	kWriteScope = newKey("write_scope")
)

// buildInput is the one place that decides what packs see: what
// schema/input.json describes, and nothing else. Arguments, names and texts of
// callers are not in it. Text that is empty is an absent key.
//
// It writes the value for OPA and, in the same pass, the same document as
// canonical JSON (RFC 8785) for the digest, so keys MUST be put in order.
func buildInput(in writ.PolicyInput) (ast.Value, []byte, error) {
	b := newBuilder()
	b.valued = true
	err := b.input(in)
	return b.done, b.json, err
}

// input writes the document: as JSON, and as a value if the builder makes values.
func (b *builder) input(in writ.PolicyInput) error {
	sub := in.Subject
	b.open(nil)
	if a := sub.Agent; a != nil {
		b.open(kAgent)
		b.text(kDomain, a.Domain)
		b.text(kID, string(a.ID))
		b.text(kStatus, string(a.Status))
		list(b, kWriteScope, a.WriteScope)
		b.shut()
	}
	if a := sub.Approval; a != nil {
		b.open(kApproval)
		b.boolean(kExcluded, a.Excluded)
		b.text(kID, string(a.ID))
		b.text(kKind, string(a.Kind))
		b.text(kScope, string(a.Scope))
		b.boolean(kStale, a.Stale)
		b.text(kState, string(a.State))
		b.boolean(kVoted, a.Voted)
		b.shut()
	}
	budget, err := byDimension(sub.Budget)
	if err != nil {
		return err
	}
	b.open(kBudget)
	for _, e := range budget {
		b.open(dimensionKey(e.Dimension))
		b.number(kBand, e.Band)
		b.number(kCost, e.Cost)
		b.boolean(kFits, e.Fits)
		b.number(kLimit, e.Limit)
		b.text(kOnExceed, e.OnExceed)
		if e.Waits {
			b.boolean(kWaits, true)
		}
		b.shut()
	}
	b.shut()
	b.open(kCall)
	b.text(kCapability, string(in.Capability.Judged()))
	b.text(kClass, string(in.Capability.Class))
	b.text(kSafety, string(in.Capability.Safety))
	b.text(kVia, string(in.Call.Via))
	b.shut()
	if c := sub.Content; c != nil {
		b.open(kContent)
		if c.Declared != nil {
			list(b, kDeclared, c.Declared)
		}
		b.boolean(kReleased, c.Released)
		b.boolean(kVerified, c.Verified)
		b.shut()
	}
	if d := sub.Duty; d != nil {
		b.open(kDuty)
		b.boolean(kExecuted, d.Executed)
		b.boolean(kPlanned, d.Planned)
		b.boolean(kRequested, d.Requested)
		b.shut()
	}
	if e := sub.Egress; e != nil {
		b.open(kEgress)
		if g := e.Grant; g != nil {
			b.open(kGrant)
			list(b, kAdmits, g.Admits)
			b.boolean(kFound, g.Found)
			b.text(kID, string(g.ID))
			b.boolean(kLive, g.Live)
			b.boolean(kMethod, g.Method)
			b.text(kMode, string(g.Mode))
			b.boolean(kPath, g.Path)
			b.boolean(kPrivate, g.Private)
			b.shut()
		}
		b.boolean(kJailed, e.Jailed)
		b.boolean(kNewHost, e.NewHost)
		b.boolean(kPinned, e.Pinned)
		b.boolean(kPrivate, e.Private)
		b.boolean(kRedirected, e.Redirected)
		b.text(kScheme, e.Scheme)
		b.boolean(kSecret, e.Secret)
		b.shut()
	}
	if e := sub.Entry; e != nil {
		b.open(kEntry)
		b.boolean(kContract, e.Contract)
		b.text(kDomain, e.Domain)
		b.text(kSafety, string(e.Safety))
		b.shut()
	}
	b.open(kEnv)
	b.number(kNow, in.Now-in.Now%1000)
	b.shut()
	if g := sub.Grant; g != nil {
		b.open(kGrant)
		b.boolean(kChild, g.Child)
		b.boolean(kFits, g.Fits)
		b.shut()
	}
	list(b, kLabels, sub.Labels)
	if p := sub.Price; p != nil {
		b.open(kPrice)
		b.boolean(kKnown, p.Known)
		b.number(kMicroUSD, p.MicroUSD)
		b.shut()
	}
	b.open(kPrincipal)
	b.text(kKind, string(in.Call.Caller.Kind))
	b.shut()
	b.openList(kQuotas)
	for _, q := range sub.Quotas {
		b.open(nil)
		b.boolean(kFits, q.Fits)
		b.number(kLimit, q.Limit)
		b.text(kMetric, q.Metric)
		b.text(kOnExceed, q.OnExceed)
		b.text(kSubject, q.Subject)
		b.shut()
	}
	b.shut()
	if r := sub.Run; r != nil {
		b.open(kRun)
		b.text(kID, string(r.ID))
		b.text(kState, string(r.State))
		b.shut()
	}
	b.open(kScopes)
	if sub.Claimed != nil {
		list(b, kClaimed, sub.Claimed)
	}
	list(b, kRequested, sub.Scopes)
	b.shut()
	if s := in.Session; s != nil {
		b.open(kSession)
		b.text(kID, string(s.ID))
		b.text(kRole, string(s.Role))
		b.text(kState, string(s.State))
		b.shut()
	}
	list(b, kSinks, sub.Sinks)
	if k := sub.Skill; k != nil {
		b.open(kSkill)
		b.boolean(kChanged, k.Changed)
		b.boolean(kEffects, k.Effects)
		b.boolean(kIntact, k.Intact)
		b.boolean(kPrivate, k.Private)
		b.boolean(kReady, k.Ready)
		b.boolean(kReserved, k.Reserved)
		b.text(kSource, k.Source)
		b.text(kState, k.State)
		b.boolean(kUndeclared, k.Undeclared)
		b.shut()
	}
	if t := sub.Task; t != nil {
		b.open(kTask)
		b.text(kApproval, string(t.Approval))
		b.text(kCapability, string(t.Capability))
		b.boolean(kDeferred, t.Deferred)
		b.text(kDomain, t.Domain)
		b.text(kID, string(t.ID))
		b.boolean(kOwned, t.OwnedElsewhere)
		b.boolean(kRaised, t.Raised)
		b.text(kSafety, string(t.Safety))
		b.text(kState, string(t.State))
		b.shut()
	}
	b.shut()
	return b.err
}

// byDimension orders the entries of a budget by the names they are put under.
// Names that two entries share, or that JSON would have to escape, are refused.
func byDimension(entries []writ.BudgetFacts) ([]writ.BudgetFacts, error) {
	byName := func(a, b writ.BudgetFacts) int { return strings.Compare(a.Dimension, b.Dimension) }
	if !slices.IsSortedFunc(entries, byName) {
		entries = slices.SortedFunc(slices.Values(entries), byName)
	}
	for i, e := range entries {
		if !plainName(e.Dimension) || i > 0 && entries[i-1].Dimension == e.Dimension {
			return nil, errors.New("the budget has a dimension twice, or one whose name is none")
		}
	}
	return entries, nil
}

// dimensions are the keys of a budget.
var dimensions = func() map[string]*key {
	m := map[string]*key{}
	for _, d := range slices.Sorted(slices.Values(writ.BudgetDimensions())) {
		m[d] = newKey(d)
	}
	return m
}()

func dimensionKey(name string) *key {
	if k := dimensions[name]; k != nil {
		return k
	}
	return &key{term: ast.StringTerm(name), json: `"` + name + `":`} // a plain name: nothing to escape
}

// plainName says whether s is made of lower case letters, digits and "_".
func plainName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != ""
}

// known holds the terms of texts that come from closed lists, so that they are
// not made again for every call. It is only read.
var known = func() map[string]*ast.Term {
	m := map[string]*ast.Term{}
	for _, s := range []string{
		string(writ.Ordinary), string(writ.Mandate), string(writ.Effectful),
		string(writ.SafetyReadOnly), string(writ.SafetyMutating), string(writ.SafetyDestructive), string(writ.SafetyBlocked),
		string(writ.KindHuman), string(writ.KindAgent), string(writ.KindService), string(writ.KindConnector), string(writ.KindSystem),
		string(writ.RunActive), string(writ.SessionOpened), string(writ.AgentSuspended), string(writ.AgentPlanned),
		string(writ.TaskQueued), string(writ.TaskRunning), string(writ.ApprovalAuto), string(writ.ApprovalManual),
		"hard_stop", "approval_required", "soft_warn",
	} {
		m[s] = ast.StringTerm(s)
	}
	for _, d := range slices.Concat(writ.BudgetDimensions(), writ.QuotaMetrics()) {
		m[d] = ast.StringTerm(d)
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
