package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

func asError(t *testing.T, err error, want writ.Code) *writ.Error {
	t.Helper()
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	return e
}

func TestCallCommitsWithAReceipt(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	reply, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
	if err != nil {
		t.Fatal(err)
	}
	var v thingView
	if err := json.Unmarshal(reply.JSON, &v); err != nil {
		t.Fatal(err)
	}
	facts := w.facts()
	last := facts[len(facts)-1]
	if v.Count != 1 || v.Version != last.Commit.Version() || reply.ETag != v.Version {
		t.Fatalf("reply %+v, commit %+v", v, last.Commit)
	}
	if receipt.ID != last.ID || receipt.Seq != last.Commit.Seq || string(receipt.Payload) != string(last.Payload()) {
		t.Fatalf("receipt %+v is not the fact's", receipt)
	}
	p := predicate(t, last)
	if p["transition"] != "test.bump" || p["outcome"] != "transition" || p["receiptId"] != string(receipt.ID) {
		t.Fatalf("stated: %v", p)
	}
	if strings.Contains(string(last.Payload()), "alice") {
		t.Fatal("the receipt names a person")
	}
	// The next change of the same object names this receipt as its parent.
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	facts = w.facts()
	if parents := fmt.Sprint(predicate(t, facts[len(facts)-1])["parents"]); !strings.Contains(parents, string(receipt.ID)) {
		t.Fatalf("parents: %s", parents)
	}
}

func TestOnlyLiveSessionsEnter(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	wrong := *alice
	wrong.SecretHash[0] ^= 1
	unknown := *alice
	unknown.Session = writ.SessionID(writ.MakeID(writ.PrefixSession, 1, [10]byte{}))
	foreign := *alice
	foreign.Tenant = "Default"
	before := len(w.facts())
	for name, c := range map[string]*writ.Credential{"none": nil, "wrong secret": &wrong, "unknown session": &unknown, "bad tenant": &foreign} {
		_, _, err := w.call(c, "test.bump", thingArgs{Run: runID(1)}, "")
		if writ.CodeOf(err) != writ.CodeUnauthenticated {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// What does not exist is told to nobody who is not known.
	if _, _, err := w.call(&wrong, "no.such", nil, ""); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("unknown capability: got %v", err)
	}
	w.now.Add(3_600_000)
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("expired session: got %v", err)
	}
	if n := len(w.facts()); n != before {
		t.Errorf("%d facts were written", n-before)
	}
}

func TestUnknownAndInternalCapabilitiesAreNotFound(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	for _, id := range []writ.CapabilityID{"no.such", "gate.set", "test.finish-anyway", "test.session"} {
		if _, _, err := w.call(alice, id, map[string]any{}, ""); writ.CodeOf(err) != writ.CodeNotFound {
			t.Errorf("%s: got %v", id, err)
		}
	}
}

// A refusal is recorded as one, and changes nothing (N19).
func TestN19DenialIsAFactOfItsOwn(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.deny["test.bump"] = writ.Finding{Pack: "p", Rule: "p.rule", Effect: writ.EffectDeny, Code: "scope_denied", Message: "no"}
	_, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	e := asError(t, err, writ.CodeScope)
	if receipt != nil || e.Receipt == "" || e.Rules[0] != "p.rule" {
		t.Fatalf("got %+v", e)
	}
	facts := w.facts()
	p := predicate(t, facts[len(facts)-1])
	if p["outcome"] != "denial" || p["code"] != "scope_denied" || p["changes"] != nil || p["receiptId"] != string(e.Receipt) {
		t.Fatalf("stated: %v", p)
	}
	// A refusal is never stored under the key: when the cause is gone the call runs.
	delete(w.law.deny, "test.bump")
	if reply, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k"); err != nil || reply.Replayed {
		t.Fatalf("got %v, replayed %v", err, reply.Replayed)
	}
}

func TestEffectsTheDoorCannotFulfilDeny(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	for name, f := range map[string]writ.Finding{
		"approval": {Rule: "p.a", Effect: writ.EffectRequireApproval},
		"redact":   {Rule: "p.b", Effect: writ.EffectRedact},
		"unknown":  {Rule: "p.c", Effect: "maybe"},
	} {
		w.law.deny["test.bump"] = f
		if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicy {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestPolicyDownFailsClosedButMandatesRun(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	w.law.down = true
	before := len(w.facts())
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Fatalf("got %v", err)
	}
	if _, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Fatalf("a read: got %v", err)
	}
	if len(w.facts()) != before {
		t.Fatal("something was committed")
	}
	if _, receipt, err := w.door.System(t.Context(), shard, "test.finish-anyway", thingArgs{Run: runID(1)}, nil); err != nil || receipt == nil {
		t.Fatalf("mandate: %v", err)
	}
}

func TestReplicaWithOtherPoliciesCannotAct(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.policy = "policy-2"
	for _, id := range []writ.CapabilityID{"test.bump", "test.look"} {
		if _, _, err := w.call(alice, id, thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicyDown {
			t.Fatalf("%s: got %v", id, err)
		}
	}
	w.gate()
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
}

// Policies are replaced while a call is being judged: the call is not
// committed on the old decision.
func TestGateMovesBetweenJudgementAndCommit(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	var once first
	w.law.deciding = func() {
		once.do(func() {
			w.law.mu.Lock()
			w.law.policy = "policy-2"
			w.law.deny["test.bump"] = writ.Finding{Rule: "p.new", Effect: writ.EffectDeny, Code: "policy_denied"}
			w.law.mu.Unlock()
			w.gate()
		})
	}
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicy {
		t.Fatalf("got %v", err)
	}
}

func TestSessionRevokedBetweenJudgementAndCommit(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	var once first
	w.law.deciding = func() {
		once.do(func() {
			if _, _, err := w.door.System(context.Background(), shard, "test.session", sessionArgs{ID: alice.Session, Revoke: true}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Fatalf("got %v", err)
	}
	for _, f := range w.facts() {
		if predicate(t, f)["transition"] == "test.bump" {
			t.Fatal("the revoked session's call was committed")
		}
	}
}

func TestDecisionTooOldIsJudgedAgain(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	var once first
	w.law.deciding = func() { once.do(func() { w.now.Add(6_000) }) }
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	if w.heard.conflicts.Load() != 1 {
		t.Fatalf("%d conflicts, want the one of the stale snapshot", w.heard.conflicts.Load())
	}
}

func TestIdempotencyKey(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.session("alice"), w.session("bob")
	first, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k1")
	if err != nil {
		t.Fatal(err)
	}
	again, same, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k1")
	if err != nil || !again.Replayed || same.ID != receipt.ID {
		t.Fatalf("got %+v, %v", again, err)
	}
	var a, b thingView
	if json.Unmarshal(first.JSON, &a) != nil || json.Unmarshal(again.JSON, &b) != nil || a != b || a.Version == 0 {
		t.Fatalf("%s replayed as %s", first.JSON, again.JSON)
	}
	if again.ETag != first.ETag {
		t.Fatalf("ETag %d replayed as %d", first.ETag, again.ETag)
	}
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(2)}, "k1"); writ.CodeOf(err) != writ.CodeIdempotency {
		t.Fatalf("other body: %v", err)
	}
	if reply, _, err := w.call(bob, "test.bump", thingArgs{Run: runID(1)}, "k1"); err != nil || reply.Replayed {
		t.Fatalf("another principal's key: %v", err)
	}
}

func TestRacingCallersOfOneKeyCommitOnce(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	var wg sync.WaitGroup
	ids := make([]writ.ReceiptID, 16) // as many as one session may have under way
	for i := range ids {
		wg.Go(func() {
			_, receipt, err := w.call(alice, "test.bump-unlocked", thingArgs{Run: runID(1)}, "k")
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = receipt.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two receipts for one key: %v", ids)
		}
	}
	reply, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, "")
	var v thingView
	if err != nil || json.Unmarshal(reply.JSON, &v) != nil || v.Count != 1 {
		t.Fatalf("counted %d: %v", v.Count, err)
	}
}

func TestSecretsAreNotKept(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	reply, _, err := w.call(alice, "test.secret", thingArgs{Run: runID(1)}, "k")
	if err != nil || !strings.Contains(string(reply.JSON), "s3cret") {
		t.Fatalf("%s, %v", reply.JSON, err)
	}
	_, _, err = w.call(alice, "test.secret", thingArgs{Run: runID(1)}, "k")
	asError(t, err, writ.CodeTokenIssued)
	s, err := w.store.Read(t.Context(), shard, writ.ReadSet{Docs: []writ.Key{writ.IdempotencyDoc(writ.Caller{Principal: "alice", Role: writ.RoleOperator}, "k")}})
	if err != nil || strings.Contains(string(s.Docs[writ.IdempotencyDoc(writ.Caller{Principal: "alice", Role: writ.RoleOperator}, "k")].Body), "s3cret") {
		t.Fatalf("the secret was stored: %v", err)
	}
}

// The signer fails after the commit: the change stands, and the key finds it.
func TestReceiptPending(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.seal.broken.Store(true)
	_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	e := asError(t, err, writ.CodeReceiptPending)
	if e.Receipt == "" {
		t.Fatal("no receipt id to come back for")
	}
	w.seal.broken.Store(false)
	reply, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if err != nil || !reply.Replayed || receipt.ID != e.Receipt {
		t.Fatalf("%+v, %v", receipt, err)
	}
}

// What is known to have no receipt is not done: neither a change nor a denial,
// neither a caller's call nor the gateway's own.
func TestNothingIsCommittedWithoutTheSigner(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	before := len(w.facts())
	w.seal.unusable.Store(true)
	_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if e := asError(t, err, writ.CodeNotReady); e.Receipt != "" || e.RetryMs == 0 {
		t.Errorf("got %+v", e)
	}
	_, _, err = w.door.System(t.Context(), shard, "test.bump", thingArgs{Run: runID(1)}, nil)
	asError(t, err, writ.CodeNotReady)
	w.law.deny["test.bump"] = writ.Finding{Effect: writ.EffectDeny, Rule: "test.no"}
	_, _, err = w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
	asError(t, err, writ.CodeNotReady)
	delete(w.law.deny, "test.bump")
	if after := len(w.facts()); after != before {
		t.Errorf("%d facts were committed", after-before)
	}
	w.seal.unusable.Store(false)
	reply, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	var v thingView
	if err != nil || receipt == nil || reply.Replayed || json.Unmarshal(reply.JSON, &v) != nil || v.Count != 1 {
		t.Fatalf("%s, %+v, %v", reply.JSON, receipt, err)
	}
}

// A plan that does not say what it moves, or contradicts itself, is a defect.
func TestPlansAreHeldToTheirMoves(t *testing.T) {
	w := newWorld(t)
	before := len(w.facts())
	alice := w.session("alice")
	for _, id := range []writ.CapabilityID{"test.unnamed", "test.twice"} {
		if _, _, err := w.call(alice, id, thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeInternal {
			t.Errorf("%s: got %v", id, err)
		}
	}
	if n := len(w.facts()); n != before+1 { // the session's own fact
		t.Fatalf("%d facts", n-before)
	}
}

func TestRefusalsOfThePlanAreReceipted(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	for _, id := range []writ.CapabilityID{"test.bump", "test.finish"} {
		if _, _, err := w.call(alice, id, thingArgs{Run: runID(1)}, ""); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
	if e := asError(t, err, writ.CodeIllegal); e.Receipt == "" {
		t.Fatal("no receipt")
	}
	_, _, err = w.call(alice, "test.look", thingArgs{Run: runID(9)}, "")
	if e := asError(t, err, writ.CodeNotFound); e.Receipt != "" {
		t.Fatal("an unknown id got a receipt")
	}
}

func TestRBACDeniesTheWrapperToo(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.forbid["capability.invoke"] = true
	call := &writ.Call{Capability: "test.bump", Via: "capability.invoke", Credential: alice, Raw: []byte(`{"run_id":"` + string(runID(1)) + `"}`)}
	if err := w.door.Stamp(call); err != nil {
		t.Fatal(err)
	}
	_, _, err := w.door.Do(t.Context(), call)
	asError(t, err, writ.CodeRBAC)
}

func TestDenialsBeyondTheBucketAreCounted(t *testing.T) {
	w := newWorld(t, func(c *guard.Config) { c.DenialBurst = 3 })
	alice := w.session("alice")
	w.law.forbid["test.bump"] = true
	before := len(w.facts())
	var own, counted int
	for range 10 {
		_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
		e := asError(t, err, writ.CodeRBAC)
		switch {
		case e.Aggregated && e.Receipt == "":
			counted++
		case !e.Aggregated && e.Receipt != "":
			own++
		default:
			t.Fatalf("got %+v", e)
		}
	}
	if own != 3 || counted != 7 {
		t.Fatalf("%d receipts, %d counted", own, counted)
	}
	if err := w.door.FlushDenials(t.Context()); err != nil {
		t.Fatal(err)
	}
	facts := w.facts()[before:]
	p := predicate(t, facts[len(facts)-1])
	if len(facts) != 4 || p["outcome"] != "aggregate" || p["count"] != float64(7) {
		t.Fatalf("%d facts, the last states %v", len(facts), p)
	}
	if err := w.door.FlushDenials(t.Context()); err != nil || len(w.facts()) != before+4 {
		t.Fatalf("a second flush wrote again: %v", err)
	}
}

// One hot document, 64 workers of one replica, a store that syncs: nobody gives
// up, nobody's increment is lost and the locks keep conflicts away.
func TestHotDocument(t *testing.T) {
	for host, open := range map[string]func(t *testing.T) store.Store{
		"bolt": func(t *testing.T) store.Store {
			st, err := boltstore.Open(filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return st
		},
		"redis": func(t *testing.T) store.Store {
			st, err := redisstore.Open(t.Context(), redisstore.Options{URL: redistest.Start(t).URL()})
			if err != nil {
				t.Fatal(err)
			}
			return st
		},
	} {
		for _, id := range []writ.CapabilityID{"test.bump", "test.bump-unlocked"} {
			t.Run(host+"/"+string(id), func(t *testing.T) { hotDocument(t, worldOn(t, open(t), &atomic.Int64{}), id) })
		}
	}
}

func hotDocument(t *testing.T, w *world, id writ.CapabilityID) {
	w.now.Store(time.Now().UnixMilli()) // only ids are made of it
	alice := w.session("alice")
	const workers, each = 64, 8
	var wg sync.WaitGroup
	var sessions [8]*writ.Credential // one alone may not have as many calls under way
	for i := range sessions {
		sessions[i] = w.sessionAs("alice", string(rune('a'+i)), writ.RoleOperator)
	}
	for i := range workers {
		who := sessions[i%len(sessions)]
		wg.Go(func() {
			for range each {
				if _, _, err := w.call(who, id, thingArgs{Run: runID(1)}, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	reply, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, "")
	var v thingView
	if err != nil || json.Unmarshal(reply.JSON, &v) != nil || v.Count != workers*each {
		t.Fatalf("counted %d of %d: %v", v.Count, workers*each, err)
	}
	per := float64(w.heard.conflicts.Load()) / (workers * each)
	t.Logf("%.3f conflicts per commit", per)
	if per >= 1.1 {
		t.Errorf("%.2f conflicts per commit", per)
	}
}

// Every fact the door wrote verifies as a receipt.
func TestEveryFactSealsToAReceiptThatVerifies(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.forbid["test.finish"] = true
	for range 3 {
		_, _, _ = w.call(alice, "test.bump", thingArgs{Run: runID(1), Note: "a note nobody sees"}, "")
		_, _, _ = w.call(alice, "test.finish", thingArgs{Run: runID(1)}, "")
	}
	pub, err := cryptoutils.MarshalPublicKeyToPEM(w.seal.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := receipts.NewVerifier(pub)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range w.facts() {
		r, err := w.seal.Seal(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Receipt(r); err != nil {
			t.Fatalf("fact %d: %v", i, err)
		}
		if f.Commit.Seq != int64(i) {
			t.Fatalf("fact %d has sequence %d", i, f.Commit.Seq)
		}
		if strings.Contains(string(f.Payload()), "nobody sees") || strings.Contains(string(f.Evidence), "nobody sees") {
			t.Fatal("an argument is readable in the fact")
		}
	}
}

// first runs its function once; a call made by that function passes through.
type first struct{ done atomic.Bool }

func (f *first) do(fn func()) {
	if f.done.CompareAndSwap(false, true) {
		fn()
	}
}

// A key belongs to a principal in one role and for one agent: the same key in
// another session of another role neither replays nor spoils it.
func TestKeysAreNotSharedBetweenRoles(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k"); err != nil {
		t.Fatal(err)
	}
	other := w.sessionAs("alice", "2", writ.RoleAuditor)
	if reply, _, err := w.call(other, "test.bump", thingArgs{Run: runID(2)}, "k"); err != nil || reply.Replayed {
		t.Fatalf("replayed %v, %v", reply.Replayed, err)
	}
	// And the role's right is asked before anything is replayed.
	w.law.forbid["test.bump"] = true
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k"); writ.CodeOf(err) != writ.CodeRBAC {
		t.Fatalf("got %v", err)
	}
}

// Anybody can write a tenant into a token; only the shards there are get read.
func TestUnknownTenantsAreNotRead(t *testing.T) {
	w := newWorld(t)
	alice := *w.session("alice")
	alice.Tenant = "other"
	if _, _, err := w.call(&alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Fatalf("got %v", err)
	}
	if w.reads.seen("other") {
		t.Fatal("the store was asked for a shard that does not exist")
	}
}

// A caller nobody knows does not stand in the way of others.
func TestStrangersTakeNoLocks(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	stranger := *alice
	stranger.SecretHash[0] ^= 1
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { _, _, _ = w.call(&stranger, "test.bump", thingArgs{Run: runID(1)}, "") })
	}
	for range 20 {
		if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if n := w.heard.conflicts.Load(); n != 0 {
		t.Errorf("%d conflicts", n)
	}
}

// Too many calls at once are refused at the door, before anything is read;
// what is due goes on.
func TestInflightLimit(t *testing.T) {
	w := newWorld(t, func(c *guard.Config) { c.MaxInflight = 1 })
	alice := w.session("alice")
	inside, leave := make(chan struct{}), make(chan struct{})
	var once first
	w.law.deciding = func() {
		once.do(func() {
			close(inside)
			<-leave
		})
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
			t.Error(err)
		}
	})
	<-inside
	_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(2)}, "")
	if e := asError(t, err, writ.CodeBackpressure); e.RetryMs == 0 {
		t.Error("no Retry-After")
	}
	if _, _, err := w.door.System(t.Context(), shard, "test.bump", thingArgs{Run: runID(3)}, nil); err != nil {
		t.Error(err)
	}
	close(leave)
	wg.Wait()
}

// books is a Decider that holds several sets of rules.
type books struct {
	*law
	held map[string]*law
}

func (b books) Under(policy, _ string, _ int64) (guard.Decider, bool) {
	l, ok := b.held[policy]
	return l, ok
}

// A call is judged by the rules its own gate names, from its role to its packs,
// whatever is in force by the time it is decided; and what others put in force
// meanwhile sends it back before it commits.
func TestOneCallOneSetOfRules(t *testing.T) {
	old := &law{policy: "policy-1", deny: map[writ.CapabilityID]writ.Finding{}, forbid: map[writ.CapabilityID]bool{}}
	young := &law{policy: "policy-2", deny: map[writ.CapabilityID]writ.Finding{}, forbid: map[writ.CapabilityID]bool{"test.bump": true}}
	w := newWorld(t, func(c *guard.Config) {
		c.Decider = books{old, map[string]*law{"policy-1": old, "policy-2": young}}
	})
	alice := w.session("alice")
	set := func(policy string) {
		if _, _, err := w.door.System(t.Context(), shard, "gate.set", guard.GateSetArgs{PolicyRevision: policy, BindingsRevision: "bindings-1", ReceiptKeyID: w.seal.KeyID()}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	set("policy-2") // no reload, no 503: the replica holds them
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeRBAC {
		t.Errorf("got %v", err)
	}
	set("policy-3")
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Errorf("rules nobody here holds: %v", err)
	}
	set("policy-1")
	var once first
	old.mu.Lock()
	old.deciding = func() { once.do(func() { set("policy-2") }) }
	old.mu.Unlock()
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeRBAC {
		t.Errorf("decided by the old rules, committed under the new ones: %v", err)
	}
}
