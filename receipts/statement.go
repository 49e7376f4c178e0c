package receipts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/jcs"
)

// Types of what is signed. They are part of every signature and never change;
// another shape gets another version.
const (
	StatementType  = "https://in-toto.io/Statement/v1"
	PayloadType    = "application/vnd.in-toto+json"
	TransitionType = "https://writ-gateway.github.io/writ/attestation/transition/v1"
	ExportHeadType = "https://writ-gateway.github.io/writ/attestation/export-head/v1"
	ManifestType   = "https://writ-gateway.github.io/writ/attestation/key-manifest/v1"
)

// The shapes below are the signed text. encoding/json writes struct fields in
// their order and map keys sorted, so fields stand in the order of their JSON
// names; every string is of the closed alphabet, so nothing needs an escape.
// Together that makes the output canonical (RFC 8785); a test holds it to
// that, and Decode checks it for every text it reads.
type (
	statement struct {
		Type          string    `json:"_type"`
		Predicate     predicate `json:"predicate"`
		PredicateType string    `json:"predicateType"`
		Subject       []subject `json:"subject"`
	}
	subject struct {
		Digest struct {
			SHA256 string `json:"sha256"`
		} `json:"digest"`
		Name string `json:"name"`
	}
	predicate struct {
		Actor      actor            `json:"actor,omitzero"`
		Budget     map[string]int64 `json:"budget,omitempty"`
		Call       call             `json:"call"`
		Changes    []change         `json:"changes,omitempty"`
		Code       string           `json:"code,omitempty"`
		Commit     commit           `json:"commit"`
		Count      int64            `json:"count,omitempty"`
		Decision   decision         `json:"decision,omitzero"`
		Effect     *effect          `json:"effect,omitempty"`
		Evidence   string           `json:"evidence,omitempty"`
		Fence      int64            `json:"fence,omitempty"`
		Key        keyFact          `json:"key,omitzero"`
		KeyID      string           `json:"keyId"`
		Labels     []string         `json:"labels,omitempty"`
		Log        origin           `json:"log"`
		Nonce      string           `json:"nonce"`
		Outcome    string           `json:"outcome"`
		Parents    []string         `json:"parents,omitempty"`
		Receipt    string           `json:"receiptId"`
		Run        string           `json:"run,omitempty"`
		Task       string           `json:"task,omitempty"`
		Tenant     string           `json:"tenant"`
		Transition string           `json:"transition"`
		Verdict    *verdict         `json:"verdict,omitempty"`
	}
	verdict struct {
		Digest string `json:"digest"`
		KeyID  string `json:"keyId"`
	}
	actor struct {
		Agent   string `json:"agent,omitempty"`
		Kind    string `json:"kind,omitempty"`
		Role    string `json:"role,omitempty"`
		Session string `json:"session,omitempty"`
	}
	call struct {
		Capability string `json:"capability"`
		ID         string `json:"id,omitempty"`
		Version    string `json:"version,omitempty"`
	}
	change struct {
		From string `json:"from"`
		ID   string `json:"id"`
		Kind string `json:"kind"`
		To   string `json:"to"`
	}
	commit struct {
		At     string `json:"at"`
		Epoch  string `json:"epoch"`
		RunSeq int64  `json:"runSeq,omitempty"`
		Seq    int64  `json:"seq"`
	}
	decision struct {
		Bindings string   `json:"bindings,omitempty"`
		Effect   string   `json:"effect,omitempty"`
		Input    string   `json:"input,omitempty"`
		Packs    []pack   `json:"packs,omitempty"`
		Policy   string   `json:"policy,omitempty"`
		Rules    []string `json:"rules,omitempty"`
	}
	pack struct {
		Digest string `json:"digest"`
		ID     string `json:"id"`
	}
	effect struct {
		Attempt int64            `json:"attempt"`
		Code    string           `json:"code,omitempty"`
		Held    map[string]int64 `json:"held,omitempty"`
		Late    bool             `json:"late,omitempty"`
		Secrets []secret         `json:"secrets,omitempty"`
		Settled map[string]int64 `json:"settled,omitempty"`
	}
	secret struct {
		ID      string `json:"id"`
		Version int64  `json:"version"`
	}
	keyFact struct {
		ID      string `json:"id"`
		Purpose string `json:"purpose"`
		Since   int64  `json:"since,omitempty"`
		SPKI    string `json:"spki"`
	}
	origin struct {
		Origin string `json:"origin"`
	}
)

func (d decision) IsZero() bool {
	return d.Bindings+d.Effect+d.Input+d.Policy == "" && len(d.Packs)+len(d.Rules) == 0
}

// hole is the commit of a statement nobody has committed yet. It occurs once:
// no string of a statement can hold a quotation mark.
const hole = `{"at":"","epoch":"","seq":0}`

// Draft renders the statement, cut at the place where the commit's values go:
// writ.StoredFact.Payload puts them between head and tail. It refuses what a
// receipt may not hold: a word outside the closed lists and alphabets, a
// change in a denial, a count in anything but an aggregate.
func Draft(st writ.Statement) (head, tail []byte, err error) {
	if err := check(st); err != nil {
		return nil, nil, writ.Fault(writ.CodeInternal, "receipts.Draft", err)
	}
	text, err := json.Marshal(shape(st))
	if err != nil {
		return nil, nil, writ.Fault(writ.CodeInternal, "receipts.Draft", err)
	}
	head, tail, ok := bytes.Cut(text, []byte(hole))
	if !ok || bytes.Contains(tail, []byte(hole)) {
		return nil, nil, writ.Fault(writ.CodeInternal, "receipts.Draft", fmt.Errorf("the statement has no single place for its commit"))
	}
	return slices.Clip(head), tail, nil
}

func shape(st writ.Statement) statement {
	p := predicate{
		Actor:  actor{Agent: string(st.Actor.Agent), Kind: string(st.Actor.Kind), Role: string(st.Actor.Role), Session: string(st.Actor.Session)},
		Budget: st.Budget,
		Call:   call{Capability: st.Transition, ID: string(st.Call), Version: st.Version},
		Code:   string(st.Code), Count: st.Count, Evidence: st.Evidence, Fence: st.Fence,
		Decision: decision{
			Bindings: st.Decision.BindingsRevision, Effect: string(st.Decision.Effect), Input: st.Decision.InputDigest,
			Policy: st.Decision.PolicyRevision, Rules: st.Decision.Rules(),
		},
		Key:   keyFact{ID: st.Key.ID, Purpose: string(st.Key.Purpose), Since: st.Key.Since, SPKI: st.Key.SPKI},
		KeyID: st.KeyID, Log: origin{st.Log}, Nonce: hex.EncodeToString(st.Nonce[:]), Outcome: st.Outcome,
		Receipt: string(st.Receipt), Run: string(st.Run), Task: string(st.Task), Tenant: string(st.Tenant), Transition: st.Transition,
	}
	for _, c := range st.Changes {
		p.Changes = append(p.Changes, change{From: c.From, ID: c.ID, Kind: c.Kind, To: c.To})
	}
	for _, ref := range st.Decision.Packs {
		p.Decision.Packs = append(p.Decision.Packs, pack{Digest: ref.Digest, ID: ref.ID})
	}
	for _, l := range st.Labels {
		p.Labels = append(p.Labels, string(l))
	}
	for _, id := range st.Parents {
		p.Parents = append(p.Parents, string(id))
	}
	if v := st.Verdict; v != nil {
		p.Verdict = &verdict{Digest: v.Digest, KeyID: v.KeyID}
	}
	if e := st.Effect; e != nil {
		p.Effect = &effect{Attempt: e.Attempt, Code: string(e.Code), Held: e.Held, Late: e.Late, Settled: e.Settled}
		for _, u := range e.Secrets {
			p.Effect.Secrets = append(p.Effect.Secrets, secret{ID: string(u.ID), Version: u.Version})
		}
	}
	about := subject{Name: "receipt/" + string(st.Receipt)}
	if len(st.Changes) > 0 {
		about.Name = st.Changes[0].Kind + "/" + st.Changes[0].ID
	}
	about.Digest.SHA256 = st.Evidence
	if st.Evidence == "" { // in-toto wants a digest: that of the receipt's id
		about.Digest.SHA256 = digest([]byte(st.Receipt))
	}
	return statement{Type: StatementType, Predicate: p, PredicateType: TransitionType, Subject: []subject{about}}
}

// SubjectDigest is the digest a statement is about: what stock tools ask for.
func SubjectDigest(st writ.Statement) string { return shape(st).Subject[0].Digest.SHA256 }

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// MaxWord is how long any one string of a statement may be.
const MaxWord = 200

var (
	kinds      = writ.ObjectKinds()
	principals = []writ.PrincipalKind{"", writ.KindHuman, writ.KindAgent, writ.KindService, writ.KindConnector, writ.KindSystem}
	roles      = []writ.Role{"", writ.RoleOperator, writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier, writ.RoleApprover, writ.RoleAuditor, writ.RoleConnector, writ.RoleSystem}
	effects    = []writ.Effect{"", writ.EffectAllow, writ.EffectRedact, writ.EffectRequireApproval, writ.EffectDeny}
)

// word says whether s is of the closed alphabet of statements.
func word(s string) bool {
	if len(s) > MaxWord {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("._:/@+-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// opensApproval says whether a change asks people for something.
func opensApproval(c writ.Change) bool {
	return c.Kind == writ.ObjectApproval && c.From == "" && c.To == string(writ.ApprovalPending)
}

// hexDigest says whether s is a SHA-256 in lower-case hex.
func hexDigest(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// checkKey says what is wrong with a key a statement is about. A receipt of one of the
// transitions of keys says which, and no other does.
func checkKey(st writ.Statement) string {
	about := st.Outcome == writ.OutcomeOfTransition && slices.Contains(writ.KeyTransitions(), st.Transition)
	k := st.Key
	switch {
	case about != (k != writ.KeyFact{}):
		return "a key, or what is said without one,"
	case !about:
		return ""
	case !keyIDPattern.MatchString(k.ID), k.Purpose != writ.KeyReceipt, !hexDigest(k.SPKI), k.Since < 0, k.Since > jcs.MaxInt, k.Since > 0 && st.Transition != writ.KeyRevoke:
		return "the key"
	case !slices.ContainsFunc(st.Changes, func(c writ.Change) bool { return c.Kind == writ.ObjectKey && c.ID == k.SPKI }):
		return "a key that does not change"
	}
	return ""
}

// checkEffect says what is wrong with what a statement says of an effect. One that changes
// the state of an effect says it of that one, and no other does.
func checkEffect(st writ.Statement) string {
	moves := 0
	var move writ.Change
	for _, c := range st.Changes {
		if c.Kind == writ.ObjectEffect {
			move = c
			moves++
		}
	}
	e := st.Effect
	switch {
	case moves > 1, (moves == 1) != (e != nil):
		return "an effect, or what is said without one,"
	case e == nil:
		return ""
	case st.Outcome != writ.OutcomeOfTransition, !writ.EffectID(move.ID).Valid(), e.Attempt < 1, e.Attempt > jcs.MaxInt:
		return "an effect"
	case e.Code != "" && !slices.Contains(writ.Codes(), e.Code), e.Code != "" && move.To != string(writ.IntentError) && move.To != string(writ.IntentUnknown):
		return "the code of an effect"
	case e.Late && move.From != string(writ.IntentUnknown):
		return "an effect that is late"
	case badAmounts(e.Held), badAmounts(e.Settled), len(e.Held)+len(e.Secrets) > 0 && move.To != string(writ.IntentUnderWay):
		return "what an effect uses"
	}
	for _, u := range e.Secrets {
		if !u.ID.Valid() || u.Version < 1 || u.Version > jcs.MaxInt {
			return "what an effect puts into what it sends"
		}
	}
	return ""
}

// badAmounts says whether amounts by dimension are none.
func badAmounts(amounts map[string]int64) bool {
	for dim, n := range amounts {
		if !slices.Contains(writ.BudgetDimensions(), dim) || n < 0 || n > jcs.MaxInt {
			return true
		}
	}
	return false
}

// check holds a statement to the closed lists. Errors name the field and never
// the value.
func check(st writ.Statement) error {
	bad := func(field string) error { return fmt.Errorf("%s is not of the form a receipt may hold", field) }
	opt := func(valid bool, s string) bool { return s == "" || valid }
	for _, f := range [...]struct {
		name string
		ok   bool
	}{
		{"receipt", st.Receipt.Valid()},
		{"call", opt(st.Call.Valid(), string(st.Call))},
		{"tenant", st.Tenant.Valid()},
		{"log", ValidOrigin(st.Log)},
		{"transition", st.Transition != "" && word(st.Transition)},
		{"version", word(st.Version)},
		{"code", st.Code == "" || slices.Contains(writ.Codes(), st.Code)},
		{"agent", opt(st.Actor.Agent.Valid(), string(st.Actor.Agent))},
		{"kind", slices.Contains(principals, st.Actor.Kind)},
		{"role", slices.Contains(roles, st.Actor.Role)},
		{"session", opt(st.Actor.Session.Valid(), string(st.Actor.Session))},
		{"run", opt(st.Run.Valid(), string(st.Run))},
		{"task", opt(st.Task.Valid(), string(st.Task))},
		{"fence", st.Fence >= 0 && st.Fence <= jcs.MaxInt},
		{"count", st.Count >= 0 && st.Count <= jcs.MaxInt},
		{"key id", st.KeyID != "" && word(st.KeyID)},
		{"evidence", opt(hexDigest(st.Evidence), st.Evidence)},
		{"effect", slices.Contains(effects, st.Decision.Effect)},
		{"revisions", word(st.Decision.PolicyRevision) && word(st.Decision.BindingsRevision) && word(st.Decision.InputDigest)},
	} {
		if !f.ok {
			return bad(f.name)
		}
	}
	if p := checkKey(st); p != "" {
		return bad(p)
	}
	if p := checkEffect(st); p != "" {
		return bad(p)
	}
	for _, c := range st.Changes {
		if !slices.Contains(kinds, c.Kind) || c.ID == "" || !word(c.ID) || !word(c.From) || c.To == "" || !word(c.To) {
			return bad("a change")
		}
	}
	for _, l := range st.Labels {
		if !slices.Contains(writ.Labels(), l) {
			return bad("a label")
		}
	}
	for _, id := range st.Parents {
		if !id.Valid() {
			return bad("a parent")
		}
	}
	for _, ref := range st.Decision.Packs {
		if ref.ID == "" || !word(ref.ID) || !word(ref.Digest) {
			return bad("a pack")
		}
	}
	for _, f := range st.Decision.Findings {
		if f.Rule == "" || !word(f.Rule) {
			return bad("a rule")
		}
	}
	for name, n := range st.Budget {
		if name == "" || !word(name) || n > jcs.MaxInt || n < -jcs.MaxInt {
			return bad("the budget")
		}
	}
	if v := st.Verdict; v != nil && (!hexDigest(v.Digest) || !keyIDPattern.MatchString(v.KeyID) || st.Outcome != writ.OutcomeOfTransition) {
		return bad("the signed verdict")
	}
	switch st.Outcome {
	case writ.OutcomeOfTransition:
		if st.Code != "" || st.Count != 0 {
			return bad("a transition with a code or a count")
		}
	case writ.OutcomeOfRequest:
		if st.Code != "" || st.Count != 0 || len(st.Budget) > 0 || !slices.ContainsFunc(st.Changes, opensApproval) {
			return bad("a request that opens no approval, or with a code, a count or a charge")
		}
	case writ.OutcomeOfDenial:
		if st.Code == "" || st.Count != 0 || len(st.Changes) > 0 {
			return bad("a denial without a code, or with changes or a count")
		}
	case writ.OutcomeOfAggregate:
		if st.Count == 0 || len(st.Changes) > 0 {
			return bad("an aggregate without a count, or with changes")
		}
	default:
		return bad("outcome")
	}
	return nil
}
