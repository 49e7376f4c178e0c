package writ_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/runs"
)

// ink is how the crowd signs: a text says by whose key it is, and is believed. What
// keys are worth is for package receipts to show; here it is who signs what.
type ink struct {
	anyKey   bool // mutants: whoever signs,
	anything bool // and whatever it is about
}

// inForce are the policies of these tests.
const inForce = "sha256:0"

type inked struct {
	Key  string
	Says writ.VerdictWant
}

func (ink) Digest(text string) (string, error) {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]), nil
}

func (i ink) Check(text string, want writ.VerdictWant) (out writ.SignedVerdict, err error) {
	refuse := func(reason string) (writ.SignedVerdict, error) {
		return out, writ.RefuseVerdict("test.Check", reason, "", "")
	}
	var v inked
	if json.Unmarshal([]byte(text), &v) != nil {
		return refuse(writ.BadVerdictForm)
	}
	switch {
	case !i.anyKey && !slices.ContainsFunc(want.Keys, func(k writ.PublicKey) bool { return k.ID == v.Key }):
		return refuse(writ.BadVerdictKey)
	case v.Says.Now < want.Now-writ.VerdictFreshMs:
		return refuse(writ.BadVerdictTime)
	case i.anything:
	case v.Says.Agent != want.Agent:
		return refuse(writ.BadVerdictVerifier)
	case v.Says.Policy != want.Policy:
		return refuse(writ.BadVerdictPolicy)
	case !slices.Equal(v.Says.Properties, want.Properties):
		return refuse(writ.BadVerdictSaid)
	case !slices.Equal(v.Says.Subjects, want.Subjects):
		return refuse(writ.BadVerdictSubjects)
	}
	out.Digest, _ = i.Digest(text)
	out.Key.ID, out.At, out.Envelope = v.Key, v.Says.Now, []byte(text)
	return out, nil
}

// sealed is a receipt as far as verdicts look at it.
func sealed(id writ.ReceiptID) writ.Receipt {
	return writ.Receipt{ID: id, Payload: []byte("what was signed as " + id)}
}

// signs gives a verdict its signature, mostly that of who gives it: some forget it,
// find a used one, sign with a key of somebody else, or about something else.
func (h *history) signs(m move) {
	sign := func(key, on string, v writ.Verdict, about writ.ReceiptID, reasons []string) string {
		text, _ := json.Marshal(inked{key, writ.VerdictWant{
			Agent: m.by.Agent, Properties: writ.VerdictProperties(on, v, nil, reasons), Subjects: writ.VerdictSubjects(sealed(about), nil), Policy: inForce, Now: h.Now,
		}})
		return string(text)
	}
	how := h.r.IntN(12)
	text := func(on string, v writ.Verdict, about writ.ReceiptID, reasons []string) string {
		keys := h.keys[m.by.Agent]
		switch {
		case how == 0:
			return ""
		case how == 1 && len(h.spent) > 0:
			return h.spent[h.r.IntN(len(h.spent))]
		case how == 2:
			return sign([]string{"k1", "k2", "k3", "k4"}[h.r.IntN(4)], on, v, about, reasons)
		case len(keys) == 0:
			return ""
		case how == 3:
			return sign(keys[0], on, v, writ.ReceiptID(h.NewID(writ.PrefixReceipt)), reasons)
		case how == 4:
			return sign(keys[0], on, v, about, append([]string{"else"}, reasons...))
		case how == 5:
			return sign(keys[0], writ.VerdictOn("run", "run_else"), v, about, reasons)
		}
		return sign(keys[h.r.IntN(len(keys))], on, v, about, reasons)
	}
	switch a := m.args.(type) {
	case *queue.TaskVerifyArgs:
		a.Signed = text(writ.VerdictOn("task", string(a.Task)), a.Verdict, a.Receipt, a.Reasons)
	case *runs.RunCloseArgs:
		a.Signed = text(writ.VerdictOn("run", string(a.RunID)), a.Verdict, a.Receipt, a.Reasons)
	}
}

// signed says what is wrong with the signature of a verdict by somebody; was is the
// receipt of the object's last change before.
func (c *checker) signed(f stated, who opened, parts []opened, was writ.ReceiptID) string {
	if f.verdict == nil {
		if len(who.keys) > 0 {
			return "somebody judged by a token alone whose agent has keys"
		}
		return ""
	}
	var v inked
	if err := json.Unmarshal(f.verdict.Envelope, &v); err != nil {
		return err.Error()
	}
	switch {
	case !slices.Contains(who.keys, v.Key) || f.verdict.Key.ID != v.Key:
		return "a verdict is signed with a key its verifier does not have"
	case slices.ContainsFunc(parts, func(p opened) bool { return slices.Contains(p.keys, v.Key) }):
		return "a verdict is signed with a key of somebody who had a part"
	case c.used[f.verdict.Digest]:
		return "a signed verdict was used twice"
	case !c.lax && !slices.Equal(v.Says.Subjects, writ.VerdictSubjects(sealed(was), nil)):
		return "a signed verdict is about something else"
	}
	c.used[f.verdict.Digest] = true
	return ""
}
