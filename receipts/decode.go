package receipts

import (
	"bytes"
	"encoding/hex"
	"errors"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/jcs"
)

// Record is what a sealed statement says, read back.
type Record struct {
	Statement writ.Statement // findings carry their rule only
	Commit    writ.Committed
}

var errForm = errors.New("the statement is not in the form this version writes")

// Decode reads a transition statement strictly: it must be canonical JSON
// (RFC 8785), hold known fields and closed words only, and drafting what it
// says must give the same bytes again. So two readers cannot understand one
// payload differently. It does not look at signatures.
func Decode(payload []byte) (Record, error) {
	if err := jcs.Check(payload); err != nil {
		return Record{}, err
	}
	var s statement
	if err := strict(payload, &s); err != nil {
		return Record{}, errForm
	}
	p := s.Predicate
	st := writ.Statement{
		Receipt: writ.ReceiptID(p.Receipt), Call: writ.CallID(p.Call.ID), Tenant: writ.Tenant(p.Tenant), Log: p.Log.Origin,
		Transition: p.Transition, Version: p.Call.Version, Outcome: p.Outcome, Code: writ.Code(p.Code),
		Actor: writ.Actor{
			Agent: writ.AgentID(p.Actor.Agent), Kind: writ.PrincipalKind(p.Actor.Kind),
			Role: writ.Role(p.Actor.Role), Session: writ.SessionID(p.Actor.Session),
		},
		Run: writ.RunID(p.Run), Task: writ.TaskID(p.Task), Fence: p.Fence, Budget: p.Budget, Evidence: p.Evidence,
		Count: p.Count, KeyID: p.KeyID,
		Key: writ.KeyFact{ID: p.Key.ID, Purpose: writ.KeyPurpose(p.Key.Purpose), SPKI: p.Key.SPKI, Since: p.Key.Since},
		Decision: writ.Decision{
			Effect: writ.Effect(p.Decision.Effect), PolicyRevision: p.Decision.Policy,
			BindingsRevision: p.Decision.Bindings, InputDigest: p.Decision.Input,
		},
	}
	for _, c := range p.Changes {
		st.Changes = append(st.Changes, writ.Change{Kind: c.Kind, ID: c.ID, From: c.From, To: c.To})
	}
	for _, l := range p.Labels {
		st.Labels = append(st.Labels, writ.Label(l))
	}
	for _, id := range p.Parents {
		st.Parents = append(st.Parents, writ.ReceiptID(id))
	}
	for _, ref := range p.Decision.Packs {
		st.Decision.Packs = append(st.Decision.Packs, writ.PackRef{ID: ref.ID, Digest: ref.Digest})
	}
	for _, rule := range p.Decision.Rules {
		st.Decision.Findings = append(st.Decision.Findings, writ.Finding{Rule: rule})
	}
	if e := p.Effect; e != nil {
		st.Effect = &writ.EffectFact{Attempt: e.Attempt, Code: writ.Code(e.Code), Held: e.Held, Late: e.Late, Settled: e.Settled}
		for _, u := range e.Secrets {
			st.Effect.Secrets = append(st.Effect.Secrets, writ.SecretUse{ID: writ.SecretID(u.ID), Version: u.Version})
		}
	}
	if v := p.Verdict; v != nil {
		st.Verdict = &writ.VerdictRef{Digest: v.Digest, KeyID: v.KeyID}
	}
	if n, err := hex.Decode(st.Nonce[:], []byte(p.Nonce)[:min(len(p.Nonce), 32)]); err != nil || n != len(st.Nonce) {
		return Record{}, errForm
	}
	at, err := parseTime(p.Commit.At)
	if err != nil {
		return Record{}, errForm
	}
	c := writ.Committed{Epoch: p.Commit.Epoch, Seq: p.Commit.Seq, RunSeq: p.Commit.RunSeq, At: at}
	if c.Seq < 0 || c.RunSeq < 0 || (st.Run != "") != (c.RunSeq > 0) || c.Epoch == "" || !word(c.Epoch) {
		return Record{}, errForm
	}
	head, tail, err := Draft(st)
	if err != nil {
		return Record{}, err
	}
	again := writ.StoredFact{Fact: writ.Fact{Run: st.Run, Head: head, Tail: tail}, Commit: c}.Payload()
	if !bytes.Equal(again, payload) {
		return Record{}, errForm
	}
	return Record{Statement: st, Commit: c}, nil
}

// strict decodes one JSON value into v and refuses fields that are unknown, there
// twice, or in other letters. Canonical form is the caller's to check.
func strict(text []byte, v any) error {
	return json.Unmarshal(text, v, json.RejectUnknownMembers(true))
}

// parseTime is the inverse of writ.FormatTime and accepts nothing else.
func parseTime(s string) (ms int64, err error) {
	t, err := time.Parse("2006-01-02T15:04:05.000Z", s)
	if err != nil || writ.FormatTime(t.UnixMilli()) != s {
		return 0, errForm
	}
	return t.UnixMilli(), nil
}
