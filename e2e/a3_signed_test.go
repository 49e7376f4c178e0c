package e2e

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// signer is a verifier with a key of its own.
type signer struct {
	caller
	key    *receipts.CosignKey
	public writ.PublicKey
	policy string
}

func (w *world) signer(agent writ.AgentID, controller string, key *receipts.CosignKey, pem string) signer {
	w.t.Helper()
	public, err := receipts.ParsePublicKey(pem)
	if err != nil {
		w.t.Fatal(err)
	}
	return signer{
		caller: w.verifier(string(agent), controller, agent), key: key, public: public,
		policy: w.op.ok(200, "GET", "/v1/policy", nil).str("policy_revision"),
	}
}

// about is the receipt of the last change of what a path names.
func (s signer) about(path string) writ.Receipt {
	s.t.Helper()
	id := s.ok(200, "GET", path, nil).str("receipt")
	env := s.ok(200, "GET", "/v1/receipts/"+id, nil).str("envelope", "payload")
	payload, err := base64.StdEncoding.DecodeString(env)
	if err != nil {
		s.t.Fatal(err)
	}
	return writ.Receipt{ID: writ.ReceiptID(id), Payload: payload}
}

// want is what a verdict on that, now, must say.
func (s signer) want(about writ.Receipt, artifacts []string, properties []string) writ.VerdictWant {
	return writ.VerdictWant{
		Agent: s.agent, Keys: []writ.PublicKey{s.public}, Policy: s.policy, Now: time.Now().UnixMilli(),
		Subjects: writ.VerdictSubjects(about, artifacts), Properties: properties,
	}
}

func (s signer) signs(want writ.VerdictWant) string {
	s.t.Helper()
	text, err := receipts.VerdictStatement(want, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := s.key.SignVerdict(text)
	if err != nil {
		s.t.Fatal(err)
	}
	env, err := receipts.Envelope(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(env)
}

// A verifier that has a key closes nothing without it, and with it only what it signed:
// not by its token, with the key of somebody who worked, with a key that was taken away,
// nor with a verdict that was used or is about something else.
func TestA3T2T5SignedVerdicts(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		dir := t.TempDir()
		mine, minePEM := newKey(t, filepath.Join(dir, "checker.pem"))
		theirs, theirsPEM := newKey(t, filepath.Join(dir, "worker.pem"))
		later, laterPEM := newKey(t, filepath.Join(dir, "later.pem"))
		w.agent("worker", "web", "executor", tool, []string{"fs:else/"}, obj{"keys": []string{theirsPEM}})
		w.agent("checker", "web", "verifier", "", []string{}, obj{"keys": []string{minePEM}})
		w.agent("twin", "web", "verifier", "", []string{}, obj{"keys": []string{theirsPEM}})
		worker := w.session("worker", writ.RoleExecutor, "worker")
		checker, twin := w.signer("checker", "vera", mine, minePEM), w.signer("twin", "vince", theirs, theirsPEM)

		c.judgedRun()
		run := "/v1/runs/" + c.run
		task := c.enqueue("one", obj{"verify": obj{"required": true, "gates": []string{"tests"}}, "produces": []obj{{"name": "site", "media_type": "text/plain", "required": true}}})
		c.orc.ok(200, "POST", run+"/seal", nil)
		path := "/v1/tasks/" + task
		work := func(text string) (site []string) {
			l := worker.claim(task)
			site = []string{worker.put(l, "site", text)}
			worker.ok(200, "POST", path+"/complete", l.hold(obj{"artifacts": []obj{{"name": "site", "digest": site[0]}}}))
			return site
		}
		site := work("bytes")
		passed := obj{"gates": []obj{{"gate": "tests", "status": "pass"}}}
		on := writ.VerdictOn("task", task)
		says := writ.VerdictProperties(on, writ.VerdictAccept, map[string]bool{"tests": true}, nil)
		_, accept := checker.verdict(path, "accept", passed)
		with := func(body obj, text string) obj {
			out := obj{"verdict_dsse": text}
			for k, v := range body {
				out[k] = v
			}
			return out
		}
		refused := func(by caller, path string, body obj, reason string) {
			t.Helper()
			r := by.do("POST", path, body)
			if r.status != 403 || r.code() != writ.CodeVerdict || r.str("details", "reason") != reason || r.receipt() == "" {
				t.Errorf("want %s: %s", reason, r)
			}
			if text, _ := body["verdict_dsse"].(string); len(text) > 40 && strings.Contains(string(r.body), text[20:40]) {
				t.Errorf("says what it was sent: %s", r)
			}
		}
		about := checker.about(path)
		good := checker.want(about, site, says)
		verify := path + "/verify"
		refused(checker.caller, verify, accept, "missing")
		for reason, spoil := range map[string]func(*writ.VerdictWant){
			"verifier": func(v *writ.VerdictWant) { v.Agent = "twin" },
			"policy":   func(v *writ.VerdictWant) { v.Policy = "sha256:" + strings.Repeat("0", 64) },
			"verdict":  func(v *writ.VerdictWant) { v.Properties = writ.VerdictProperties(on, writ.VerdictAccept, nil, nil) },
			"subjects": func(v *writ.VerdictWant) { v.Subjects = writ.VerdictSubjects(about, []string{digestOf("others")}) },
			"time":     func(v *writ.VerdictWant) { v.Now -= 2 * writ.VerdictFreshMs },
		} {
			v := good
			spoil(&v)
			refused(checker.caller, verify, with(accept, checker.signs(v)), reason)
		}
		for _, other := range []string{"", writ.VerdictOn("run", c.run), writ.VerdictOn("task", "tsk_01M89R8776FSMT3FKAH3617HBC")} {
			v := good
			v.Properties = writ.VerdictProperties(other, writ.VerdictAccept, map[string]bool{"tests": true}, nil)
			refused(checker.caller, verify, with(accept, checker.signs(v)), "verdict")
		}
		fewer := good
		fewer.Subjects = writ.VerdictSubjects(about, nil)
		refused(checker.caller, verify, with(accept, checker.signs(fewer)), "subjects")
		refused(checker.caller, verify, with(accept, "{}"), "form")
		forged := signer{caller: checker.caller, key: theirs, public: twin.public}
		refused(checker.caller, verify, with(accept, forged.signs(good)), "key")
		// Whose key is that of somebody who worked judges nothing, under whatever name.
		own := twin.want(about, site, says)
		if r := twin.do("POST", verify, with(accept, twin.signs(own))); r.status != 403 || r.code() != writ.CodeSoD {
			t.Errorf("got %s", r)
		}
		// The check did not pass: who holds the token cannot say that it did.
		_, lying := checker.verdict(path, "reject", obj{"gates": []obj{{"gate": "tests", "status": "fail"}}})
		failed := good
		failed.Properties = writ.VerdictProperties(on, writ.VerdictReject, map[string]bool{"tests": false}, []string{"incomplete"})
		sent := checker.signs(failed)
		refused(checker.caller, verify, with(accept, sent), "verdict")
		if r := checker.ok(200, "POST", verify, with(lying, sent)); r.str("state") != "queued" {
			t.Fatalf("got %s", r)
		}

		// Again, with other bytes: what was signed before is of no use.
		site = work("other bytes")
		_, again := checker.verdict(path, "reject", obj{"gates": []obj{{"gate": "tests", "status": "fail"}}})
		refused(checker.caller, verify, with(again, sent), "used")
		_, accept = checker.verdict(path, "accept", passed)
		refused(checker.caller, verify, with(accept, checker.signs(good)), "subjects")
		about = checker.about(path)
		good = checker.want(about, site, says)
		sent = checker.signs(good)
		w.crash()
		if r := checker.ok(200, "POST", verify, with(accept, sent), "Idempotency-Key", "accepted"); r.str("state") != "done" {
			t.Fatalf("got %s", r)
		}
		if r := checker.ok(200, "POST", verify, with(accept, sent), "Idempotency-Key", "accepted"); r.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("asked again, it is %s", r)
		}

		// A key that was taken away signs nothing any more.
		w.op.ok(200, "POST", "/v1/agents/checker/suspend", nil)
		w.op.ok(200, "PUT", "/v1/agents/checker", obj{"archetypes": []string{"verifier"}, "domain": "web", "tools": []obj{}, "write_scope": []string{}, "max_concurrent_tasks": 1000, "keys": []string{laterPEM}})
		within(t, 20*time.Second, "its sessions are ended", func() bool { return w.op.do("POST", "/v1/agents/checker/activate", nil).status == 200 })
		checker = w.signer("checker", "vera", mine, minePEM)
		closing, done := checker.verdict(run, "accept", nil)
		about = checker.about(run)
		whole := checker.want(about, site, writ.VerdictProperties(writ.VerdictOn("run", c.run), writ.VerdictAccept, nil, nil))
		refused(checker.caller, closing, with(done, checker.signs(whole)), "key")
		refused(checker.caller, closing, done, "missing")
		checker = w.signer("checker", "vera", later, laterPEM).as(checker)
		whole = checker.want(about, site, whole.Properties)
		sent = checker.signs(whole)
		closed := checker.ok(200, "POST", closing, with(done, sent))
		if closed.str("state") != "done" {
			t.Fatalf("got %s", closed)
		}

		// Offline: the receipt names the verdict, its evidence has it, and that it counts
		// can be seen without the gateway.
		id := closed.str("receipt")
		named := w.op.ok(200, "GET", "/v1/receipts/"+id, nil)
		ev := w.op.ok(200, "GET", "/v1/receipts/"+id+"/evidence", nil)
		env, err := json.Marshal(ev.at("evidence", "object", "verdict", "envelope"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := receipts.CheckVerdict(env, whole)
		if err != nil {
			t.Fatalf("%v\n%s", err, ev)
		}
		if v := "predicate"; named.str("statement", v, "verdict", "digest") != got.Digest || named.str("statement", v, "verdict", "keyId") != checker.public.ID ||
			ev.str("evidence", "object", "verdict", "key", "pem") != checker.public.PEM {
			t.Errorf("got %s\nwith %s", named, ev)
		}
		// The log has it as it was signed, directly before the receipt that rests on it.
		entry := w.op.ok(200, "GET", "/v1/receipts/"+string(writ.VerdictID(got.Digest))+"?wait=included", nil)
		if entry.num("seq") != named.num("seq")-1 || entry.str("kind") != writ.FactForeign || entry.at("included") != true || named.str("kind") != writ.FactSealed ||
			!strings.Contains(sent, entry.str("envelope", "payload")) || entry.str("bundle", "verificationMaterial", "publicKey", "hint") != checker.public.ID {
			t.Errorf("the log has %s", entry)
		}
		if text := ev.str("evidence", "object", "args", "verdict_dsse"); text != writ.NotedVerdict(sent) {
			t.Errorf("among the arguments is %s", text)
		}
		w.audited()
	})
}

// as is another key in the hand of who has a session already.
func (s signer) as(o signer) signer {
	s.caller = o.caller
	return s
}

// With the commands, a key as cosign makes them, and a rule that wants every verdict
// signed.
func TestA3T5VerdictsAreSignedByCommand(t *testing.T) {
	t.Parallel()
	s := shipped(t)
	s["packs/signed/pack.yaml"] = `manifest:
  id: signed
  version: 1.0.0
  title: Verdicts are signed
  owner: team
  kind: guard
  match: {capabilities: [run.close, task.verify, task.get]}
  effects: [allow, deny]
`
	s["packs/signed/signed.rego"] = `package packs.signed

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: signed.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "signed.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: Signed
# description: A verdict counts only signed by its verifier.
# custom: {id: signed.verdict, severity: high, control: authority}
findings contains {
	"rule": "signed.verdict", "effect": "allow", "code": "policy_denied", "message": "verdicts are signed here",
	"obligations": [{"type": "sign_verdict"}],
} if {
	input.call.capability in {"run.close", "task.verify"}
}

# METADATA
# title: No verdict
# description: An auditor reads a task, which is no verdict.
# custom: {id: signed.other, severity: low, control: a mistake of the pack}
findings contains {
	"rule": "signed.other", "effect": "allow", "code": "policy_denied", "message": "nobody can meet this",
	"obligations": [{"type": "sign_verdict"}],
} if {
	input.call.capability == "task.get"
	input.session.role == "auditor"
}
`
	w := newWorld(t, "bolt", "--policies", s.dir(t))
	c := newCast(t, w)
	dir := t.TempDir()
	vectors := filepath.Join("..", "testdata", "vectors", "verdicts")
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("checker.key", read(filepath.Join(vectors, "cosign.key")))
	w.agent("checker", "web", "verifier", "", []string{}, obj{"keys": []string{read(filepath.Join(vectors, "cosign.pub"))}})
	w.agent("keyless", "web", "verifier", "", []string{}, nil)
	checker, keyless := w.verifier("checker", "vera", "checker"), w.verifier("keyless", "vince", "keyless")
	at := func(by caller) []string {
		return []string{"--url", w.gw[0].url, "--token-file", write("token-"+string(by.id), by.token)}
	}
	ok := func(args ...string) result {
		t.Helper()
		r := command(t, args...)
		if r.code != 0 {
			t.Fatalf("writ %s: %s", strings.Join(args, " "), r)
		}
		return r
	}

	c.judgedRun()
	made := obj{"verify": obj{"required": true, "gates": []string{"tests"}}, "produces": []obj{{"name": "site", "media_type": "text/plain", "required": true}}}
	task, other := c.enqueue("one", made), c.enqueue("two", nil)
	run := "/v1/runs/" + c.run
	c.orc.ok(200, "POST", run+"/seal", nil)
	l := c.builder.claim(task)
	site := c.builder.put(l, "site", "bytes")
	c.builder.ok(200, "POST", "/v1/tasks/"+task+"/complete", l.hold(obj{"artifacts": []obj{{"name": "site", "digest": site}}}))
	c.builder.complete(c.builder.claim(other))

	auditor := w.session("audrey", writ.RoleAuditor, "")
	if r := auditor.do("GET", "/v1/tasks/"+task, nil); r.status != 403 || r.code() != writ.CodePolicy {
		t.Errorf("what is no verdict must be signed: %s", r)
	}
	about := checker.ok(200, "GET", "/v1/tasks/"+task, nil).str("receipt")
	verify := append([]string{"task", "verify", task, "--verdict", "accept", "--receipt-id", about, "--gates", `[{"gate":"tests","status":"pass"}]`}, at(checker)...)
	if r := command(t, append([]string{"task", "verify", task, "--verdict", "accept", "--receipt-id", about, "--gates", `[{"gate":"tests","status":"pass"}]`}, at(keyless)...)...); r.code == 0 || !strings.Contains(r.stderr, "verdict_refused") {
		t.Errorf("without a key: %s", r)
	}
	receiptKey := filepath.Join(w.gw[0].data, "keys", "receipt.pub")
	verdict := filepath.Join(dir, "verdict.sigstore.json")
	sign := append([]string{"verdict", "sign", "--task", task, "--verdict", "accept", "--gate", "tests=pass", "--key", key, "--receipt-key", receiptKey, "--out", verdict}, at(checker)...)
	if r := ok(sign...); !strings.Contains(r.stderr, strings.TrimPrefix(site, "sha256:")) {
		t.Errorf("what was signed is not shown: %s", r)
	} else if _, signed, ok := strings.Cut(r.stderr, "writ: signed: "); !ok || !strings.Contains(signed, "receipt/rcp_") || strings.Contains(signed, "artifact/") || !strings.Contains(r.stderr, site[len("sha256:"):]+" is artifact/site\n") {
		t.Errorf("the name of an artifact is signed, or not told: %s", r)
	}
	names := append([]string{"verdict", "statement", "--task", task, "--verdict", "accept", "--gate", "tests=pass", "--names"}, at(checker)...)
	if r := ok(names...); !strings.Contains(r.stdout, `"name":"artifact/site"`) {
		t.Errorf("the name is not signed: %s", r)
	}
	if r := command(t, verify...); r.code == 0 || !strings.Contains(r.stderr, "verdict_refused") {
		t.Errorf("without a signature: %s", r)
	}
	ok(append(verify, "--verdict-file", verdict)...)

	closing := filepath.Join(dir, "closing.sigstore.json")
	ok(append([]string{"verdict", "sign", "--run", c.run, "--verdict", "accept", "--key", key, "--out", closing}, at(checker)...)...)
	done := ok(append([]string{"run", "close", c.run, "--verdict", "accept", "--receipt-id", checker.ok(200, "GET", run, nil).str("receipt"), "--verdict-file", closing, "-o", "json"}, at(checker)...)...)
	var closed struct {
		State   string `json:"state"`
		Receipt string `json:"receipt"`
	}
	if err := json.Unmarshal([]byte(done.stdout), &closed); err != nil || closed.State != "done" {
		t.Fatalf("%v: %s", err, done)
	}
	again, public := filepath.Join(dir, "again.sigstore.json"), filepath.Join(dir, "again.pub")
	ok(append([]string{"verdict", "get", closed.Receipt, "--out", again, "--key-out", public}, at(w.op)...)...)
	_, kept, logged := strings.Cut(read(again), `"dsseEnvelope":`)
	if !logged || !strings.HasSuffix(read(closing), kept) || !strings.Contains(read(again), `"inclusionProof"`) || read(public) != read(filepath.Join(vectors, "cosign.pub")) {
		t.Errorf("kept is %s, sent was %s", read(again), read(closing))
	}
	// With nothing but the pack and keys from elsewhere: the log had it before the end of the run.
	pack := filepath.Join(dir, "pack.tar")
	logKey := w.op.ok(200, "GET", "/v1/log/head", nil).str("verifier_key")
	ok(append([]string{"export", "--run", c.run, "--out", pack}, at(w.op)...)...)
	if r := ok("close", "verify", pack, "--run", c.run, "--log-key", logKey, "--key", receiptKey, "--verifier-key", public); strings.Count(r.stdout, "logged at") != 2 {
		t.Errorf("got %s", r)
	}
	if r := ok("log", "verify", filepath.Join(w.gw[0].data, "log"), "--log-key", logKey, "--key", receiptKey, "--verifier-key", public, "-o", "json"); !strings.Contains(strings.ReplaceAll(r.stdout, " ", ""), `"foreign":2`) {
		t.Errorf("got %s", r)
	}
	if r := command(t, "log", "verify", filepath.Join(w.gw[0].data, "log"), "--log-key", logKey, "--key", receiptKey, "--verifier-key", receiptKey); r.code != 1 {
		t.Errorf("as if they were another's: %s", r)
	}
	if r := command(t, append([]string{"verdict", "get", about}, at(w.op)...)...); r.code == 0 {
		t.Errorf("a receipt without one: %s", r)
	}
	if r := command(t, append([]string{"verdict", "statement", "--run", c.run, "--verdict", "reject", "--reason", "late"}, at(checker)...)...); r.code != 7 || !strings.Contains(r.stderr, "does not wait for a verdict") {
		t.Errorf("a verdict on what has ended: %s", r)
	}
	w.audited()
}
