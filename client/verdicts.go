package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/writ-gateway/writ"
)

// maxNamed is of how many artifacts a statement has the names, which say nothing that
// counts: with more of them it could be longer than a verdict may be.
const maxNamed = 64

// WithSignedVerdict gives VerifyTask or CloseRun the verdict as it was signed with the
// verifier's own key, as text: a DSSE envelope or a Sigstore bundle.
func WithSignedVerdict(text string) Option { return func(o *options) { o.verdict = text } }

// signedIn is the signed verdict among options.
func signedIn(opts []Option) string { return optionsOf(opts).verdict }

// WithGate has a completion say what a gate found: whether what the tasks gave that its
// task depends on passes. Tools that are declared as gates must say it.
func WithGate(s writ.GateStatus) Option { return func(o *options) { o.gate = s } }

func optionsOf(opts []Option) (o options) {
	for _, f := range opts {
		f(&o)
	}
	return o
}

// Judged is what a verdict is about, as the gateway shows it. Whoever judges compares
// the digests with what they looked at: what is signed is the verifier's word.
type Judged struct {
	Receipt   Receipt           // of the last change of the task, or run
	Artifacts []Artifact        // of the task, or of all tasks of the run
	Want      writ.VerdictWant  // what is to be signed; without the time and the keys
	Names     map[string]string // of its subjects, by digest
}

// JudgedTask reads what a verdict on a task is about.
func (c *Client) JudgedTask(ctx context.Context, id writ.TaskID, v writ.Verdict, gates []Gate, reasons []string) (j Judged, err error) {
	var t Task
	meta, err := c.Invoke(ctx, "task.get", taskArg{id}, &t)
	if err != nil {
		return j, err
	}
	j.Artifacts = t.Artifacts
	passed := map[string]bool{}
	for _, g := range gates {
		before, known := passed[g.Name]
		passed[g.Name] = g.Status == "pass" && (before || !known)
	}
	j.Want = writ.VerdictWant{Policy: meta.PolicyRevision, Properties: writ.VerdictProperties(writ.VerdictOn(writ.ObjectTask, string(id)), v, passed, reasons)}
	return j, c.judged(ctx, &j, writ.ObjectTask, string(id), t.Receipt)
}

// JudgedRun reads what a verdict on a run is about.
func (c *Client) JudgedRun(ctx context.Context, id writ.RunID, v writ.Verdict, reasons []string) (j Judged, err error) {
	var r Run
	meta, err := c.Invoke(ctx, "run.get", runArg{id}, &r)
	if err != nil {
		return j, err
	}
	for after := writ.TaskID(""); ; {
		page, err := c.ListTasks(ctx, id, writ.TaskDone, after)
		if err != nil {
			return j, err
		}
		for _, t := range page.Tasks {
			j.Artifacts = append(j.Artifacts, t.Artifacts...)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	j.Want = writ.VerdictWant{Policy: meta.PolicyRevision, Properties: writ.VerdictProperties(writ.VerdictOn(writ.ObjectRun, string(id)), v, nil, reasons)}
	return j, c.judged(ctx, &j, writ.ObjectRun, string(id), r.Receipt)
}

// judged reads the receipt, which must be the one by which this object waits for a verdict, and who
// judges from the session of the token.
func (c *Client) judged(ctx context.Context, j *Judged, kind, object string, id writ.ReceiptID) (err error) {
	if j.Receipt, err = c.GetReceipt(ctx, id); err != nil {
		return err
	}
	var env struct {
		Payload string `json:"payload"`
	}
	var payload []byte
	if err = json.Unmarshal(j.Receipt.Envelope, &env); err == nil {
		payload, err = base64.StdEncoding.Strict().DecodeString(env.Payload)
	}
	var says struct {
		Predicate struct {
			Receipt writ.ReceiptID `json:"receiptId"`
			Changes []struct {
				Kind string `json:"kind"`
				ID   string `json:"id"`
				To   string `json:"to"`
			} `json:"changes"`
		} `json:"predicate"`
	}
	if err == nil {
		err = json.Unmarshal(payload, &says)
	}
	if err != nil || says.Predicate.Receipt != id {
		return &writ.Error{Code: writ.CodeInternal, Op: "client.Judged", Msg: "the gateway shows another receipt than it was asked for", Hint: "do not sign anything, and tell who runs it", Err: err}
	}
	waits := false
	for _, m := range says.Predicate.Changes {
		if m.Kind == kind && m.ID == object {
			waits = m.To == string(writ.TaskVerifying)
		}
	}
	if !waits {
		return writ.Refuse(writ.CodeIllegal, "client.Judged", "it does not wait for a verdict", "task.get and run.get show its state; only what is verifying is judged")
	}
	var artifacts []string
	for _, a := range j.Artifacts {
		artifacts = append(artifacts, a.Digest)
	}
	receipt := writ.Receipt{Payload: payload}
	j.Want.Subjects = writ.VerdictSubjects(receipt, artifacts)
	j.Names = map[string]string{writ.VerdictSubjects(receipt, nil)[0]: "receipt/" + string(id)}
	named := j.Artifacts
	if len(named) > maxNamed {
		named = nil
	}
	for _, a := range named {
		j.Names[strings.TrimPrefix(a.Digest, "sha256:")] = "artifact/" + a.Name
	}
	who, err := c.identity()
	if err != nil {
		return err
	}
	s, err := c.GetSession(ctx, who.session)
	if err == nil && s.Agent == "" {
		err = writ.Refuse(writ.CodeNotEligible, "client.Judged", "only agents have keys, and this session is of none", "judge in the session of an agent that has registered keys")
	}
	j.Want.Agent = s.Agent
	return err
}
