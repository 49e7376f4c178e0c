package pack

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// What a report says of whose word the end of a run rests on.
const (
	WordOfGateway = "the gateway's only: no verifier's own key signed it"
	WordOfKey     = "a verdict signed with " // and the key
	WordUnread    = "not to be said: what one needs to check the verdict that ends it is not there"
)

// saidOf is what a verdict says, by its arguments.
type saidOf struct {
	Receipt writ.ReceiptID `json:"receipt_id"`
	Gates   []struct {
		Gate    string         `json:"gate"`
		Status  string         `json:"status"`
		Receipt writ.ReceiptID `json:"receipt_id"`
	} `json:"gates"`
	Reasons []string `json:"reasons"`
	Tasks   []struct {
		Task    string         `json:"task_id"`
		Receipt writ.ReceiptID `json:"receipt_id"`
	} `json:"tasks"`
}

// cites says whether a verdict says of a check that it passed, by a receipt if there is one.
func (a saidOf) cites(check string, by writ.ReceiptID) (found bool) {
	for _, r := range a.Gates {
		switch {
		case r.Gate != check:
		case r.Status != string(writ.GatePass) || by != "" && r.Receipt != by:
			return false
		default:
			found = true
		}
	}
	return found
}

func (a saidOf) properties(v verdict, on string) []string {
	verdict, gates := writ.VerdictReject, map[string]bool{}
	if v.accept {
		verdict = writ.VerdictAccept
	}
	if v.task != nil {
		for _, r := range a.Gates {
			before, known := gates[r.Gate]
			gates[r.Gate] = r.Status == "pass" && (before || !known)
		}
	}
	return writ.VerdictProperties(on, verdict, gates, a.Reasons)
}

// word is the last verdict on the run.
type word struct {
	seq    int64
	key    string // of the signature that holds, "" for none; if unread, the one that the receipt names
	unread bool
}

// last is the last change of a task or of the run, and what was made by then.
type last struct {
	receipt writ.ReceiptID
	seq     int64
	payload string   // SHA-256, hex
	made    []string // artifacts, by their SHA-256 in hex
	told    bool     // what was made is
	shared  bool     // it brings something else to a verdict, too
}

// lastOf is a receipt as the last change of a task or of the run.
func lastOf(x heard, of writ.Change) last {
	return last{receipt: x.Statement.Receipt, seq: x.Commit.Seq, payload: x.payload, shared: slices.ContainsFunc(x.Statement.Changes, func(m writ.Change) bool {
		return (m.Kind == writ.ObjectTask || m.Kind == writ.ObjectRun) && m.To == string(writ.TaskVerifying) && (m.Kind != of.Kind || m.ID != of.ID)
	})}
}

// on is how a signed verdict names what it is on.
func (v verdict) on() string {
	if v.task != nil {
		return writ.VerdictOn(writ.ObjectTask, v.id)
	}
	return writ.VerdictOn(writ.ObjectRun, v.id)
}

// subjects are what a signed verdict on it must be about.
func (l last) subjects() []string {
	out := append([]string{l.payload}, l.made...)
	slices.Sort(out)
	return slices.Compact(out)
}

// signature holds a verdict to the signature of the verifier's own key, which the gateway
// never has, and gives the key: else the gateway could have said it alone. An agent that
// has keys must have signed. Where nobody can say whether it holds, it is unread.
func (k *chain) signature(x heard, v verdict, said saidOf) (keyID string, unread bool) {
	st, seq, of := x.Statement, x.Commit.Seq, v.of
	fail := func(code Code) (string, bool) {
		k.judged(code, seq)
		return "", Codes[code].Verdict == receipts.Incomplete
	}
	keys, sure := k.lineage.keysNow(st.Actor.Agent)
	switch {
	case !sure:
		return fail(LineageUnknown)
	case st.Verdict == nil && len(keys) > 0:
		return fail(VerdictUnsigned)
	case st.Verdict == nil:
		return "", false
	case !of.told || of.payload == "":
		return fail(EvidenceMissing)
	}
	env, ok := envelopeIn(x.ev.Object.Verdict, *st.Verdict)
	if !ok {
		return fail(VerdictSays)
	}
	want := writ.VerdictWant{
		Agent: st.Actor.Agent, Keys: keys, Properties: said.properties(v, v.on()), Subjects: of.subjects(),
		Policy: st.Decision.PolicyRevision, Now: x.Commit.At,
	}
	signed, err := receipts.CheckVerdict(env, want)
	if err != nil && badVerdict(err) == VerdictSays { // those of before do not say on what they are
		want.Properties = said.properties(v, "")
		signed, err = receipts.CheckVerdict(env, want)
		if err == nil && of.shared { // so this one could be on the other, which nobody says
			return fail(EvidenceMissing)
		}
	}
	if err != nil {
		return fail(badVerdict(err))
	}
	return signed.Key.ID, false
}

// forged says of a verdict that cannot be read whole, and whose receipt names a verifier's key that was given, what is
// wrong with its envelope, where that is there: whether the signature holds needs no more than the key.
func (k *chain) forged(x heard) Code {
	named := x.Statement.Verdict
	key, given := k.c.verifiers[named.KeyID]
	if !given || x.ev == nil || len(x.ev.Object.Verdict) == 0 {
		return ""
	}
	env, ok := envelopeIn(x.ev.Object.Verdict, *named)
	if !ok {
		return VerdictSays
	}
	if _, err := receipts.OpenVerdict(env, key); err != nil {
		return badVerdict(err)
	}
	return ""
}

func badVerdict(err error) Code {
	var e *writ.Error
	if errors.As(err, &e) {
		switch e.Details["reason"] {
		case writ.BadVerdictKey:
			return VerdictKey
		case writ.BadVerdictSignature:
			return VerdictSignature
		case writ.BadVerdictSubjects:
			return VerdictAbout
		}
	}
	return VerdictSays
}

// envelopeIn is the signed verdict that evidence keeps, if it is the one the receipt names.
func envelopeIn(kept jsontext.Value, named writ.VerdictRef) (env []byte, ok bool) {
	var in struct {
		Envelope jsontext.Value `json:"envelope"`
	}
	var e struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if json.Unmarshal(kept, &in) != nil || json.Unmarshal(in.Envelope, &e, json.RejectUnknownMembers(true)) != nil || e.PayloadType != receipts.PayloadType || len(e.Signatures) != 1 {
		return nil, false
	}
	keyID := e.Signatures[0].KeyID
	payload, good := bytesOf(e.Payload)
	sig, goodToo := bytesOf(e.Signatures[0].Sig)
	sum := sha256.Sum256(payload)
	if !good || !goodToo || keyID != named.KeyID || hex.EncodeToString(sum[:]) != named.Digest {
		return nil, false
	}
	env, err := receipts.Envelope(writ.Receipt{Payload: payload, Sig: sig, KeyID: keyID})
	return env, err == nil
}

func bytesOf(s string) ([]byte, bool) {
	b, ok := unbase64(s)
	return b, ok && len(b) > 0
}

// settled says whose word the end of the run rests on: a verdict on a task says nothing of
// its run.
func (k *chain) settled() {
	if !k.c.ask.Close {
		return
	}
	w := word{}
	if k.word.seq == *k.facts.Ended {
		w = k.word
	}
	if k.state == string(writ.RunDone) {
		switch {
		case w.key == "":
			k.facts.Word = WordOfGateway
		case w.unread:
			k.facts.Word = WordUnread
		default:
			k.facts.Word = WordOfKey + w.key
		}
	}
	if _, given := k.c.verifiers[w.key]; len(k.c.verifiers) > 0 && !given {
		k.judged(VerdictUntrusted, *k.facts.Ended)
	}
}
