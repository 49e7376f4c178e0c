package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/writ-gateway/writ"
)

// schemaAt compiles the schema that a gateway serves at a path, or the part of it that
// a pointer names.
func (w *world) schemaAt(path, pointer string) *jsonschema.Schema {
	w.t.Helper()
	r := caller{t: w.t, gw: w.last()}.ok(200, "GET", path, nil)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.body))
	if err != nil {
		w.t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("served.json", doc); err != nil {
		w.t.Fatal(err)
	}
	s, err := c.Compile("served.json#" + pointer)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func meets(t testing.TB, s *jsonschema.Schema, what string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%s: %v\n%s", what, err, text)
	}
}

// Whatever was asked about tasks, as the evidence of the receipts has it, meets the
// published schema of requests; every task there is meets that of tasks.
func TestM1T1WhatIsStoredMeetsTheSchema(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "")
		c.builder.complete(c.builder.claim(c.enqueue("plain", obj{"summary": "a page", "labels": []string{"pii.redacted"}, "priority": 9, "lease_ttl_s": 30, "deadline_s": 600})))
		judged := c.enqueue("judged", obj{"verify": obj{"required": true, "gates": []string{"tests"}}, "write_scopes": []string{"fs:repo/x/"}, "required_agents": []string{"builder"}})
		l := c.builder.claim(judged)
		c.builder.ok(200, "POST", "/v1/tasks/"+judged+"/complete", l.hold(obj{"result": obj{"pages": 3}}))
		path, accept := judge.verdict("/v1/tasks/"+judged, "accept", obj{"gates": []obj{{"gate": "tests", "status": "pass"}}})
		judge.ok(200, "POST", path, accept)
		died := c.enqueue("died", obj{"max_attempts": 1})
		l = c.builder.claim(died)
		c.builder.ok(200, "POST", "/v1/tasks/"+died+"/fail", l.hold(obj{"failure": obj{"class": "external", "code": "broken", "retryable": true}}))
		c.orc.ok(201, "POST", "/v1/tasks/"+died+"/revive", obj{"key": "again"})
		handed := c.enqueue("handed", obj{"handoff": obj{"refs": []obj{{"name": "plan_ref", "kind": "task"}}}})
		l = c.builder.claim(handed)
		c.builder.ok(200, "POST", "/v1/tasks/"+handed+"/heartbeat", l.hold(obj{"progress": obj{"pct": 10, "seq": 1}, "awaits": []string{judged}}))
		c.builder.handoff(l, obj{"task": obj{"key": "next", "capability": tool}}, obj{"refs": []obj{{"name": "plan_ref", "kind": "task", "ref": "plain"}}, "note": "over to you"})
		manual := c.enqueue("manual", join("manual", "again:skip"))
		c.orc.ok(200, "POST", "/v1/tasks/"+manual+"/admit", nil)
		c.orc.ok(201, "POST", "/v1/agents/delegate", obj{"run_id": c.run, "to": "builder", "task": obj{"key": "given", "capability": tool}})
		l = c.builder.at(w.last()).claimNext()
		c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/release", l.hold(nil))
		c.orc.ok(200, "POST", "/v1/tasks/"+l.task+"/cancel", nil)
		c.builder.refused(409, writ.CodeLeaseLost, "POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil)) // denials too

		envelope := w.schemaAt("/schemas/task-envelope.json", "")
		seen := map[writ.CapabilityID]int{}
		_, all := w.export()
		for _, s := range all {
			p := s.Predicate
			if p.Run != c.run || !strings.HasPrefix(string(p.Transition), "task.") && p.Transition != "agent.delegate" || p.Actor.Session == "" {
				continue
			}
			seen[p.Transition]++
			asked := w.op.ok(200, "GET", "/v1/receipts/"+string(p.ReceiptID)+"/evidence", nil)
			meets(t, envelope, string(p.Transition)+" "+p.Outcome, obj{"capability": p.Transition, "args": asked.at("evidence", "object", "args")})
		}
		for _, verb := range []writ.CapabilityID{"agent.delegate", "task.admit", "task.cancel", "task.claim", "task.complete", "task.enqueue", "task.fail", "task.handoff", "task.heartbeat", "task.release", "task.revive", "task.verify"} {
			if seen[verb] == 0 {
				t.Errorf("no request of %s was looked at: %v", verb, seen)
			}
		}

		shown := w.schemaAt("/openapi.json", "/components/schemas/TaskView")
		tasks, _ := w.op.ok(200, "GET", "/v1/tasks?run_id="+c.run+"&limit=100", nil).at("tasks").([]any)
		if len(tasks) < 8 {
			t.Fatalf("%d tasks", len(tasks))
		}
		for _, one := range tasks {
			id := one.(map[string]any)["task_id"].(string)
			meets(t, shown, "listed", one)
			meets(t, shown, "shown", w.op.ok(200, "GET", "/v1/tasks/"+id, nil).at())
		}
		w.audited()
	})
}

// Who acts is not asked: no request about a task takes an actor, the schema neither.
func TestM1T2AClientNamesNoActor(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		actor := obj{"session": c.orc.id, "agent": "planner"}
		r := caller{t: t, gw: w.gw[0]}.ok(200, "GET", "/schemas/task-envelope.json", nil)
		var doc struct{ OneOf []struct{ Title string } }
		if err := json.Unmarshal(r.body, &doc); err != nil || len(doc.OneOf) < 12 {
			t.Fatalf("%v: %s", err, r)
		}
		schema := w.schemaAt("/schemas/task-envelope.json", "")
		for _, verb := range doc.OneOf {
			by := c.builder
			if p := verb.Title; p == "task.enqueue" || p == "task.cancel" || p == "task.admit" || p == "task.revive" {
				by = c.orc
			} else if p == "task.verify" {
				by = w.verifier("judge", "vera", "")
			}
			args := l.hold(obj{"task_id": l.task})
			for where, body := range map[string]obj{
				"inside": {"capability": verb.Title, "args": with(args, "actor", actor)},
				"beside": {"capability": verb.Title, "args": args, "actor": actor},
			} {
				by.at(w.last()).refused(400, writ.CodeMalformed, "POST", "/v1/invoke", body)
				v, err := jsonschema.UnmarshalJSON(strings.NewReader(mustJSON(t, body)))
				if err != nil || schema.Validate(v) == nil {
					t.Errorf("%s: the schema takes an actor %s the arguments: %v", verb.Title, where, err)
				}
			}
		}
		c.orc.refused(400, writ.CodeMalformed, "POST", "/v1/tasks", c.task("two", obj{"actor": actor}))
		c.builder.refused(400, writ.CodeMalformed, "POST", "/v1/tasks/"+l.task+"/complete", l.hold(obj{"actor": actor}))
		done := c.builder.complete(l)
		s := w.op.ok(200, "GET", "/v1/receipts/"+string(done.receipt()), nil)
		if s.str("statement", "predicate", "actor", "session") != string(c.builder.id) || s.str("statement", "predicate", "actor", "agent") != "builder" {
			t.Errorf("got %s", s)
		}
		w.audited()
	})
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// promised lists what a schema lets callers send, one line for each: a member and its
// type, a value it may have, and that it must be there.
func promised(defs map[string]any, schema any, path string, out map[string]bool) {
	s, _ := schema.(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		promised(defs, defs[strings.TrimPrefix(ref, "#/$defs/")], path, out)
		return
	}
	for _, v := range list(s["type"]) {
		out[fmt.Sprintf("%s: %v", path, v)] = true
	}
	for _, v := range list(s["enum"]) {
		out[fmt.Sprintf("%s = %v", path, v)] = true
	}
	for _, v := range list(s["required"]) {
		out[fmt.Sprintf("%s.%v must be there", path, v)] = true
	}
	members, _ := s["properties"].(map[string]any)
	for name, m := range members {
		promised(defs, m, path+"."+name, out)
	}
	if items, ok := s["items"]; ok {
		promised(defs, items, path+"[]", out)
	}
}

func list(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}

// The schema of requests grows, and takes nothing away: what it promised stays, and
// what was there without a member stays valid without it. A line that is new is added
// to the file; one that went needs another version of the schema.
func TestM1T3TheSchemaOnlyGrows(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		r := caller{t: t, gw: w.last()}.ok(200, "GET", "/schemas/task-envelope.json", nil)
		var doc struct {
			Defs  map[string]any `json:"$defs"`
			OneOf []struct {
				Title      string
				Properties map[string]any
			}
		}
		if err := json.Unmarshal(r.body, &doc); err != nil {
			t.Fatal(err)
		}
		now := map[string]bool{}
		for _, verb := range doc.OneOf {
			promised(doc.Defs, verb.Properties["args"], verb.Title, now)
		}
		golden := filepath.Join("testdata", "task-envelope.txt")
		text, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			before[strings.TrimSuffix(line, "\n")] = true
		}
		for _, line := range slices.Sorted(maps.Keys(now)) {
			member, must := strings.CutSuffix(line, " must be there")
			parent := member[:max(0, strings.LastIndex(member, "."))]
			old := slices.ContainsFunc(slices.Collect(maps.Keys(before)), func(b string) bool { return strings.HasPrefix(b, parent+": ") })
			switch {
			case before[line]:
			case must && old:
				t.Errorf("callers of before do not send it: %s", line)
			default:
				t.Errorf("new; add it to %s: %s", golden, line)
			}
		}
		for _, line := range slices.Sorted(maps.Keys(before)) {
			switch must := strings.HasSuffix(line, " must be there"); {
			case now[line]:
			case must:
				t.Errorf("no longer asked for; take it out of %s: %s", golden, line)
			default:
				t.Errorf("promised, and gone: %s", line)
			}
		}
	})
}
