package policies

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
	"pgregory.net/rapid"
)

// agrees compares what an engine decides, remembering, with what its packs say
// when they are asked. Few calls may fail: a failure hides what the other packs say.
func agrees(ctx context.Context, e *Engine, in writ.PolicyInput) error {
	s := e.now.Load()
	v, canonical, err := buildInput(in)
	if err != nil {
		return err
	}
	want := writ.Decision{}
	found, werr := s.routes[in.Capability.ID].eval(ctx, v, time.Minute)
	conclude(&want, found)
	for range 2 { // the second time remembered, whatever was so the first time
		got, gerr := e.Decide(ctx, in)
		switch {
		case (werr == nil) != (gerr == nil):
			return fmt.Errorf("%s: remembering gives error %v, asking %v", canonical, gerr, werr)
		case gerr != nil:
		case got.Effect != want.Effect, !reflect.DeepEqual(got.Findings, want.Findings), !reflect.DeepEqual(got.Needs, want.Needs), !bytes.Equal(got.Record, canonical):
			return fmt.Errorf("%s:\nremembering %s %v\nasking      %s %v", canonical, got.Effect, got.Rules(), want.Effect, want.Rules())
		}
	}
	return nil
}

// told is a call in which a rule of a pack holds.
type told struct {
	in   writ.PolicyInput
	pack *pack
}

// telling are calls in each of which another rule of the engine's packs holds, as
// far as an edit of a common call of some capability leads to them. They are
// found by asking: a memo that is wrong must not hide a rule.
func telling(t testing.TB, e *Engine) []told {
	t.Helper()
	late := claim() // dangerous work of one that has spent nearly everything
	late.Capability = &writ.Capability{ID: "task.claim", Class: writ.Ordinary, Safety: writ.SafetyDestructive}
	late.Subject.Task.Safety, late.Subject.Task.Raised, late.Subject.Task.Approval = writ.SafetyDestructive, true, writ.ApprovalManual
	late.Subject.Budget = []writ.BudgetFacts{{Dimension: writ.BudgetSteps, Limit: 1000, Cost: 1, Fits: true, Band: 80, OnExceed: "soft_warn"}}
	late.Subject.Labels = []writ.Label{writ.LabelExternalUntrusted}
	late.Subject.Skill = &writ.SkillFacts{Source: "file", State: "active", Intact: true, Ready: true} // which depends on the role
	packs, rules := map[string]*pack{}, 0
	for _, p := range e.now.Load().packs {
		packs[p.ID] = p
		rules += len(p.order)
	}
	var out []told
	held := map[string]bool{}
	for _, common := range []struct {
		in writ.PolicyInput
		of []writ.CapabilityID
	}{
		{late, []writ.CapabilityID{"task.claim", "task.enqueue", "skill.load"}},
		{full(), append(slices.Clone(everything[len(verbs):]), "task.claim", "task.enqueue", "run.create")},
		{claim(), []writ.CapabilityID{"task.claim", "task.enqueue"}},
	} {
		for _, c := range common.of {
			for _, x := range edits() {
				in, k := common.in, *common.in.Capability
				k.ID = c
				in.Capability = &k
				x.do(&in)
				v, _ := input(t, in)
				found, err := e.now.Load().routes[in.Capability.ID].eval(t.Context(), v, time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range found {
					if !held[f.Rule] {
						held[f.Rule] = true
						out = append(out, told{in, packs[f.Pack]})
					}
				}
			}
		}
	}
	if len(held) < rules*9/10 {
		t.Errorf("calls were found for %d of %d rules; the edits no longer lead to them", len(held), rules)
	}
	return out
}

// some are a part of what is to be tried: the race detector has nothing to find where
// one goroutine works, and makes it long. make runs all of it without.
func some[T any](all []T) (out []T) {
	if !writtest.Raced {
		return all
	}
	for i := 0; i < len(all); i += 8 {
		out = append(out, all[i])
	}
	return out
}

// One field changes at a time, all fields to all values, from calls in which
// every rule holds: no answer of a pack is ever that to another call.
func TestNoWrongHit(t *testing.T) {
	e, err := Load(t.Context(), Shipped(), Options{Capabilities: everything, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	bases := telling(t, e)
	rules := e.now.Load()
	for _, base := range bases {
		for _, x := range some(edits()) {
			in := base.in
			x.do(&in)
			v, _, err := buildInput(in)
			if err != nil {
				t.Fatal(err)
			}
			want, err := base.pack.alone.eval(t.Context(), v, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			b := newBuilder()
			if err := b.input(in); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time remembered, whatever was so the first time
				got, err := rules.answer(t.Context(), base.pack.alone, in, b)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("%s, %s:\nremembering %v %v\nasking      %v", base.pack.ID, x.name, got, err, want)
				}
			}
		}
	}
	if m := e.Memo(); m.Hits() < 3*m.Misses() {
		t.Errorf("%d hits and %d misses: the memo is hardly used, so the test says little", m.Hits(), m.Misses())
	}
}

// The same of packs that come at the input in every way there is.
func TestNoWrongHitOfAwkwardPacks(t *testing.T) {
	e := loadAwkward(t)
	for i, base := range []writ.PolicyInput{claim(), full()} {
		for _, x := range some(edits()) {
			in := base
			x.do(&in)
			if err := agrees(t.Context(), e, in); err != nil {
				t.Fatalf("base %d, %s: %v", i, x.name, err)
			}
		}
	}
}

// Whatever happens to a call, one edit after another.
func noWrongHits(t testing.TB) func(*rapid.T) {
	e, list := loadAwkward(t), edits()
	return func(rt *rapid.T) {
		in := rapid.SampledFrom([]writ.PolicyInput{claim(), full()}).Draw(rt, "base")
		for range rapid.IntRange(1, 30).Draw(rt, "edits") {
			list[rapid.IntRange(0, len(list)-1).Draw(rt, "edit")].do(&in)
			if err := agrees(rt.Context(), e, in); err != nil {
				rt.Fatal(err)
			}
		}
	}
}

func TestNoWrongHitAtRandom(t *testing.T) { rapid.Check(t, noWrongHits(t)) }

func FuzzMemo(f *testing.F) {
	for seed := range uint64(4) {
		at, b := rand.New(rand.NewPCG(seed, 1)), make([]byte, 0, 8<<10)
		for len(b) < cap(b) {
			b = binary.LittleEndian.AppendUint64(b, at.Uint64())
		}
		f.Add(b)
	}
	f.Fuzz(rapid.MakeFuzz(noWrongHits(f)))
}

// Many calls at once share what is remembered, and nobody changes it.
func TestMemoIsShared(t *testing.T) {
	e, list := loadAwkward(t), edits()
	denied := claim()
	denied.Subject.Agent = &writ.AgentFacts{ID: "builder-1", Status: writ.AgentSuspended}
	before := plain(t, decide(t, e, denied))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			at := rand.New(rand.NewPCG(1, uint64(g)))
			in := claim()
			for range 100 {
				list[at.IntN(len(list))].do(&in)
				if err := agrees(t.Context(), e, in); err != nil {
					t.Error(err)
					return
				}
				d, err := e.Decide(t.Context(), denied)
				if err != nil {
					t.Error(err)
					return
				}
				_ = append(d.Findings, writ.Finding{Rule: "somebody's own"})
			}
		})
	}
	wg.Wait()
	if after := plain(t, decide(t, e, denied)); after != before {
		t.Errorf("got  %s\nwant %s", after, before)
	}
}

// The memo is bounded in entries and in their size, and forgets what was not used longest.
func TestMemoIsBounded(t *testing.T) {
	m := newMemo()
	kept := []byte("kept")
	m.put(kept, []writ.Finding{{Rule: "a.b"}})
	for i := range 20 * memoEntries {
		m.put(fmt.Append(nil, i), nil)
		if found, ok := m.get(kept); !ok || len(found) != 1 {
			t.Fatalf("what is used all the time was forgotten after %d others", i)
		}
	}
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		if len(s.by) != s.order.Len() {
			t.Errorf("shard %d has %d keys and %d entries", i, len(s.by), s.order.Len())
		}
		n += len(s.by)
	}
	if n != memoEntries {
		t.Errorf("%d entries are kept, want %d", n, memoEntries)
	}
	if _, ok := m.get([]byte("0")); ok {
		t.Error("the oldest is still there")
	}
	long := bytes.Repeat([]byte("x"), memoKey+1)
	if m.put(long, nil); m.shard(long).by[string(long)] != nil {
		t.Error("a key beyond the bound was kept")
	}
}

// Errors, and calls nobody waits for any more, leave nothing behind.
func TestErrorsAreNotRemembered(t *testing.T) {
	f := sources(t)
	guardPack(f, "extra", "task.claim", "deny", `"effect": "deny", "code": "quota_exceeded"`, `to_number(input.run.id) > 10`)
	e := loadFrom(t, from(f))
	size := func(id string) (n int) {
		for _, p := range e.now.Load().packs {
			for i := range memoShards {
				if p.ID == id {
					n += len(p.memo.shards[i].by)
				}
			}
		}
		return n
	}
	for range 3 {
		if d, err := e.Decide(t.Context(), claim()); writ.CodeOf(err) != writ.CodePolicyDown || d.Effect != writ.EffectDeny {
			t.Fatalf("got %s %v, want deny and %s", d.Effect, err, writ.CodePolicyDown)
		}
	}
	if n := size("extra"); n != 0 {
		t.Errorf("%d errors are remembered", n)
	}
	in := claim()
	in.Subject.Run.ID = "12"
	if got := decide(t, e, in).Rules(); !slices.Equal(got, []string{"extra.rule"}) || size("extra") != 1 {
		t.Errorf("got %v and %d entries, want the rule, and it remembered", got, size("extra"))
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Decide(gone, in); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone: got %v", err)
	}
}

// A pack may ask to be evaluated each time.
func TestMemoFalse(t *testing.T) {
	f := sources(t)
	guardPack(f, "extra", "task.claim", "deny", `"effect": "deny", "code": "quota_exceeded"`, `input.run.state == "failed"`)
	f["packs/extra/pack.yaml"] = bytes.Replace(f["packs/extra/pack.yaml"], []byte("effects:"), []byte("memo: false, effects:"), 1)
	e := loadFrom(t, from(f))
	for range 3 {
		decide(t, e, claim())
	}
	if got := e.Memo(); got.Misses() != 6 || got.Hits() != 12 {
		t.Errorf("%d misses and %d hits of six packs that remember, want 6 and 12", got.Misses(), got.Hits())
	}
	for _, p := range e.now.Load().packs {
		if (p.memo == nil) != (p.ID == "extra") {
			t.Errorf("%s remembers: %t", p.ID, p.memo != nil)
		}
	}
}

// What is remembered goes with the rules; the engine's count goes on.
func TestMemoGoesWithTheRules(t *testing.T) {
	e := load(t)
	decide(t, e, claim())
	decide(t, e, claim())
	old := e.now.Load()
	if err := e.Reload(t.Context(), Shipped()); err != nil {
		t.Fatal(err)
	}
	decide(t, e, claim())
	if got := e.now.Load().Memo(); got.Hits() != 0 || got.Misses() != 6 {
		t.Errorf("new rules: %d hits and %d misses, want 0 and 6", got.Hits(), got.Misses())
	}
	if got := old.Memo(); got.Hits() != 6 || got.Misses() != 6 {
		t.Errorf("old rules: %d hits and %d misses, want 6 and 6", got.Hits(), got.Misses())
	}
	if got := e.Memo(); got.Hits() != 6 || got.Misses() != 12 {
		t.Errorf("the engine: %d hits and %d misses, want 6 and 12", got.Hits(), got.Misses())
	}
}
