package pack

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	wlog "github.com/writ-gateway/writ/receipts/tlog"
)

// signedAgain puts another payload into a receipt's file, signed with the receipt key, and
// the entry that follows from it.
func (l *lab) signedAgain(text, payload []byte) []byte {
	b, code := parse(text)
	if code != "" {
		l.t.Fatal(code)
	}
	sig, enc := l.forge(payload), base64.StdEncoding.EncodeToString
	der, err := wlog.PublicDER(&l.priv.PublicKey)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, x := range [][2][]byte{{b.payload, payload}, {b.signed, sig}, {b.leaf, wlog.Leaf(writ.Receipt{Payload: payload, Sig: sig}, der)}} {
		text = bytes.Replace(text, []byte(`"`+enc(x[0])+`"`), []byte(`"`+enc(x[1])+`"`), 1)
	}
	return text
}

// Who has the receipt key and not the log's signs what they like: what is in no form is
// malformed, all else is not in the log.
func TestSignedAgainWithoutTheLog(t *testing.T) {
	l, _ := story(t)
	f := l.export(Options{})
	o := node(t)
	at := receiptName(9)
	b, _ := parse(f[at])
	change := func(old, new string) func() []byte {
		return func() []byte {
			out := bytes.Replace(b.payload, []byte(old), []byte(new), 1)
			if bytes.Equal(out, b.payload) {
				t.Fatalf("no %q in %s", old, b.payload)
			}
			return out
		}
	}
	keyID, spki := "SHA256:"+strings.Repeat("k", 43), strings.Repeat("c", 64)
	// ofKey makes it a receipt that says something of a key, and moves one.
	ofKey := func(what, purpose, since, moves string) func() []byte {
		return func() []byte {
			_, rest, _ := strings.Cut(string(b.payload), `"subject":[{"digest":{"sha256":"`)
			_, name, _ := strings.Cut(rest, `"name":"task/`)
			task, _, _ := strings.Cut(name, `"`)
			return []byte(strings.NewReplacer(
				`"task.enqueue"`, `"`+what+`"`, `"id":"`+task+`","kind":"task"`, `"id":"`+moves+`","kind":"key"`, `"task/`+task+`"`, `"key/`+moves+`"`,
				`"keyId"`, `"key":{"id":"`+keyID+`","purpose":"`+purpose+`",`+since+`"spki":"`+spki+`"},"keyId"`,
			).Replace(string(b.payload)))
		}
	}
	for name, c := range map[string]struct {
		payload func() []byte
		want    string
	}{
		"another state":        {change(`"to":"queued"`, `"to":"blocked"`), "inclusion@9"},
		"another time":         {change(`:09.000Z`, `:08.000Z`), "inclusion@9"},
		"another nonce":        {change(`"nonce":"`, `"nonce":"00`), "payload_malformed@9"},
		"another key":          {change(`"keyId":"SHA256:`, `"keyId":"SHA256:x`), "key_differs@9"},
		"another log":          {change(`"origin":"log.example.org"`, `"origin":"log.example.com"`), "origin@9"},
		"another sequence":     {change(`"seq":9`, `"seq":8`), "seq_moved@9"},
		"a space":              {change(`{"_type"`, `{ "_type"`), "payload_malformed@9"},
		"another order":        {change(`"from":"","id"`, `"id":"x","from":"","id"`), "payload_malformed@9"},
		"an escape":            {change(`"task.enqueue"`, `"task\u002eenqueue"`), "payload_malformed@9"},
		"one member more":      {change(`"nonce"`, `"nonbe":1,"nonce"`), "payload_malformed@9"},
		"a number as a text":   {change(`"seq":9`, `"seq":"10"`), "payload_malformed@9"},
		"a float":              {change(`"seq":9`, `"seq":9.0`), "payload_malformed@9"},
		"an exponent":          {change(`"seq":9`, `"seq":9e0`), "payload_malformed@9"},
		"a kind nobody knows":  {change(`"kind":"task"`, `"kind":"tusk"`), "payload_malformed@9"},
		"a role nobody knows":  {change(`"role":"orchestrator"`, `"role":"emperor"`), "payload_malformed@9"},
		"no such month":        {change(`2026-01-01`, `2026-13-01`), "payload_malformed@9"},
		"a year of six digits": {change(`"2026-01-01`, `"+010000-01-01`), "payload_malformed@9"},
		"a year before all":    {change(`"2026-01-01`, `"-000001-01-01`), "payload_malformed@9"},
		"a year in six digits": {change(`"2026-01-01`, `"+002026-01-01`), "payload_malformed@9"},
		"no such day":          {change(`2026-01-01`, `2026-02-30`), "payload_malformed@9"},
		"another evidence": {func() []byte { // and the subject with it
			_, rest, _ := strings.Cut(string(b.payload), `"evidence":"`)
			return []byte(strings.ReplaceAll(string(b.payload), rest[:64], strings.Repeat("0", 64)))
		}, "inclusion@9"},
		"an outcome nobody has":     {change(`"outcome":"transition"`, `"outcome":"transit"`), "payload_malformed@9"},
		"an outcome all have":       {change(`"outcome":"transition"`, `"outcome":"toString"`), "payload_malformed@9"},
		"an outcome of all":         {change(`"outcome":"transition"`, `"outcome":"__proto__"`), "payload_malformed@9"},
		"a kind all objects have":   {change(`"kind":"task"`, `"kind":"constructor"`), "payload_malformed@9"},
		"a member all objects have": {change(`"nonce"`, `"__proto__":{},"nonce"`), "payload_malformed@9"},
		"a transition refused":      {change(`"commit"`, `"code":"not_found","commit"`), "payload_malformed@9"},
		"a denial that moves":       {change(`"outcome":"transition"`, `"outcome":"denial"`), "payload_malformed@9"},
		"another subject":           {change(`"name":"task/`, `"name":"tusk/`), "payload_malformed@9"},
		"no run sequence":           {change(`"runSeq":2,`, ``), "payload_malformed@9"},
		"another type":              {change(`transition/v1`, `transition/v2`), "payload_malformed@9"},
		"not of the alphabet":       {change(`"task.enqueue"`, `"task enqueue"`), "payload_malformed@9"},
		"bytes that are none":       {change(`"task.enqueue"`, "\"task\xff\""), "payload_malformed@9"},
		"a verdict":                 {change(`"transition":"task.enqueue"`, `"transition":"task.enqueue","verdict":{"digest":"`+spki+`","keyId":"`+keyID+`"}`), "inclusion@9"},
		"a verdict by no key":       {change(`"transition":"task.enqueue"`, `"transition":"task.enqueue","verdict":{"digest":"`+spki+`","keyId":"`+keyID[1:]+`"}`), "payload_malformed@9"},
		"half a verdict":            {change(`"transition":"task.enqueue"`, `"transition":"task.enqueue","verdict":{"digest":"`+spki+`"}`), "payload_malformed@9"},
		"a key":                     {ofKey("key.revoke", "receipt", `"since":3,`, spki), "inclusion@9"},
		"a key of another use":      {ofKey("key.revoke", "log", "", spki), "payload_malformed@9"},
		"since in vain":             {ofKey("key.retire", "receipt", `"since":3,`, spki), "payload_malformed@9"},
		"another key moves":         {ofKey("key.retire", "receipt", "", strings.Repeat("d", 64)), "payload_malformed@9"},
		"a key of no receipt":       {ofKey("task.enqueue", "receipt", "", spki), "payload_malformed@9"},
		"a receipt of no key":       {func() []byte { return bytes.ReplaceAll(b.payload, []byte(`"task.enqueue"`), []byte(`"key.retire"`)) }, "payload_malformed@9"},
		"nothing":                   {func() []byte { return nil }, "payload_malformed@9"},
		"a list":                    {func() []byte { return []byte("[]") }, "payload_malformed@9"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := f.with(func(p files) { p[at] = l.signedAgain(p[at], c.payload()) })
			if a := both(t, o, "again", f, changed, l.trust(), Ask{}); !slices.Equal(a.Codes, []string{c.want}) {
				t.Errorf("got %v, want %s", a.Codes, c.want)
			}
		})
	}
}

// Who has both keys makes another log, and only an earlier checkpoint tells.
func TestAForkIsToldByAnEarlierCheckpoint(t *testing.T) {
	l, c := story(t)
	kept := l.checkpoint(9)
	fork := world(t)
	fork.cast()
	fork.do(call{what: "session.close", by: c.judge, args: map[string]any{}, moves: []writ.Change{move("session", string(c.judge.Session), "active", "closed")}})
	fork.begin(c)
	f := fork.export(Options{})
	o := node(t)
	if a := both(t, o, "fork", f, f, l.trust(), Ask{}); a.Exit != 0 {
		t.Fatalf("without the earlier checkpoint: got %v", a.Codes)
	}
	since := f.with(func(p files) {
		p[FileEarlier] = kept
		p[FileConsistency] = fork.export(Options{Earlier: fork.checkpoint(9)})[FileConsistency]
	})
	if a := both(t, o, "fork", f, since, l.trust(), Ask{}); !slices.Equal(a.Codes, []string{"consistency@-1"}) || a.Exit != 1 || a.Earlier != nil {
		t.Errorf("with it: got %v", a.Codes)
	}
	root, ok, err := Root(f.pack(), 9)
	old, perr := wlog.ParseCheckpoint(kept, l.logKey())
	if err != nil || perr != nil || !ok || root == old.Root || root == (tlog.Hash{}) {
		t.Errorf("the root of its beginning: got %v, %v, %v, %v", root, ok, err, perr)
	}
}

// What the holder of both keys could never have recorded honestly.
func TestLogsNobodyHonestKeeps(t *testing.T) {
	o := node(t)
	closes := func(l *lab, c cast, from, to string, parents ...string) { // the worker's session
		var ids []writ.ReceiptID
		for _, p := range parents {
			ids = append(ids, writ.ReceiptID(p))
		}
		l.do(call{what: "session.close", by: c.worker, parents: ids, moves: []writ.Change{move("session", string(c.worker.Session), from, to)}})
	}
	for name, x := range map[string]struct {
		play func(l *lab, c cast)
		want string
		exit int
	}{
		"a parent in the future": {func(l *lab, c cast) {
			closes(l, c, "active", "closed", ulid("rcp", 10))
			l.do(call{what: "agent.get", by: c.worker, code: writ.CodeNotFound})
		}, "parent_future@8", 1},
		"a parent from nowhere": {func(l *lab, c cast) {
			closes(l, c, "active", "closed", ulid("rcp", 99))
		}, "parent_unknown@8", 1},
		"its own parent": {func(l *lab, c cast) {
			closes(l, c, "active", "closed", ulid("rcp", 9))
		}, "parent_self@8", 1},
		"a move no state has": {func(l *lab, c cast) {
			closes(l, c, "active", "opened")
		}, "move_illegal@8", 1},
		"a move to what all have": {func(l *lab, c cast) {
			closes(l, c, "active", "toString")
		}, "move_illegal@8", 1},
		"a move from what all have": {func(l *lab, c cast) {
			closes(l, c, "constructor", "closed")
		}, "move_illegal@8", 1},
		"a move from elsewhere": {func(l *lab, c cast) {
			closes(l, c, "suspended", "closed")
		}, "move_from@8", 1},
		"time that goes back": {func(l *lab, c cast) {
			l.do(call{what: "agent.get", by: c.worker, code: writ.CodeNotFound, at: 3})
		}, "time_back@8", 1},
		"an epoch that comes back": {func(l *lab, c cast) {
			l.do(call{what: "agent.get", by: c.worker, code: writ.CodeNotFound, epoch: "e2"})
			l.do(call{what: "agent.get", by: c.worker, code: writ.CodeNotFound})
		}, "epoch_back@9", 1},
		"one verdict for two": {func(l *lab, c cast) {
			v := &writ.VerdictRef{Digest: strings.Repeat("d", 64), KeyID: "SHA256:" + strings.Repeat("k", 43)}
			l.do(call{what: "session.close", by: c.worker, verdict: v, moves: []writ.Change{move("session", string(c.worker.Session), "active", "closed")}})
			l.do(call{what: "session.close", by: c.judge, verdict: v, moves: []writ.Change{move("session", string(c.judge.Session), "active", "closed")}})
		}, "verdict_twice@9", 1},
		"one id for two": {func(l *lab, c cast) {
			l.denied = true // evidence is kept by the id
			l.do(call{what: "agent.get", by: c.worker, code: writ.CodeNotFound})
			closes(l, c, "active", "closed", ulid("rcp", 9))
			l.do(call{what: "agent.get", by: c.worker, code: writ.CodeNotFound, id: writ.ReceiptID(ulid("rcp", 9))})
		}, "receipt_twice@10", 1},
		"a run with a gap": {func(l *lab, c cast) {
			l.runs[c.run]++
			l.begin(c)
		}, "run_gap@8", 3},
		"a run that goes back": {func(l *lab, c cast) {
			l.begin(c)
			l.runs[c.run] -= 2
			l.do(call{what: "task.get", by: c.worker, run: c.run, code: writ.CodeNotFound})
		}, "run_back@13", 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			x.play(l, l.cast())
			f := l.export(Options{})
			if a := both(t, o, name, f, f, l.trust(), Ask{}); !slices.Contains(a.Codes, x.want) || a.Exit != x.exit {
				t.Errorf("got %v, want %s", a.Codes, x.want)
			}
		})
	}
}

// Who closed a run, and whether they may: worked out from what was signed, whatever the
// gateway let through.
func TestWhoClosedIt(t *testing.T) {
	o := node(t)
	claims := func(l *lab, c cast, who writ.Actor) {
		l.do(call{what: "task.claim", by: who, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "queued", "running")}})
	}
	completes := func(l *lab, c cast, who writ.Actor) {
		l.do(call{what: "task.complete", by: who, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "running", "verifying")}})
	}
	sendsBack := func(l *lab, c cast) writ.ReceiptID { // and says on what
		result := l.last["task/"+c.task]
		l.do(call{what: "task.verify", by: c.judge, run: c.run, args: map[string]any{"receipt_id": result}, moves: []writ.Change{move("task", c.task, "verifying", "queued")}})
		return result
	}
	again := func(l *lab, c cast) writ.ReceiptID { // the result is sent back and given once more
		first := sendsBack(l, c)
		claims(l, c, c.worker)
		completes(l, c, c.worker)
		return first
	}
	enqueues := func(l *lab, c cast) {
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", ulid("tsk", 2), "", "queued")}})
	}
	accepted := func(c cast) []writ.Change {
		return []writ.Change{move("task", c.task, "verifying", "done"), move("run", string(c.run), "active", "verifying")}
	}
	pass := []any{map[string]any{"gate": "lint", "status": "pass"}}
	// accepts is a verdict on a receipt with what checks gave.
	accepts := func(l *lab, c cast, on writ.ReceiptID, gates []any, parents ...writ.ReceiptID) {
		args := map[string]any{"receipt_id": on}
		if gates != nil {
			args["gates"] = gates
		}
		l.do(call{what: "task.verify", by: c.judge, run: c.run, parents: parents, moves: accepted(c), args: args})
	}
	keyed := func(l *lab, c cast, agents ...string) {
		l.register(c.operator, string(l.pub()), agents...)
		l.register(c.operator, "", "planner")
	}
	plain := func(l *lab, c cast) { l.register(c.operator, "", "planner", "worker", "judge") }
	// by has somebody accept in a session that the opener opened.
	by := func(agent, principal, controller string, opener func(c cast) writ.Actor) func(l *lab, c cast) {
		kind := writ.KindHuman
		if agent != "" {
			kind = writ.KindAgent
		}
		return func(l *lab, c cast) {
			l.accept(c, l.open(opener(c), ses(9), principal, kind, writ.RoleVerifier, agent, controller))
		}
	}
	asks, second := map[string]any{"required": true, "gates": []string{"lint"}}, ulid("tsk", 2)
	made := func(l *lab, c cast, what string, by writ.Actor, args any) {
		l.do(call{what: what, by: by, run: c.run, args: args, moves: []writ.Change{move("task", second, "", "queued")}})
		l.do(call{what: "task.claim", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "running")}})
	}
	finish := func(l *lab, c cast) {
		l.do(call{what: "task.complete", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "running", "done")}})
	}
	judged := func(l *lab, c cast) {
		l.do(call{what: "task.complete", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "running", "verifying")}})
		l.do(call{what: "task.verify", by: c.judge, run: c.run, args: map[string]any{"receipt_id": l.last["task/"+second]}, moves: []writ.Change{move("task", second, "verifying", "done")}})
	}
	operator := func(c cast) writ.Actor { return c.operator }
	nothing := func(*lab, cast) {}
	for name, x := range map[string]struct {
		before func(l *lab, c cast) // the run begins
		play   func(l *lab, c cast)
		want   string // findings, each once; empty: it is as it should be
	}{
		"by somebody else": {nothing, func(l *lab, c cast) { l.accept(c, c.judge) }, ""},
		"once more": {nothing, func(l *lab, c cast) {
			again(l, c)
			l.accept(c, c.judge)
		}, ""},
		"after a worker's session was taken away": {nothing, func(l *lab, c cast) {
			again(l, c)
			sendsBack(l, c)
			claims(l, c, c.worker)
			session := string(c.worker.Session)
			l.do(call{what: "session.suspend", by: system, moves: []writ.Change{move("session", session, "active", "suspended")}})
			gone := l.do(call{what: "session.revoke", by: c.operator, moves: []writ.Change{move("session", session, "suspended", "revoked")}})
			l.do(call{what: "task.expire", by: system, run: c.run, parents: []writ.ReceiptID{l.last["task/"+c.task], gone}, moves: []writ.Change{move("task", c.task, "running", "queued")}})
			other := l.open(c.operator, ses(5), "worker", writ.KindAgent, writ.RoleExecutor, "worker", "")
			claims(l, c, other)
			completes(l, c, other)
			l.accept(c, c.judge)
		}, ""},
		"by an agent of somebody else": {plain, by("judge", "judge", "vera", operator), ""},
		"by the same session": {plain, func(l *lab, c cast) {
			l.accept(c, writ.Actor{Agent: "worker", Kind: writ.KindAgent, Role: writ.RoleVerifier, Session: c.worker.Session})
		}, "lineage_agent lineage_controller lineage_session"},
		"by the same agent":                   {plain, by("worker", "twin", "vera", operator), "lineage_agent"},
		"by another agent with its key":       {func(l *lab, c cast) { keyed(l, c, "worker", "judge") }, by("judge", "judge", "vera", operator), "lineage_key verdict_unsigned"},
		"by the planner":                      {nothing, by("", "planner", "", operator), "lineage_controller"},
		"by an agent of the same person":      {plain, by("judge", "judge", "", operator), "lineage_controller"},
		"in a session that the worker opened": {plain, by("judge", "judge", "vera", func(c cast) writ.Actor { return c.worker }), "lineage_opener"},
		"by who asked for an approval": {nothing, func(l *lab, c cast) {
			l.do(call{what: "task.enqueue", by: c.judge, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", ulid("apr", 1), "", "pending")}})
			l.accept(c, c.judge)
		}, "lineage_controller lineage_session"},
		"by who said how it was done": {nothing, func(l *lab, c cast) {
			asked, instead := ulid("apr", 1), ulid("apr", 2)
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", asked, "", "pending")}})
			l.do(call{what: "approval.decide", by: c.judge, args: map[string]any{"decision": "modify"}, moves: []writ.Change{
				move("approval", asked, "pending", "superseded"), move("approval", instead, "", "pending"), move("approval", instead, "pending", "approved"),
			}})
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "", "queued"), move("approval", instead, "approved", "consumed")}})
			l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
			l.accept(c, c.judge)
		}, "lineage_controller lineage_session"},
		"by who said how it was done, before somebody else agreed": {nothing, func(l *lab, c cast) {
			asked, instead := ulid("apr", 1), ulid("apr", 2)
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", asked, "", "pending")}})
			l.do(call{what: "approval.decide", by: c.judge, args: map[string]any{"decision": "modify"}, moves: []writ.Change{
				move("approval", asked, "pending", "superseded"), move("approval", instead, "", "pending"),
			}})
			l.do(call{what: "approval.decide", by: c.operator, args: map[string]any{"decision": "approve"}, moves: []writ.Change{move("approval", instead, "pending", "approved")}})
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "", "queued"), move("approval", instead, "approved", "consumed")}})
			l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
			l.accept(c, c.judge)
		}, "lineage_controller lineage_session"},
		"by who said how it was done, before somebody else said so": {nothing, func(l *lab, c cast) {
			asked, instead, at := ulid("apr", 1), ulid("apr", 2), ulid("apr", 3)
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", asked, "", "pending")}})
			l.do(call{what: "approval.decide", by: c.judge, args: map[string]any{"decision": "modify"}, moves: []writ.Change{
				move("approval", asked, "pending", "superseded"), move("approval", instead, "", "pending"),
			}})
			l.do(call{what: "approval.decide", by: c.operator, args: map[string]any{"decision": "modify"}, moves: []writ.Change{
				move("approval", instead, "pending", "superseded"), move("approval", at, "", "pending"), move("approval", at, "pending", "approved"),
			}})
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "", "queued"), move("approval", at, "approved", "consumed")}})
			l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
			l.accept(c, c.judge)
		}, "lineage_controller lineage_session"},
		"by who agreed to it": {nothing, func(l *lab, c cast) {
			asked := ulid("apr", 1)
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", asked, "", "pending")}})
			l.do(call{what: "approval.decide", by: c.judge, args: map[string]any{"decision": "approve"}, moves: []writ.Change{move("approval", asked, "pending", "approved")}})
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "", "queued"), move("approval", asked, "approved", "consumed")}})
			l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
			l.accept(c, c.judge)
		}, ""},
		"by an executor": {nothing, func(l *lab, c cast) {
			who := c.judge
			who.Role = writ.RoleExecutor
			l.accept(c, who)
		}, "close_role"},
		"with a verdict on what was before": {nothing, func(l *lab, c cast) {
			first := again(l, c)
			accepts(l, c, first, pass, first, l.last["run/"+string(c.run)])
		}, "run_open verdict_other verdict_stale"},
		"with a verdict that names another": {nothing, func(l *lab, c cast) { accepts(l, c, again(l, c), pass) }, "run_open verdict_other"},
		"though a check failed": {nothing, func(l *lab, c cast) {
			accepts(l, c, l.last["task/"+c.task], append(slices.Clone(pass), map[string]any{"gate": "lint", "status": "fail"}))
		}, "run_open verdict_gate"},
		"though a check was left out": {nothing, func(l *lab, c cast) { accepts(l, c, l.last["task/"+c.task], nil) }, "run_open verdict_gate"},
		"with a task nobody judged": {nothing, func(l *lab, c cast) {
			l.do(call{what: "task.complete", by: c.worker, run: c.run, args: map[string]any{}, moves: accepted(c)})
		}, "run_open verdict_missing"},
		"by nobody": {nothing, func(l *lab, c cast) {
			l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "verifying", "cancelled"), move("run", string(c.run), "active", "done")}})
		}, "close_bypassed"},
		"by the gateway": {nothing, func(l *lab, c cast) {
			accepts(l, c, l.last["task/"+c.task], pass)
			l.do(call{what: "run.exhaust", by: system, run: c.run, args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}, moves: []writ.Change{move("run", string(c.run), "verifying", "done")}})
		}, "close_role lineage_unknown"},
		"and went on": {nothing, func(l *lab, c cast) {
			l.accept(c, c.judge)
			enqueues(l, c)
		}, "run_after_end"},
		"with a task left": {nothing, func(l *lab, c cast) {
			enqueues(l, c)
			l.accept(c, c.judge)
		}, "run_tasks_open"},
		"and had begun before": {func(l *lab, c cast) {
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, code: writ.CodeNotFound})
		}, func(l *lab, c cast) { l.accept(c, c.judge) }, "run_begin"},
		"and nobody may read why": {func(l *lab, _ cast) { l.denied = true }, func(l *lab, c cast) { l.accept(c, c.judge) }, "evidence_missing lineage_unknown"},
		"by somebody who worked in a child of it": {nothing, func(l *lab, c cast) {
			child := ulid("run", 2)
			l.do(call{what: "run.create", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", child, "", "active")}})
			l.do(call{what: "task.claim", by: c.judge, run: writ.RunID(child), args: map[string]any{}, moves: []writ.Change{move("session", ulid("ses", 77), "", "opened")}})
			l.accept(c, c.judge)
		}, "lineage_controller lineage_session"},
		"though what was delegated nobody judged": {nothing, func(l *lab, c cast) {
			made(l, c, "agent.delegate", c.planner, map[string]any{"task": map[string]any{"verify": asks}})
			finish(l, c)
			l.accept(c, c.judge)
		}, "verdict_missing"},
		"with what was delegated, and asks for nothing": {nothing, func(l *lab, c cast) {
			made(l, c, "agent.delegate", c.planner, map[string]any{"task": map[string]any{}})
			finish(l, c)
			l.accept(c, c.judge)
		}, ""},
		"though what its holder delegated nobody judged": {nothing, func(l *lab, c cast) {
			made(l, c, "agent.delegate", c.worker, map[string]any{"task_id": c.task, "task": map[string]any{}})
			finish(l, c)
			l.accept(c, c.judge)
		}, "verdict_missing"},
		"though what was handed on nobody judged": {nothing, func(l *lab, c cast) {
			made(l, c, "task.handoff", c.worker, map[string]any{"task_id": c.task, "to": map[string]any{"task": map[string]any{}}})
			finish(l, c)
			l.accept(c, c.judge)
		}, "verdict_missing"},
		"though a check of what was handed on was left out": {nothing, func(l *lab, c cast) {
			made(l, c, "task.handoff", c.worker, map[string]any{"task_id": c.task})
			judged(l, c)
			l.accept(c, c.judge)
		}, "verdict_gate"},
		"though a check of what was delegated was left out": {nothing, func(l *lab, c cast) {
			made(l, c, "agent.delegate", c.planner, map[string]any{"task": map[string]any{"verify": asks}})
			judged(l, c)
			l.accept(c, c.judge)
		}, "verdict_gate"},
		"with what was handed on from nowhere": {nothing, func(l *lab, c cast) {
			made(l, c, "task.handoff", c.worker, map[string]any{"task_id": ulid("tsk", 9)})
			finish(l, c)
			l.accept(c, c.judge)
		}, "evidence_missing"},
		"with what came in a way nobody knows": {nothing, func(l *lab, c cast) {
			made(l, c, "task.split", c.worker, map[string]any{"task_id": c.task})
			finish(l, c)
			l.accept(c, c.judge)
		}, "evidence_missing"},
		"with a task that asks in another form": {nothing, func(l *lab, c cast) {
			made(l, c, "task.enqueue", c.planner, map[string]any{"verify": map[string]any{"required": "yes"}})
			finish(l, c)
			l.accept(c, c.judge)
		}, "evidence_missing"},
		"with a verdict in another form": {nothing, func(l *lab, c cast) {
			l.do(call{what: "task.verify", by: c.judge, run: c.run, moves: accepted(c), args: map[string]any{"receipt_id": l.last["task/"+c.task], "gates": map[string]any{"lint": "pass"}}})
		}, "evidence_missing run_open"},
		"not at all": {nothing, nothing, "run_open"},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			c := l.cast()
			x.before(l, c)
			l.begin(c)
			x.play(l, c)
			for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
				if scope.Kind == ScopeRun && strings.Contains(name, "child") {
					continue // who worked elsewhere is not in the pack of a run, and the report says so
				}
				f := l.export(Options{Scope: scope})
				a := both(t, o, name+scope.Kind, f, f, l.trust(), Ask{Run: c.run, Close: true})
				want := x.want
				if scope.Kind == ScopeRun { // there a sweep that ended it may be missing
					want = strings.Replace(want, "run_tasks_open", "run_tasks_gap", 1)
				}
				if got := a.each(); got != want {
					t.Errorf("%s: got %q, want %q", scope.Kind, got, want)
				}
			}
		})
	}
}

// A pack of a run from which something was taken is incomplete, and says of what.
func TestAPackOfARunIsWhole(t *testing.T) {
	l, c := story(t)
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	o := node(t)
	for seq, want := range map[int64]string{
		8:                      "run_gap",         // the creation
		10:                     "run_gap",         // in the middle
		int64(len(l.list) - 1): "run_open",        // the end
		6:                      "lineage_unknown", // how the judge's session was opened
	} {
		a := both(t, o, "whole", f, f.with(l.without(int(seq))), l.trust(), Ask{Run: c.run, Close: true})
		if a.Exit != 3 && seq != 8 || !slices.ContainsFunc(a.Codes, func(s string) bool { return strings.HasPrefix(s, want+"@") }) {
			t.Errorf("without %d: got %v, want %s", seq, a.Codes, want)
		}
	}
}

// The end of a run is the last of it that its own numbers hold fast: what was refused after it can be
// cut off the pack of the run from behind, and nothing in that shows it. The whole log does.
func TestWhatCameAfterTheEnd(t *testing.T) {
	l, c := story(t)
	end := len(l.list) - 1
	for range 2 {
		l.do(call{what: "task.claim", by: c.worker, run: c.run, code: writ.CodeIllegal})
	}
	o := node(t)
	run, log := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}}), l.export(Options{})
	for _, x := range []struct {
		name string
		of   files
		gone []int
		want string
		exit int
	}{
		{"run", run, nil, "", 0},
		{"run", run, []int{end}, "run_gap", 3},
		{"run", run, []int{end + 1}, "run_gap", 3},
		{"run", run, []int{end, end + 1, end + 2}, "run_open", 3},
		{"run", run, []int{end + 2}, "", 0},
		{"log", log, nil, "", 0},
		{"log", log, []int{end}, "receipt_missing", 3},
		{"log", log, []int{end + 1}, "receipt_missing", 3},
		{"log", log, []int{end + 2}, "receipt_missing", 3},
	} {
		changed := x.of
		if x.gone != nil {
			changed = x.of.with(l.without(x.gone...))
		}
		a := both(t, o, x.name, x.of, changed, l.trust(), Ask{Run: c.run, Close: true})
		if a.Exit != x.exit || !strings.Contains(a.each(), x.want) || (x.exit == 0) != (a.each() == "") {
			t.Errorf("%s without %v: got %d %v, want %d %s", x.name, x.gone, a.Exit, a.Codes, x.exit, x.want)
		}
	}
}

// Whoever said how a call was to be made, which another then changed once more, had a part in it, too.
func TestWhoSaidFirst(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	l.begin(c)
	second := ulid("tsk", 2)
	apr := func(n int) string { return ulid("apr", n) }
	modifies := func(by writ.Actor, n int) {
		l.do(call{
			what: "approval.decide", by: by, args: map[string]any{"decision": "modify"},
			moves: []writ.Change{move("approval", apr(n), "pending", "superseded"), move("approval", apr(n+1), "", "pending")},
		})
	}
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", apr(1), "", "pending")}})
	first := len(l.list)
	modifies(c.judge, 1)
	modifies(c.operator, 2)
	l.do(call{what: "approval.decide", by: c.operator, args: map[string]any{"decision": "approve"}, moves: []writ.Change{move("approval", apr(3), "pending", "approved")}})
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "", "queued"), move("approval", apr(3), "approved", "consumed")}})
	l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
	l.accept(c, c.judge)
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	for name, x := range map[string]struct {
		gone []int
		want string
	}{
		"all":                   {nil, "lineage_controller lineage_session"},
		"without who was first": {[]int{first}, "lineage_unknown"},
	} {
		if got := both(t, o, name, f, f.with(l.without(x.gone...)), l.trust(), Ask{Run: c.run, Close: true}).each(); got != x.want {
			t.Errorf("%s: got %q, want %q", name, got, x.want)
		}
	}
}

// Who said how a call was made is known from how its approval came to be: where that is taken
// from the pack of a run nobody can say that it was not who judges.
func TestHowAnApprovalCameToBe(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.begin(c)
	asked, second := ulid("apr", 1), ulid("tsk", 2)
	at := len(l.list)
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{{Kind: "approval", ID: asked, To: "pending"}}})
	l.do(call{what: "approval.decide", by: c.operator, args: map[string]any{"decision": "approve"}, moves: []writ.Change{{Kind: "approval", ID: asked, From: "pending", To: "approved"}}})
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{{Kind: "task", ID: second, To: "queued"}, {Kind: "approval", ID: asked, From: "approved", To: "consumed"}}})
	l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{{Kind: "task", ID: second, From: "queued", To: "cancelled"}}})
	l.accept(c, c.judge)
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	for seq, want := range map[int]string{at: "lineage_unknown", -1: ""} {
		changed := f
		if seq >= 0 {
			changed = f.with(l.without(seq))
		}
		a := both(t, o, "asked", f, changed, l.trust(), Ask{Run: c.run, Close: true})
		found := slices.ContainsFunc(a.Codes, func(s string) bool { return strings.HasPrefix(s, "lineage_unknown@") })
		if found != (want != "") || (want == "") != (a.Exit == 0) {
			t.Errorf("without %d: got %v", seq, a.Codes)
		}
	}
}

// With which keys somebody judges is told by evidence, and where that is not there nobody
// says that they are others than those of who worked.
func TestKeysThatNobodyTells(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	first := len(l.list)
	l.register(c.operator, string(l.pub()), "worker", "judge")
	l.do(call{what: "agent.register", by: c.operator, args: map[string]any{"agent_id": "planner"}, moves: []writ.Change{move("agent", "planner", "planned", "planned")}})
	begun := int64(len(l.list))
	l.begin(c)
	l.accept(c, l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera"))
	mute := func(seqs ...int) func(files) {
		return func(p files) {
			p[FileManifest] = bytes.Replace(p[FileManifest], []byte(`"evidence":true`), []byte(`"evidence":false`), 1)
			for _, n := range seqs {
				delete(p, evidenceName(int64(n)))
			}
		}
	}
	for name, x := range map[string]struct {
		scope  Scope
		change func(files)
		want   string
	}{
		"all is there":                      {Scope{Kind: ScopeLog}, func(files) {}, "lineage_key verdict_unsigned"},
		"not what the worker has":           {Scope{Kind: ScopeLog}, mute(first), "lineage_unknown verdict_unsigned"},
		"not what the judge has":            {Scope{Kind: ScopeLog}, mute(first + 1), "lineage_unknown"},
		"not what the planner had first":    {Scope{Kind: ScopeLog}, mute(first - 1), "lineage_key lineage_unknown verdict_unsigned"},
		"not what the planner has now":      {Scope{Kind: ScopeLog}, mute(first + 2), "lineage_key lineage_unknown verdict_unsigned"},
		"in the pack of a run":              {Scope{Kind: ScopeRun, Run: c.run}, mute(first, first+1), "lineage_unknown"},
		"in the pack of a run, cut out":     {Scope{Kind: ScopeRun, Run: c.run}, l.without(first, first+1), "lineage_unknown parent_missing"},
		"the first of the planner, cut out": {Scope{Kind: ScopeRun, Run: c.run}, l.without(first - 1), "lineage_key lineage_unknown verdict_unsigned"},
		"in a range that begins behind":     {Scope{Kind: ScopeRange, First: begun, Last: int64(len(l.list)) - 1}, func(files) {}, "lineage_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			f := l.export(Options{Scope: x.scope})
			a := both(t, o, name, f, f.with(x.change), l.trust(), Ask{Run: c.run, Close: true})
			if got := a.each(); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
	// A key that cannot be read is one that nobody knows.
	l = world(t)
	c = l.cast()
	l.register(c.operator, "", "planner", "worker")
	l.register(c.operator, "no key", "judge")
	l.begin(c)
	l.accept(c, l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera"))
	f := l.export(Options{})
	if a := both(t, o, "unread", f, f, l.trust(), Ask{Run: c.run, Close: true}); a.Exit != 3 || !strings.HasPrefix(strings.Join(a.Codes, " "), "lineage_unknown@") {
		t.Errorf("a key nobody reads: got %v", a.Codes)
	}
}

// What a pack says it is of nobody signed. In one that says it is of another run than is asked for, what
// was taken of that one is found all the same, and so is what the pack says.
func TestAPackOfAnotherRun(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	moves := func(what string, by writ.Actor, moves ...writ.Change) {
		l.do(call{what: what, by: by, run: c.run, args: map[string]any{}, moves: moves})
	}
	l.do(call{what: "run.create", by: c.planner, run: c.run, args: map[string]any{"close_policy": "verifier"}, moves: []writ.Change{move("run", string(c.run), "", "active")}})
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "one", "capability": "site.build", "verify": map[string]any{"required": true, "gates": []string{"lint"}}}, moves: []writ.Change{move("task", c.task, "", "queued")}})
	at := len(l.list) // who judges has a part in it
	moves("task.claim", c.judge, move("task", c.task, "queued", "running"))
	moves("task.release", c.judge, move("task", c.task, "running", "queued"))
	moves("run.seal", c.planner, move("run", string(c.run), "active", "active"))
	moves("task.claim", c.worker, move("task", c.task, "queued", "running"))
	moves("task.complete", c.worker, move("task", c.task, "running", "verifying"))
	l.accept(c, c.judge)
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	other := put(FileManifest, replace(string(c.run), ulid("run", 77)))
	for _, x := range []struct {
		name   string
		change func(files)
		want   string
		exit   int
		whole  string // where no run is asked for
		ends   int
	}{
		{"as it was", func(files) {}, "lineage_controller lineage_session", 1, "", 0},
		{"without what the judge did", l.without(at, at+1), "parent_missing run_gap", 3, "parent_missing run_gap", 3},
		{"of another", twoOf(other, l.retell), "lineage_controller lineage_session run_scope", 1, "run_unknown", 3},
		{"of another, without what the judge did", twoOf(other, l.without(at, at+1)), "parent_missing run_gap run_scope", 3, "run_unknown", 3},
		{"of another, without a state between", twoOf(other, l.without(at)), "lineage_controller lineage_session move_gap run_scope", 1, "run_unknown", 3},
		{"of another, and a receipt is bad", twoOf(other, l.retell, put(receiptName(int64(at)), replace("hint", "hunt"))), "bundle_malformed run_scope", 2, "bundle_malformed", 2},
	} {
		t.Run(x.name, func(t *testing.T) {
			changed := f.with(x.change)
			a := both(t, o, "scope", f, changed, l.trust(), Ask{Run: c.run, Close: true})
			if a.each() != x.want || a.Exit != x.exit {
				t.Errorf("got %d %q, want %d %q", a.Exit, a.each(), x.exit, x.want)
			}
			if a := both(t, o, "scope", f, changed, l.trust(), Ask{}); a.each() != x.whole || a.Exit != x.ends {
				t.Errorf("no run is asked for: got %d %q, want %d %q", a.Exit, a.each(), x.ends, x.whole)
			}
		})
	}
	// A run that is not created has none of its receipts, whatever their numbers.
	l = world(t)
	c = l.cast()
	l.do(call{what: "run.seal", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "active")}})
	f = l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	if a := both(t, o, "not created", f, f, l.trust(), Ask{}); a.each() != "run_begin" || a.Exit != 1 {
		t.Errorf("not created: got %d %v", a.Exit, a.Codes)
	}
}

// A verdict may name a task of which it is itself the first that the pack of a run has.
func TestAVerdictThatNamesItsOwnTask(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.do(call{what: "run.create", by: c.planner, run: c.run, args: map[string]any{"close_policy": "verifier"}, moves: []writ.Change{move("run", string(c.run), "", "active")}})
	l.do(call{what: "task.enqueue", by: c.planner, run: writ.RunID(ulid("run", 5)), args: map[string]any{}, moves: []writ.Change{move("task", c.task, "", "queued")}})
	l.do(call{
		what: "task.verify", by: c.judge, run: c.run, moves: []writ.Change{move("task", c.task, "verifying", "done")},
		args: map[string]any{"receipt_id": "rcp_x", "tasks": []any{map[string]any{"task_id": c.task, "receipt_id": "rcp_x"}}},
	})
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	if a := both(t, o, "own", f, f, l.trust(), Ask{Run: c.run, Close: true}); a.each() != "run_open" { // it is no task of this run
		t.Errorf("got %v", a.Codes)
	}
}

// A registration that is left out of the pack of a run is missed: each change of an agent's entry
// names the one before, and the last one what the agent did.
func TestRegistrationsLeftOut(t *testing.T) {
	o := node(t)
	at := map[string]int{}
	play := func(silent string) (*lab, cast) {
		l := world(t)
		l.silent = silent
		c := l.cast()
		declares := func(name, agent string, more map[string]any) {
			at[name] = len(l.list)
			l.declares(c.operator, agent, more)
		}
		declares("planner's only", "planner", map[string]any{})
		declares("worker's before the last", "worker", map[string]any{"keys": []string{string(l.pub())}})
		declares("worker's last", "worker", map[string]any{})
		declares("judge's first", "judge", map[string]any{})
		declares("judge's last", "judge", map[string]any{})
		at["judge's activation"] = len(l.list)
		l.do(call{what: "agent.activate", by: c.operator, args: map[string]any{"agent_id": "judge"}, moves: []writ.Change{move("agent", "judge", "planned", "active")}})
		judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
		l.begin(c)
		for what, by := range map[string]writ.Actor{"task.complete": c.worker, "task.verify": judge} { // refused before anybody looked who calls
			l.silent = what
			l.do(call{what: what, by: by, run: c.run, code: writ.CodePolicy})
		}
		l.silent = silent
		l.accept(c, judge)
		return l, c
	}
	l, c := play("")
	at["nothing"] = -1
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	for name, want := range map[string]string{
		"nothing":                  "",
		"planner's only":           "lineage_unknown parent_missing",
		"worker's before the last": "lineage_unknown",
		"worker's last":            "lineage_unknown parent_missing",
		"judge's first":            "lineage_unknown",
		"judge's last":             "lineage_unknown",
		"judge's activation":       "lineage_unknown parent_missing",
	} {
		if got := both(t, o, name, f, f.with(l.without(at[name])), l.trust(), Ask{Run: c.run, Close: true}).each(); got != want {
			t.Errorf("without %s: got %q, want %q", name, got, want)
		}
	}
	// Where receipts name none, only the whole log tells.
	for silent, want := range map[string]string{
		"run.create": "lineage_unknown", "task.enqueue": "", "task.claim": "lineage_unknown", "task.complete": "lineage_unknown", "task.verify": "lineage_unknown", "run.close": "lineage_unknown",
	} {
		l, c := play(silent)
		for kind, want := range map[string]string{ScopeRun: want, ScopeLog: ""} {
			f := l.export(Options{Scope: Scope{Kind: kind, Run: map[string]writ.RunID{ScopeRun: c.run}[kind]}})
			if got := both(t, o, silent+kind, f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != want {
				t.Errorf("%s that names none, in the pack of a %s: got %q, want %q", silent, kind, got, want)
			}
		}
	}
}

// Whatever else is said to have acted in a session, who acted in it first had a part.
func TestPartsAreNotTakenBack(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner", "nobody")
	judge := l.open(c.operator, ses(9), "jane", writ.KindAgent, writ.RoleVerifier, "worker", "joe")
	l.begin(c)
	as := c.worker
	as.Agent = "nobody"
	l.do(call{what: "task.heartbeat", by: as, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "active")}})
	l.accept(c, judge)
	for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
		f := l.export(Options{Scope: scope})
		if got := both(t, o, scope.Kind, f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != "lineage_agent" {
			t.Errorf("%s: got %q", scope.Kind, got)
		}
	}
}

// Who had a part is known by the keys its agent was registered with by then, as the gateway has it: what
// is registered later says nothing of that, so a log and the pack of a run say the same.
func TestKeysOfLater(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	key := string(l.pub())
	l.register(c.operator, "", "planner")
	l.register(c.operator, key, "judge")
	judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
	l.begin(c)
	l.register(c.operator, key, "worker")
	l.do(call{what: "task.heartbeat", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "active")}})
	l.accept(c, judge)
	for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
		f := l.export(Options{Scope: scope})
		if got := both(t, o, scope.Kind, f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != "verdict_unsigned" {
			t.Errorf("%s: got %q", scope.Kind, got)
		}
	}
}

// Whoever does the work of a run has a part in it, whatever the receipt that says so is named, and
// wherever it is filed.
func TestWhoeverWorks(t *testing.T) {
	o := node(t)
	for name, x := range map[string]struct {
		run  writ.RunID
		what string
	}{
		"by another name":     {writ.RunID(ulid("run", 1)), "task.admit"},
		"filed nowhere":       {"", "task.claim"},
		"filed under another": {writ.RunID(ulid("run", 2)), "task.claim"},
	} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner")
		l.do(call{what: "run.create", by: c.planner, run: writ.RunID(ulid("run", 2)), args: map[string]any{}, moves: []writ.Change{move("run", ulid("run", 2), "", "active")}})
		l.do(call{what: "run.create", by: c.planner, run: c.run, args: map[string]any{"close_policy": "verifier"}, moves: []writ.Change{move("run", string(c.run), "", "active")}})
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "one", "capability": "site.build", "verify": map[string]any{"required": true}}, moves: []writ.Change{move("task", c.task, "", "queued")}})
		end := x.what
		if end == "task.claim" {
			end = "task.complete"
		}
		l.do(call{what: x.what, by: c.judge, run: x.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "queued", "running")}})
		l.do(call{what: end, by: c.judge, run: x.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "running", "verifying")}})
		l.accept(c, c.judge)
		for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
			f := l.export(Options{Scope: scope})
			if got := both(t, o, name+scope.Kind, f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != "lineage_controller lineage_session" {
				t.Errorf("%s, %s: got %q", name, scope.Kind, got)
			}
		}
	}
}

// A sweep through several runs is filed under none of them. What it did to the tasks of one is in its pack,
// and where that was left out nobody can say that the task is open.
func TestSweepsAreInThePackOfARun(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	l.begin(c)
	second := ulid("tsk", 2)
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "two", "capability": "site.build"}, moves: []writ.Change{move("task", second, "", "queued")}})
	swept := len(l.list)
	l.do(call{what: "task.recall", by: system, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
	l.accept(c, c.judge)
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	for name, x := range map[string]struct {
		gone []int
		want string
	}{"whole": {nil, ""}, "without it": {[]int{swept}, "run_tasks_gap"}} {
		if got := both(t, o, name, f, f.with(l.without(x.gone...)), l.trust(), Ask{Run: c.run, Close: true}).each(); got != x.want {
			t.Errorf("%s: got %q, want %q", name, got, x.want)
		}
	}
}

// A sweep through several runs can be filed under one of them: the tasks of others that it moves are not that one's.
func TestASweepFiledUnderARun(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	other, theirs, left := writ.RunID(ulid("run", 2)), ulid("tsk", 7), ulid("tsk", 8)
	l.do(call{what: "run.create", by: c.planner, run: other, args: map[string]any{}, moves: []writ.Change{move("run", string(other), "", "active")}})
	l.do(call{what: "task.enqueue", by: c.planner, run: other, args: map[string]any{"key": "theirs", "capability": "site.build"}, moves: []writ.Change{move("task", theirs, "", "queued")}})
	l.do(call{what: "task.claim", by: c.worker, run: other, args: map[string]any{}, moves: []writ.Change{move("task", theirs, "queued", "running")}})
	l.begin(c)
	l.do(call{what: "task.verify", by: c.judge, run: c.run, moves: []writ.Change{move("task", c.task, "verifying", "done")}, args: map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}}})
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "left", "capability": "site.build"}, moves: []writ.Change{move("task", left, "", "queued")}})
	l.do(call{what: "session.cleanup", by: system, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", left, "queued", "cancelled"), move("task", theirs, "running", "queued"), move("run", string(c.run), "active", "verifying")}})
	l.do(call{what: "task.claim", by: c.worker, run: other, args: map[string]any{}, moves: []writ.Change{move("task", theirs, "queued", "running")}})
	l.do(call{what: "run.close", by: c.judge, run: c.run, moves: []writ.Change{move("run", string(c.run), "verifying", "done")}, args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}})
	l.do(call{what: "task.complete", by: c.worker, run: other, args: map[string]any{}, moves: []writ.Change{move("task", theirs, "running", "done")}})
	for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
		f := l.export(Options{Scope: scope})
		if got := both(t, o, scope.Kind, f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != "" {
			t.Errorf("%s: got %q", scope.Kind, got)
		}
	}
}

// What is done in the receipt that ends a run, or behind it, the verdict did not see.
func TestWhatIsDoneAtTheEnd(t *testing.T) {
	o := node(t)
	for name, x := range map[string]struct {
		with bool
		log  string
	}{"with it": {true, "verdict_stale"}, "behind it": {false, "run_tasks_open"}} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner")
		left := ulid("tsk", 8)
		l.begin(c)
		l.do(call{what: "task.verify", by: c.judge, run: c.run, moves: []writ.Change{move("task", c.task, "verifying", "done")}, args: map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}}})
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "left", "capability": "site.build"}, moves: []writ.Change{move("task", left, "", "queued")}})
		l.do(call{what: "task.claim", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", left, "queued", "running")}})
		l.do(call{what: "run.seal", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "verifying")}})
		end := call{what: "run.close", by: c.judge, run: c.run, moves: []writ.Change{move("run", string(c.run), "verifying", "done")}, args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}}
		done := move("task", left, "running", "cancelled")
		if x.with {
			end.moves = append(end.moves, done)
		}
		l.do(end)
		if !x.with {
			l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{done}})
		}
		for kind, want := range map[string]string{ScopeLog: x.log, ScopeRun: strings.Replace(x.log, "open", "gap", 1)} {
			f := l.export(Options{Scope: Scope{Kind: kind, Run: map[string]writ.RunID{ScopeRun: c.run}[kind]}})
			if got := both(t, o, name+kind, f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != want {
				t.Errorf("%s, %s: got %q, want %q", name, kind, got, want)
			}
		}
	}
}

// What comes out of itself comes out of nothing.
func TestATaskRevivedFromItself(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	l.begin(c)
	self := ulid("tsk", 2)
	l.do(call{what: "task.revive", by: c.planner, run: c.run, args: map[string]any{"task_id": self, "key": "two"}, moves: []writ.Change{move("task", self, "", "queued")}})
	l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", self, "queued", "cancelled")}})
	l.accept(c, c.judge)
	f := l.export(Options{})
	if got := both(t, o, "itself", f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != "evidence_missing" {
		t.Errorf("got %q", got)
	}
}
