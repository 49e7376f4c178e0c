package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/approvals"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// hides is a finding that redacts.
func hides(t *testing.T, fields ...string) writ.Finding {
	t.Helper()
	f := writ.Finding{Rule: "p.hides", Effect: writ.EffectRedact}
	for _, text := range fields {
		p, ok := writ.ParsePointer(text)
		if !ok {
			t.Fatalf("%q is no pointer", text)
		}
		f.Duties.Redact = append(f.Duties.Redact, p)
	}
	return f
}

func TestRedactedReply(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	for _, id := range []writ.CapabilityID{"test.bump", "test.look"} {
		w.law.deny[id] = hides(t, "/count", "/run_id", "/nothing")
	}
	const hidden = `{"run_id":"[redacted]","count":0,"version":`
	first, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if err != nil || receipt == nil || !strings.HasPrefix(string(first.JSON), hidden) || strings.Join(first.Redacted, " ") != "/count /run_id" {
		t.Fatalf("got %s, %v, %v", first.JSON, first.Redacted, err)
	}
	if first.ETag <= 0 {
		t.Errorf("no version: %d", first.ETag)
	}
	// What is kept under the key is what the caller saw, whatever is decided now.
	clear(w.law.deny)
	again, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if err != nil || !again.Replayed || string(again.JSON) != string(first.JSON) || strings.Join(again.Redacted, " ") != "/count /run_id" {
		t.Fatalf("replayed %v: got %s, %v, %v; want %s", again.Replayed, again.JSON, again.Redacted, err, first.JSON)
	}
	w.law.deny["test.look"] = hides(t, "/count", "/run_id", "/nothing")
	look, receipt, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, "")
	if err != nil || receipt != nil || !strings.HasPrefix(string(look.JSON), hidden) || strings.Join(look.Redacted, " ") != "/count /run_id" {
		t.Fatalf("got %s, %v, %v", look.JSON, look.Redacted, err)
	}
	// The receipt says that policy redacts, and its evidence which rule did.
	facts := w.facts()
	p := predicate(t, facts[len(facts)-1])
	if d, _ := p["decision"].(map[string]any); d["effect"] != "redact" {
		t.Errorf("stated: %v", p["decision"])
	}
}

// The version a commit gives is not written back where it was redacted.
func TestRedactedVersionIsNotReplayed(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.deny["test.bump"] = hides(t, "/*")
	first, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if want := `{"run_id":"[redacted]","count":0,"version":0}`; err != nil || string(first.JSON) != want {
		t.Fatalf("got %s, %v, want %s", first.JSON, err, want)
	}
	again, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if err != nil || !again.Replayed || string(again.JSON) != string(first.JSON) {
		t.Fatalf("got %s, %v, want %s", again.JSON, err, first.JSON)
	}
}

// A secret is not kept under a key, redacted or not.
func TestRedactedSecretIsStillWithheld(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.deny["test.secret"] = hides(t, "/count")
	reply, _, err := w.call(alice, "test.secret", thingArgs{Run: runID(1)}, "k")
	var got thingView
	if uerr := json.Unmarshal(reply.JSON, &got); err != nil || uerr != nil || got.Token != "s3cret" || got.Count != 0 {
		t.Fatalf("got %s, %v", reply.JSON, err)
	}
	if _, _, err := w.call(alice, "test.secret", thingArgs{Run: runID(1)}, "k"); writ.CodeOf(err) != writ.CodeTokenIssued {
		t.Fatalf("got %v", err)
	}
}

// What cannot be denied is not obliged to anything.
func TestMandatesOweNothing(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	w.law.deny["test.mandate"] = hides(t, "/count")
	reply, receipt, err := w.door.System(t.Context(), shard, "test.mandate", thingArgs{Run: runID(1)}, nil)
	if err != nil || receipt == nil || len(reply.Redacted) > 0 || !strings.Contains(string(reply.JSON), `"count":2`) {
		t.Fatalf("got %s, %v, %v", reply.JSON, reply.Redacted, err)
	}
}

// limits is a finding that makes arguments smaller.
func limits(limits ...writ.Limit) writ.Finding {
	return writ.Finding{Rule: "p.limits", Effect: writ.EffectAllow, Duties: writ.Duties{Limits: limits}}
}

func TestLimitedArguments(t *testing.T) {
	three := int64(3)
	full := amountArgs{Run: runID(1), Lease: 120, Wait: 20, TTL: 30, Tries: &three, Must: 9}
	for name, tt := range map[string]struct {
		args   amountArgs
		limits []writ.Limit
		want   string // run with; "" when denied
		told   string
	}{
		"nothing to do": {full, []writ.Limit{{Argument: "lease_s", Max: 120}, {Argument: "tries", Max: 3}}, `"lease_s":120,"wait_s":20,"ttl_s":30,"tries":3,"must":9`, "[]"},
		"smaller": {
			full,
			[]writ.Limit{{Argument: "lease_s", Max: 60}, {Argument: "tries", Max: 2}, {Argument: "wait_s", Max: 0}, {Argument: "must", Max: 0}},
			`"lease_s":60,"ttl_s":30,"tries":2,"must":0`, "[{lease_s 60} {tries 2} {wait_s 0} {must 0}]",
		},
		"zero that is a value":     {amountArgs{Run: runID(1), Lease: 60}, []writ.Limit{{Argument: "wait_s", Max: 5}, {Argument: "lease_s", Max: 60}, {Argument: "must", Max: 1}}, `"lease_s":60,"must":0`, "[]"},
		"left out":                 {amountArgs{Run: runID(1), Lease: 60}, []writ.Limit{{Argument: "ttl_s", Max: 60}}, "", ""},
		"left out, by pointer":     {amountArgs{Run: runID(1), Lease: 60}, []writ.Limit{{Argument: "tries", Max: 60}}, "", ""},
		"below the minimum":        {full, []writ.Limit{{Argument: "lease_s", Max: 9}}, "", ""},
		"below it, not exceeded":   {amountArgs{Run: runID(1), Lease: 60, TTL: 10}, []writ.Limit{{Argument: "ttl_s", Max: 10}}, `"lease_s":60,"ttl_s":10,"must":0`, "[]"},
		"no such argument":         {full, []writ.Limit{{Argument: "leases", Max: 9}}, "", ""},
		"no integer":               {full, []writ.Limit{{Argument: "note", Max: 9}}, "", ""},
		"the name of the Go field": {full, []writ.Limit{{Argument: "Lease", Max: 9}}, "", ""},
		"no such argument, second": {full, []writ.Limit{{Argument: "lease_s", Max: 60}, {Argument: "leases", Max: 9}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			alice := w.session("alice")
			w.law.deny["test.amount"] = limits(tt.limits...)
			reply, receipt, err := w.call(alice, "test.amount", tt.args, "k")
			if tt.want == "" {
				e := writ.AsError("", err)
				if e.Code != writ.CodePolicy || e.Receipt == "" || e.Hint == "" || strings.Join(e.Rules, " ") != "p.limits" {
					t.Fatalf("got %s, %v, want a denial with a receipt", reply.JSON, err)
				}
				return
			}
			if err != nil || receipt == nil || string(reply.JSON) != `{"run_id":"`+string(runID(1))+`",`+tt.want+`}` || fmt.Sprint(reply.Limited) != tt.told {
				t.Fatalf("got %s, %v, %v; want %s, %s", reply.JSON, reply.Limited, err, tt.want, tt.told)
			}
			again, _, err := w.call(alice, "test.amount", tt.args, "k")
			if err != nil || !again.Replayed || string(again.JSON) != string(reply.JSON) || fmt.Sprint(again.Limited) != tt.told {
				t.Fatalf("replayed %v: got %s, %v, %v", again.Replayed, again.JSON, again.Limited, err)
			}
		})
	}
}

// The evidence has what was asked, what was used instead, and the rule.
func TestLimitInEvidence(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	three := int64(3)
	w.law.deny["test.amount"] = limits(writ.Limit{Argument: "lease_s", Max: 60}, writ.Limit{Argument: "tries", Max: 2})
	if _, _, err := w.call(alice, "test.amount", amountArgs{Run: runID(1), Lease: 120, Tries: &three}, ""); err != nil {
		t.Fatal(err)
	}
	facts := w.facts()
	b, err := json.Marshal(unsealed(t, facts[len(facts)-1]))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{`"lease_s":120`, `"tries":3`, `"limited":[{"argument":"lease_s","max":60},{"argument":"tries","max":2}]`, `"rule":"p.limits"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}

// A call that meets a conflict is judged again with what was asked.
func TestLimitAfterConflict(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.session("alice"), w.session("bob")
	var seen []int64
	most := int64(60)
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		a, ok := in.Call.Args.(*amountArgs)
		if !ok {
			return nil
		}
		seen = append(seen, a.Lease)
		f := limits(writ.Limit{Argument: "lease_s", Max: most})
		return &f
	}
	w.law.deciding = func() {
		if len(seen) == 1 { // between what was read and the commit, the run moves and the limit with it
			most = 90
			w.law.deciding = nil
			if _, _, err := w.call(bob, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
				t.Error(err)
			}
		}
	}
	reply, _, err := w.call(alice, "test.amount", amountArgs{Run: runID(1), Lease: 120}, "")
	if err != nil || fmt.Sprint(seen) != "[120 120]" || !strings.Contains(string(reply.JSON), `"lease_s":90`) || fmt.Sprint(reply.Limited) != "[{lease_s 90}]" {
		t.Fatalf("judged %v: got %s, %v, %v", seen, reply.JSON, reply.Limited, err)
	}
}

// People are asked about the call that would run.
func TestLimitBeforeApproval(t *testing.T) {
	w := newWorld(t, func(c *guard.Config) { c.Approver = approvals.New(approvals.Config{}) })
	alice := w.session("alice")
	f := limits(writ.Limit{Argument: "lease_s", Max: 60})
	f.Effect = writ.EffectRequireApproval
	f.Needs = []writ.Need{{
		Rule: "p.limits", Kind: writ.ApproveEffect, Scope: writ.ScopeCall, Approvers: 1, Roles: []writ.Role{writ.RoleApprover}, ExpiresS: 3600, MaxUses: 1,
	}}
	f.Duties.Redact = hides(t, "/status", "/approval_id").Duties.Redact
	w.law.deny["test.amount"] = f
	var ids []writ.ApprovalID
	for _, lease := range []int64{120, 60, 30} {
		reply, _, err := w.call(alice, "test.amount", amountArgs{Run: runID(1), Lease: lease}, "")
		var p writ.Pending
		if uerr := json.Unmarshal(reply.JSON, &p); err != nil || uerr != nil || reply.Outcome != writ.OutcomePending || !p.Approval.Valid() || len(reply.Redacted) > 0 {
			t.Fatalf("lease %d: got %s, %v, %v", lease, reply.JSON, reply.Redacted, err)
		}
		if (lease > 60) != (len(reply.Limited) == 1) {
			t.Errorf("lease %d: told %v", lease, reply.Limited)
		}
		ids = append(ids, p.Approval)
	}
	if ids[0] != ids[1] || ids[1] == ids[2] {
		t.Fatalf("got approvals %v: 120 and 60 are one call, 30 is another", ids)
	}
	s, err := w.store.Read(t.Context(), shard, writ.ReadSet{Docs: []writ.Key{writ.ApprovalKey(ids[0])}})
	if err != nil {
		t.Fatal(err)
	}
	a, _, _, err := writ.Get[writ.Approval](s, writ.ApprovalKey(ids[0]))
	if err != nil || !strings.Contains(string(a.Args), `"lease_s":60`) {
		t.Fatalf("people are shown %s, %v", a.Args, err)
	}
}

// told is a store that says what it promises.
type told struct {
	store.Store
	means writ.Durability
	err   error
}

func (s *told) Info(context.Context) (store.Info, error) {
	return store.Info{Kind: "test", Durability: s.means}, s.err
}

func TestDurability(t *testing.T) {
	host := &told{}
	w := newWorld(t, func(c *guard.Config) { host.Store = c.Store; c.Store = host })
	alice := w.session("alice")
	for _, tt := range []struct {
		want, means writ.Durability
		err         error
		ok          bool
	}{
		{"", writ.DurabilityBuffered, nil, true},
		{writ.DurabilityBuffered, writ.DurabilityBuffered, nil, true},
		{writ.DurabilityBuffered, writ.DurabilityCommitted, nil, true},
		{writ.DurabilityCommitted, writ.DurabilityCommitted, nil, true},
		{writ.DurabilityCommitted, writ.DurabilityBuffered, nil, false},
		{writ.DurabilityCommitted, writ.DurabilityCommitted, errors.New("the store is gone"), false},
		{writ.DurabilityCommitted, writ.DurabilityCommitted, nil, true}, // asked anew every time
		{writ.DurabilityLogged, writ.DurabilityCommitted, nil, false},
		{"eternal", writ.DurabilityCommitted, nil, false},
	} {
		host.means, host.err = tt.means, tt.err
		f := writ.Finding{Rule: "p.durable", Effect: writ.EffectAllow, Duties: writ.Duties{Durability: tt.want}}
		w.law.deny["test.bump"], w.law.deny["test.look"] = f, f
		before := len(w.facts())
		_, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
		if tt.ok != (err == nil) || !tt.ok && (writ.CodeOf(err) != writ.CodeStore || len(w.facts()) != before) || tt.ok && receipt == nil {
			t.Errorf("%+v: got %v, %d facts more", tt, err, len(w.facts())-before)
		}
		if _, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, ""); err != nil {
			t.Errorf("%+v: a read: %v", tt, err)
		}
	}
}

// A claim waits no longer than policy lets it, is told so whether there was work
// or not, and every candidate is judged for what was asked.
func TestLimitedWait(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	var asked []int64
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		a, ok := in.Call.Args.(*claimArgs)
		if !ok {
			return nil
		}
		asked = append(asked, a.Wait)
		f := limits(writ.Limit{Argument: "wait_s", Max: 0})
		return &f
	}
	reply, receipt, err := w.poll(d, alice, 3600, "")
	if err != nil || receipt != nil || reply.Outcome != writ.OutcomeEmpty || fmt.Sprint(reply.Limited) != "[{wait_s 0}]" {
		t.Fatalf("got %+v, %v", reply, err)
	}
	w.push(1)
	reply, receipt, err = w.poll(d, alice, 3600, "")
	if err != nil || receipt == nil || fmt.Sprint(reply.Limited) != "[{wait_s 0}]" {
		t.Fatalf("got %+v, %v", reply, err)
	}
	if fmt.Sprint(asked) != "[3600 3600 3600]" { // two polls, and the candidate of the second
		t.Errorf("judged %v", asked)
	}
}

// With smaller arguments a call can be about something else. That is read, and
// what policy says of it holds.
func TestASmallerCallIsJudgedAgain(t *testing.T) {
	for name, second := range map[string]writ.Finding{
		"denied":          {Rule: "p.second", Effect: writ.EffectDeny},
		"to be signed":    {Rule: "p.second", Effect: writ.EffectAllow, Duties: writ.Duties{Cosign: true}},
		"limited further": {Rule: "p.second", Effect: writ.EffectAllow, Duties: writ.Duties{Limits: []writ.Limit{{Argument: "lease_s", Max: 30}}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			alice := w.session("alice")
			var seen []int64
			w.law.judge = func(in writ.PolicyInput) *writ.Finding {
				a, ok := in.Call.Args.(*amountArgs)
				if !ok {
					return nil
				}
				seen = append(seen, a.Lease)
				f := second
				if a.Lease > 60 {
					f = limits(writ.Limit{Argument: "lease_s", Max: 60})
				}
				return &f
			}
			reply, _, err := w.call(alice, "test.amount", amountArgs{Run: runID(1), Lease: 120, Note: "reads by lease"}, "")
			if e := writ.AsError("", err); err == nil || e.Code != writ.CodePolicy || fmt.Sprint(e.Rules) != "[p.second]" || fmt.Sprint(seen) != "[120 60]" {
				t.Errorf("judged %v: got %s, %v", seen, reply.JSON, err)
			}
		})
	}
}

// What goes with a limit holds though the smaller call alone would not ask for it.
func TestWhatGoesWithALimitHolds(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		if a, ok := in.Call.Args.(*amountArgs); ok && a.Lease > 60 {
			f := limits(writ.Limit{Argument: "lease_s", Max: 60})
			f.Duties.Durability = writ.DurabilityLogged
			return &f
		}
		return nil
	}
	for _, note := range []string{"", "reads by lease"} {
		if reply, _, err := w.call(alice, "test.amount", amountArgs{Run: runID(1), Lease: 120, Note: note}, ""); err == nil {
			t.Errorf("%q: the other duty is forgotten: %s", note, reply.JSON)
		}
	}
}
