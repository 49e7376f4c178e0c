package pack

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

var inForce = "sha256:" + strings.Repeat("a", 64)

// pemOf is the public half of a verifier's key.
func pemOf(t testing.TB, key crypto.Signer) string {
	t.Helper()
	text, err := receipts.PublicPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// signs has a verifier's key sign a statement.
func signs(t testing.TB, key crypto.Signer, payload []byte) *writ.Receipt {
	t.Helper()
	public, err := receipts.ParsePublicKey(pemOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	text, hash := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(receipts.PayloadType), receipts.PayloadType, len(payload), payload), crypto.Hash(0)
	if _, ok := key.(*ecdsa.PrivateKey); ok {
		sum := sha256.Sum256(text)
		text, hash = sum[:], crypto.SHA256
	}
	sig, err := key.Sign(nil, text, hash)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &writ.Receipt{Payload: payload, Sig: sig, KeyID: public.ID, Public: der}
}

// wants is what a verdict on the last change of an object must say when the next receipt rests on it.
func (l *lab) wants(object string, properties []string, made ...string) writ.VerdictWant {
	l.t.Helper()
	i := slices.IndexFunc(l.list, func(r writ.Receipt) bool { return r.ID == l.last[object] })
	properties = slices.Sorted(slices.Values(append(slices.Clone(properties), "WRIT_VERDICT_ON:"+object)))
	return writ.VerdictWant{
		Agent: "judge", Properties: properties, Subjects: writ.VerdictSubjects(l.list[i], made), Policy: inForce, Now: 1_767_225_600_000 + 1000*int64(len(l.list)),
	}
}

func (l *lab) statement(want writ.VerdictWant) []byte {
	l.t.Helper()
	text, err := receipts.VerdictStatement(want, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return text
}

var accepts, acceptsLinted = []string{"WRIT_VERDICT_ACCEPT"}, []string{"WRIT_GATE_PASS:lint", "WRIT_VERDICT_ACCEPT"}

// The gateway's key alone closes no run whose verifier has a key: the verdict the verifier
// signed is held to the keys registered for it then, and to what it judges.
func TestVerdictsTheirVerifiersSigned(t *testing.T) {
	o := node(t)
	seed := sha256.Sum256([]byte("judge"))
	own, other := ed25519.NewKeyFromSeed(seed[:]), privateKey(t, 9)
	artifact := strings.Repeat("b", 64)
	const word = "gateway"
	type hand struct {
		l     *lab
		c     cast
		judge writ.Actor
	}
	// task and run have the judge say that they are good, by a verdict that is changed first.
	task := func(h hand, x call) {
		x.what, x.by, x.run, x.policy = "task.verify", h.judge, h.c.run, inForce
		if x.args == nil {
			x.args = map[string]any{"receipt_id": h.l.last["task/"+h.c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}}
		}
		x.moves = []writ.Change{move("task", h.c.task, "verifying", "done"), move("run", string(h.c.run), "active", "verifying")}
		h.l.do(x)
	}
	run := func(h hand, x call) {
		x.what, x.by, x.run, x.policy = "run.close", h.judge, h.c.run, inForce
		x.args = map[string]any{"receipt_id": h.l.last["run/"+string(h.c.run)]}
		x.moves = []writ.Change{move("run", string(h.c.run), "verifying", "done")}
		h.l.do(x)
	}
	ofTask := func(h hand) writ.VerdictWant { return h.l.wants("task/"+h.c.task, acceptsLinted, "sha256:"+artifact) }
	ofRun := func(h hand) writ.VerdictWant {
		return h.l.wants("run/"+string(h.c.run), accepts, "sha256:"+artifact)
	}
	good := func(h hand) { task(h, call{signed: signs(t, own, h.l.statement(ofTask(h)))}) }
	// closed is a run closed by a verdict whose statement is another one.
	closed := func(key crypto.Signer, change func(h hand, w *writ.VerdictWant)) func(hand) {
		return func(h hand) {
			good(h)
			w := ofRun(h)
			change(h, &w)
			run(h, call{signed: signs(t, key, h.l.statement(w))})
		}
	}
	same := func(hand, *writ.VerdictWant) {}
	// written is one whose statement has another text.
	written := func(old, new string) func(hand) {
		return func(h hand) {
			good(h)
			text := h.l.statement(ofRun(h))
			if !bytes.Contains(text, []byte(old)) {
				t.Fatalf("no %q in %s", old, text)
			}
			run(h, call{signed: signs(t, own, bytes.Replace(text, []byte(old), []byte(new), 1))})
		}
	}
	// kept is one of which something else is in evidence, or in the receipt.
	kept := func(change func(h hand, x *call)) func(hand) {
		return func(h hand) {
			good(h)
			x := call{signed: signs(t, own, h.l.statement(ofRun(h)))}
			change(h, &x)
			run(h, x)
		}
	}
	both1 := []string{pemOf(t, own), pemOf(t, other)}
	for name, x := range map[string]struct {
		keys []string
		play func(h hand)
		want string // findings
		word string
	}{
		"with the key of the verifier": {both1[:1], closed(own, same), "", "a verdict signed with"},
		"with one of two keys":         {both1, closed(other, same), "", "a verdict signed with"},
		"by who has no key":            {nil, func(h hand) { task(h, call{}); run(h, call{}) }, "", word},
		"not signed":                   {both1[:1], func(h hand) { good(h); run(h, call{}) }, "verdict_unsigned", word},
		"neither of them signed":       {both1[:1], func(h hand) { task(h, call{}); run(h, call{}) }, "verdict_unsigned", word},
		"signed by who has no key":     {nil, closed(own, same), "verdict_key", word},
		"with another key":             {both1[:1], closed(other, same), "verdict_key", word},
		"with the gateway's own":       {both1[:1], func(h hand) { closed(h.l.priv, same)(h) }, "verdict_key", word},
		"with a signature of another":  {both1[:1], kept(func(h hand, x *call) { x.signed.Sig = signs(t, own, []byte("{}")).Sig }), "verdict_signature", word},
		"with no signature":            {both1[:1], kept(func(h hand, x *call) { x.signed.Sig = nil }), "verdict_says", word},
		"with half a signature":        {both1[:1], kept(func(h hand, x *call) { x.signed.Sig = x.signed.Sig[:32] }), "verdict_signature", word},
		"with half a signature of P-256": {both1, kept(func(h hand, x *call) {
			*x = call{signed: signs(t, other, x.signed.Payload)}
			x.signed.Sig = x.signed.Sig[:32]
		}), "verdict_signature", word},
		"of a check without a name that failed once": {both1[:1], func(h hand) {
			checks := []any{map[string]any{"gate": "lint", "status": "pass"}, map[string]any{"gate": "", "status": "fail"}, map[string]any{"status": "pass"}}
			want := h.l.wants("task/"+h.c.task, append([]string{"WRIT_GATE_FAIL:"}, acceptsLinted...), "sha256:"+artifact)
			task(h, call{signed: signs(t, own, h.l.statement(want)), args: map[string]any{"receipt_id": h.l.last["task/"+h.c.task], "gates": checks}})
			run(h, call{signed: signs(t, own, h.l.statement(ofRun(h)))})
		}, "", "a verdict signed with"},
		"on another run": {both1[:1], closed(own, func(h hand, w *writ.VerdictWant) {
			w.Subjects = h.l.wants("run/"+ulid("run", 2), accepts, "sha256:"+artifact).Subjects
		}), "verdict_about", word},
		"on the task": {both1[:1], closed(own, func(h hand, w *writ.VerdictWant) { w.Subjects = h.l.wants("task/"+h.c.task, accepts).Subjects }), "verdict_about", word},
		"on a task, of a receipt that is the run's last too": {both1[:1], func(h hand) {
			says := h.l.wants("task/"+h.c.task, []string{"WRIT_REASON:late", "WRIT_VERDICT_REJECT"}, "sha256:"+artifact)
			h.l.do(call{
				what: "task.verify", by: h.judge, run: h.c.run, policy: inForce, signed: signs(t, own, h.l.statement(says)),
				args: map[string]any{"receipt_id": h.l.last["task/"+h.c.task], "reasons": []string{"late"}}, moves: []writ.Change{move("task", h.c.task, "verifying", "queued")},
			})
			h.l.do(call{what: "task.claim", by: h.c.worker, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("task", h.c.task, "queued", "running")}})
			h.l.do(call{what: "task.complete", by: h.c.worker, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("task", h.c.task, "running", "verifying"), move("run", string(h.c.run), "active", "verifying")}})
			before := h.l.wants("task/"+h.c.task, accepts)
			before.Properties = accepts
			onTask := signs(t, own, h.l.statement(before))
			h.l.do(call{what: "task.cancel", by: h.c.operator, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("task", h.c.task, "verifying", "cancelled")}})
			run(h, call{signed: onTask})
		}, "evidence_missing verdict_stale", WordUnread},
		"of before, which does not say on what": {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Properties = accepts }), "", "a verdict signed with"},
		"on another, by its own word": {both1[:1], closed(own, func(h hand, w *writ.VerdictWant) {
			w.Properties = append([]string{"WRIT_VERDICT_ON:task/" + h.c.task}, accepts...)
		}), "verdict_says", word},
		"on a task of the run's id": {both1[:1], closed(own, func(h hand, w *writ.VerdictWant) {
			w.Properties = append([]string{"WRIT_VERDICT_ON:task/" + string(h.c.run)}, accepts...)
		}), "verdict_says", word},
		"on two": {both1[:1], closed(own, func(h hand, w *writ.VerdictWant) {
			w.Properties = slices.Sorted(slices.Values(append(slices.Clone(w.Properties), "WRIT_VERDICT_ON:task/"+h.c.task)))
		}), "verdict_says", word},
		"before a run was made in it": {both1[:1], func(h hand) {
			good(h)
			signed := signs(t, own, h.l.statement(ofRun(h)))
			h.l.do(call{what: "run.create", by: h.c.planner, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("run", ulid("run", 3), "", "active")}})
			run(h, call{signed: signed})
		}, "verdict_stale", "a verdict signed with"},
		"on what was given by no such call": {both1[:1], func(h hand) {
			h.l.do(call{what: "task.cancel", by: h.c.operator, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("task", h.c.task, "verifying", "queued")}})
			h.l.do(call{what: "task.claim", by: h.c.worker, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("task", h.c.task, "queued", "running")}})
			h.l.do(call{what: "task.admit", by: h.c.worker, run: h.c.run, args: map[string]any{"artifacts": []any{map[string]any{"digest": "sha256:" + artifact}}}, moves: []writ.Change{move("task", h.c.task, "running", "verifying")}})
			task(h, call{signed: signs(t, own, h.l.statement(h.l.wants("task/"+h.c.task, acceptsLinted)))})
			run(h, call{signed: signs(t, own, h.l.statement(h.l.wants("run/"+string(h.c.run), accepts)))})
		}, "evidence_missing", WordUnread},
		"before a task was done that came later": {both1[:1], func(h hand) {
			good(h)
			signed, later := signs(t, own, h.l.statement(ofRun(h))), ulid("tsk", 6)
			h.l.do(call{what: "task.enqueue", by: h.c.planner, run: h.c.run, args: map[string]any{"key": "later", "capability": "site.build"}, moves: []writ.Change{move("task", later, "", "queued")}})
			h.l.do(call{what: "task.claim", by: h.c.worker, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("task", later, "queued", "running")}})
			h.l.do(call{what: "task.complete", by: h.c.worker, run: h.c.run, args: map[string]any{}, moves: []writ.Change{move("task", later, "running", "done")}})
			run(h, call{signed: signed})
		}, "verdict_stale", "a verdict signed with"},
		"on no artifact":       {both1[:1], closed(own, func(h hand, w *writ.VerdictWant) { w.Subjects = h.l.wants("run/"+string(h.c.run), accepts).Subjects }), "verdict_about", word},
		"on another artifact":  {both1[:1], closed(own, func(h hand, w *writ.VerdictWant) { w.Subjects = append(w.Subjects, strings.Repeat("c", 64)) }), "verdict_about", word},
		"as another verifier":  {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Agent = "worker" }), "verdict_says", word},
		"under other policies": {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Policy = "sha256:" + strings.Repeat("d", 64) }), "verdict_says", word},
		"that rejects":         {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Properties = []string{"WRIT_VERDICT_REJECT"} }), "verdict_says", word},
		"that says more":       {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Properties = acceptsLinted }), "verdict_says", word},
		"of long ago":          {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Now -= writ.VerdictFreshMs + 1 }), "verdict_says", word},
		"just fresh":           {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Now -= writ.VerdictFreshMs }), "", "a verdict signed with"},
		"of a time to come":    {both1[:1], closed(own, func(_ hand, w *writ.VerdictWant) { w.Now += writ.VerdictAheadMs + 1 }), "verdict_says", word},
		"the one of the task again": {both1[:1], func(h hand) {
			v := signs(t, own, h.l.statement(ofTask(h)))
			task(h, call{signed: v})
			run(h, call{signed: v})
		}, "verdict_twice", ""},
		"the one of another run again": {both1[:1], func(h hand) {
			good(h)
			run(h, call{signed: signs(t, own, h.l.statement(h.l.wants("run/"+ulid("run", 2), accepts)))})
		}, "verdict_says", word},
		"that the receipt does not name": {both1[:1], kept(func(_ hand, x *call) {
			x.verdict = &writ.VerdictRef{Digest: strings.Repeat("0", 64), KeyID: x.signed.KeyID}
		}), "verdict_says", word},
		"of which another key is named": {both1, kept(func(h hand, x *call) {
			sum := sha256.Sum256(x.signed.Payload)
			x.verdict = &writ.VerdictRef{Digest: hex.EncodeToString(sum[:]), KeyID: signs(t, other, nil).KeyID}
		}), "verdict_says", word},
		"that evidence does not have": {both1[:1], kept(func(_ hand, x *call) {
			sum := sha256.Sum256(x.signed.Payload)
			*x = call{verdict: &writ.VerdictRef{Digest: hex.EncodeToString(sum[:]), KeyID: x.signed.KeyID}}
		}), "verdict_says", word},
		"with a member nobody reads":      {both1[:1], written(`{"_type"`, `{"x":1,"_type"`), "verdict_says", word},
		"with a member twice":             {both1[:1], written(`"properties":[`, `"properties":[],"properties":[`), "verdict_says", word},
		"with a member twice, in another": {both1[:1], written(`"properties":[`, `"propertie\u0073":[],"properties":[`), "verdict_says", word},
		"with a member in another case":   {both1[:1], written(`"properties":[`, `"Properties":[`), "verdict_says", word},
		"with a member that all have":     {both1[:1], written(`{"_type"`, `{"__proto__":{},"_type"`), "verdict_says", word},
		"of another kind":                 {both1[:1], written(`svr/v0.2`, `svr/v0.1`), "verdict_says", word},
		"with spaces":                     {both1[:1], written(`{"_type"`, "{ \n\"_type\""), "", "a verdict signed with"},
		"with escapes":                    {both1[:1], written(`agent:judge`, `agent:\u006audge`), "", "a verdict signed with"},
		"with the older type":             {both1[:1], written(`Statement/v1`, `Statement/v0.1`), "", "a verdict signed with"},
		"in whole seconds":                {both1[:1], written(`.000Z`, `Z`), "", "a verdict signed with"},
		"in other seconds":                {both1[:1], written(`.000Z`, `.0Z`), "verdict_says", word},
		"with a name":                     {both1[:1], written(`{"digest":{"sha256":"`+artifact, `{"name":"\u00e9","digest":{"sha256":"`+artifact), "", "a verdict signed with"},
		"with half a name":                {both1[:1], written(`{"digest":{"sha256":"`+artifact, `{"name":"\ud800","digest":{"sha256":"`+artifact), "verdict_says", word},
		"with a name of no text":          {both1[:1], written(`{"digest":{"sha256":"`+artifact, "{\"name\":\"\xff\",\"digest\":{\"sha256\":\""+artifact), "verdict_says", word},
		"with a name of nothing":          {both1[:1], written(`{"digest":{"sha256":"`+artifact, `{"name":null,"digest":{"sha256":"`+artifact), "verdict_says", word},
		"with a digest in capitals":       {both1[:1], written(artifact, strings.ToUpper(artifact)), "verdict_about", word},
		"with no subject": {both1[:1], func(h hand) {
			good(h)
			w := ofRun(h)
			w.Subjects = nil
			run(h, call{signed: signs(t, own, h.l.statement(w))})
		}, "verdict_about", word},
		"that is no JSON": {both1[:1], written(`{"_type"`, `{,"_type"`), "verdict_says", word},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			c := l.cast()
			l.register(c.operator, "", "planner", "worker")
			args := map[string]any{"agent_id": "judge"}
			if x.keys != nil {
				args["keys"] = x.keys
			}
			l.do(call{what: "agent.register", by: c.operator, args: map[string]any{"agent_id": "judge", "keys": []string{string(l.pub())}}, moves: []writ.Change{move("agent", "judge", "", "planned")}})
			l.do(call{what: "agent.register", by: c.operator, args: args, moves: []writ.Change{move("agent", "judge", "planned", "planned")}})
			h := hand{l, c, l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")}
			l.do(call{what: "run.create", by: c.planner, run: writ.RunID(ulid("run", 2)), args: map[string]any{}, moves: []writ.Change{move("run", ulid("run", 2), "", "active")}})
			l.makes(c, artifact)
			x.play(h)
			for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
				f := l.export(Options{Scope: scope})
				a := both(t, o, name+scope.Kind, f, f, l.trust(), Ask{Run: c.run, Close: true})
				if got := a.each(); got != x.want {
					t.Errorf("%s: got %q, want %q", scope.Kind, got, x.want)
				}
				if !strings.Contains(a.Run.Word, x.word) || (x.word == "") != (a.Run.Word == "") {
					t.Errorf("%s: it rests on the word of %q", scope.Kind, a.Run.Word)
				}
				if scope.Kind == ScopeLog {
					continue
				}
				// Only the verifier's own word counts for who has its key from the verifier.
				trust := l.trust()
				trust.Verifiers = [][]byte{[]byte(pemOf(t, own))}
				mine := a.Run.Word == WordUnread || strings.HasPrefix(a.Run.Word, WordOfKey) && !strings.Contains(name, "one of two")
				pinned := both(t, o, name+scope.Kind, f, f, trust, Ask{Run: c.run, Close: true})
				if x.word != "" && mine == slices.ContainsFunc(pinned.Codes, func(s string) bool { return strings.HasPrefix(s, "verdict_untrusted@") }) {
					t.Errorf("%s: with the verifier's key: got %v", scope.Kind, pinned.Codes)
				}
			}
		})
	}
	// A verdict on the last task of a run that ends by itself says nothing of the run, and none at all
	// is there where it is cancelled.
	for name, x := range map[string]struct {
		end  func(l *lab, c cast, judge writ.Actor)
		word string
	}{
		"ends by itself": {func(l *lab, c cast, judge writ.Actor) {
			l.do(call{
				what: "task.verify", by: judge, run: c.run, policy: inForce, signed: signs(t, own, l.statement(l.wants("task/"+c.task, accepts))),
				args:  map[string]any{"receipt_id": l.last["task/"+c.task]},
				moves: []writ.Change{move("task", c.task, "verifying", "done"), move("run", string(c.run), "active", "done")},
			})
		}, WordOfGateway},
		"is cancelled": {func(l *lab, c cast, _ writ.Actor) {
			l.do(call{
				what: "run.cancel", by: c.operator, run: c.run, args: map[string]any{},
				moves: []writ.Change{move("run", string(c.run), "active", "cancelled"), move("task", c.task, "verifying", "cancelled")},
			})
		}, ""},
	} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner", "worker")
		l.register(c.operator, pemOf(t, own), "judge")
		judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
		l.do(call{what: "run.create", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "", "active")}})
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"verify": map[string]any{"required": true}}, moves: []writ.Change{move("task", c.task, "", "queued")}})
		l.do(call{what: "task.claim", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "queued", "running")}})
		l.do(call{what: "task.complete", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "running", "verifying")}})
		x.end(l, c, judge)
		f := l.export(Options{})
		if a := both(t, o, name, f, f, l.trust(), Ask{Run: c.run, Close: true}); a.Exit != 0 || a.Run.Word != x.word {
			t.Errorf("%s: got %v, the word of %q", name, a.Codes, a.Run.Word)
		}
		trust := l.trust()
		trust.Verifiers = [][]byte{[]byte(pemOf(t, own))}
		if a := both(t, o, name, f, f, trust, Ask{Run: c.run, Close: true}); !slices.Equal(a.Codes, []string{fmt.Sprintf("verdict_untrusted@%d", len(l.list)-1)}) {
			t.Errorf("%s, with the verifier's key: got %v", name, a.Codes)
		}
	}
	l, c := story(t)
	f := l.export(Options{})
	for _, text := range []string{"", "x", pemOf(t, own)[:60]} {
		trust := l.trust()
		trust.Verifiers = [][]byte{[]byte(text)}
		if _, err := Verify(f.pack(), trust, Ask{Run: c.run, Close: true}); err == nil {
			t.Errorf("a verifier's key %q is taken", text)
		}
	}
}

// Where nobody says what was made, or which keys there are, nobody says that a verdict is about it.
func TestVerdictsOnWhatNobodyTells(t *testing.T) {
	o := node(t)
	seed := sha256.Sum256([]byte("judge"))
	own := ed25519.NewKeyFromSeed(seed[:])
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner", "worker")
	registered := int64(len(l.list))
	l.register(c.operator, pemOf(t, own), "judge")
	judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
	l.makes(c, strings.Repeat("b", 64))
	completed := int64(len(l.list)) - 1
	l.do(call{
		what: "task.verify", by: judge, run: c.run, policy: inForce, signed: signs(t, own, l.statement(l.wants("task/"+c.task, acceptsLinted, strings.Repeat("b", 64)))),
		args:  map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}},
		moves: []writ.Change{move("task", c.task, "verifying", "done"), move("run", string(c.run), "active", "verifying")},
	})
	judged := int64(len(l.list)) - 1
	l.do(call{
		what: "run.close", by: judge, run: c.run, policy: inForce, signed: signs(t, own, l.statement(l.wants("run/"+string(c.run), accepts, strings.Repeat("b", 64)))),
		args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}, moves: []writ.Change{move("run", string(c.run), "verifying", "done")},
	})
	f := l.export(Options{})
	for name, x := range map[string]struct {
		gone int64
		want string
	}{
		"all is there":           {-1, ""},
		"not what was made":      {completed, fmt.Sprintf("evidence_missing@%d", judged)},
		"not which keys it has":  {registered, fmt.Sprintf("lineage_unknown@%d", judged)},
		"not what the task asks": {completed - 3, fmt.Sprintf("evidence_missing@%d", completed-3)},
		"not what the end says":  {judged + 1, fmt.Sprintf("evidence_missing@%d", judged+1)},
	} {
		changed := f.with(func(p files) {
			p[FileManifest] = bytes.Replace(p[FileManifest], []byte(`"evidence":true`), []byte(`"evidence":false`), 1)
			delete(p, evidenceName(x.gone))
		})
		a := both(t, o, "untold", f, changed, l.trust(), Ask{Run: c.run, Close: true})
		if strings.Join(a.Codes, " ") != x.want {
			t.Errorf("%s: got %v, want %s", name, a.Codes, x.want)
		}
		if strings.HasPrefix(a.Run.Word, WordOfKey) != (x.gone < 0 || name == "not what the task asks") {
			t.Errorf("%s: it rests on the word of %q", name, a.Run.Word)
		}
	}
}
