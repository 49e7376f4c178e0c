package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// operation is one operation of /openapi.json.
type operation struct {
	method, path, id, capability string
}

// body is one that is looked into after it is known who calls.
func (o operation) body() any {
	switch {
	case o.method == http.MethodGet:
		return nil
	case o.capability == "capability.invoke":
		return obj{"capability": "run.create", "args": obj{}}
	}
	return obj{}
}

func (w *world) operations() []operation {
	w.t.Helper()
	r := caller{t: w.t, gw: w.gw[0]}.ok(200, "GET", "/openapi.json", nil)
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `json:"operationId"`
			Capability string `json:"x-capability"`
		}
	}
	if err := json.Unmarshal(r.body, &doc); err != nil {
		w.t.Fatal(err)
	}
	var out []operation
	for path, methods := range doc.Paths {
		for method, op := range methods {
			out = append(out, operation{strings.ToUpper(method), path, op.ID, op.Capability})
		}
	}
	if len(out) < 25 {
		w.t.Fatalf("only %d operations are described", len(out))
	}
	return out
}

// Every operation that changes something is a capability somebody's role may
// invoke, and none is open to strangers.
func TestTG1EveryChangeIsAGovernedCapability(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	f, err := os.Open("../policies/roles/policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rd := csv.NewReader(f)
	rd.Comment, rd.FieldsPerRecord, rd.TrimLeadingSpace = '#', -1, true
	rows, err := rd.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]int{}
	for _, row := range rows {
		if row[0] == "p" && row[5] == "allow" {
			roles[row[3]]++
		}
	}
	listed := map[string]bool{}
	r := w.op.ok(200, "GET", "/v1/capabilities", nil)
	caps, _ := r.at("capabilities").([]any)
	for _, c := range caps {
		id, _ := c.(map[string]any)["id"].(string)
		if id == "" {
			id, _ = c.(map[string]any)["capability"].(string)
		}
		listed[id] = true
	}
	stranger := caller{t: t, gw: w.gw[0]}
	for _, op := range w.operations() {
		if op.capability == "" || roles[op.capability] == 0 {
			t.Errorf("%s %s: capability %q, granted to %d roles", op.method, op.path, op.capability, roles[op.capability])
		}
		if operators := slices.ContainsFunc(rows, func(row []string) bool { return row[0] == "p" && row[1] == "role:operator" && row[3] == op.capability }); listed[op.capability] != operators {
			t.Errorf("%s is listed to operators: %v, granted: %v", op.capability, listed[op.capability], operators)
		}
		path := strings.NewReplacer("{", "", "}", "").Replace(op.path)
		var body any
		if op.method != http.MethodGet {
			body = obj{}
		}
		stranger.refused(401, "unauthenticated", op.method, path, body)
	}
}

// Whatever happened, the objects that changed are those the receipts say
// changed, and each stands where its last receipt left it.
func TestTG2VersionsAndReceiptsAgree(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		second := c.another().at(w.last())
		untouched := c.newRun(5)
		before := w.entities()
		_, all := w.export()
		began := int64(len(all))

		scope := obj{"write_scopes": []string{"fs:repo/x/"}, "backoff_ms": 0, "lease_ttl_s": 1}
		silent := c.builder.claim(c.enqueue("silent", scope))
		c.enqueue("parked", obj{"write_scopes": []string{"fs:repo/x/y/"}})
		outside := c.enqueue("outside", obj{"write_scopes": []string{"fs:payroll/"}})
		if r := second.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Fatalf("claim: %s", r)
		}
		c.orc.refused(403, "classification_denied", "POST", "/v1/tasks", c.task("untrusted", obj{"labels": []string{"no.such.label"}, "capability": w.sinking()}))
		c.builder.refused(403, "rbac_denied", "POST", "/v1/runs", obj{"budget": obj{"steps": 1}})
		for range 2 { // both come free when the silent holder's lease ends
			r := <-second.poll()
			if r.status != 200 {
				t.Fatalf("claim: %s", r)
			}
			second.complete(leaseOf(r))
		}
		c.builder.refused(409, "lease_lost", "POST", "/v1/tasks/"+silent.task+"/complete", silent.hold(nil))
		c.orc.ok(200, "POST", "/v1/tasks/"+outside+"/cancel", nil)
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		second.ok(200, "POST", "/v1/sessions/"+string(second.id)+"/close", nil)
		gone := w.session("planner", "orchestrator", "planner")
		w.op.ok(200, "POST", "/v1/sessions/"+string(gone.id)+"/revoke", nil)

		e := w.audit()
		changed := map[string]bool{}
		for name, x := range w.entities() {
			if before[name].version != x.version {
				changed[name] = true
			}
		}
		told := map[string]bool{}
		for name, seq := range e.seq {
			if seq >= began {
				told[name] = true
			}
		}
		if !maps.Equal(changed, told) {
			t.Errorf("changed: %v\ntold by receipts: %v", slices.Sorted(maps.Keys(changed)), slices.Sorted(maps.Keys(told)))
		}
		if changed["run "+untouched] || !changed["run "+c.run] || len(changed) < 7 {
			t.Errorf("changed: %v", slices.Sorted(maps.Keys(changed)))
		}
	})
}

// sinking registers an agent whose tool lets data out.
func (w *world) sinking() string {
	w.t.Helper()
	w.agent("speaker", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": "site.speak", "safety": "mutating", "sinks": []string{"egress"}}}})
	return "site.speak"
}

// With a store that refuses writes every change is answered 503 and nothing
// changes; when the store takes writes again, so does the gateway.
func TestTG3NothingChangesWithoutTheStore(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.op.ok(201, "PUT", "/v1/agents/planned", obj{"archetypes": []string{"executor"}, "domain": "web", "tools": []obj{{"name": "site.plan", "safety": "mutating"}}})
		opened := w.op.ok(201, "POST", "/v1/sessions", obj{"principal": "builder", "kind": "agent", "role": "executor", "agent_id": "builder"})
		fresh := caller{t: t, gw: w.gw[0], token: opened.str("token")}
		idle := c.another()
		l, queued := c.builder.claim(c.enqueue("held", obj{"lease_ttl_s": 600, "produces": []obj{{"name": "site", "media_type": "text/plain"}}})), c.enqueue("queued", nil)
		c.enqueue("after", on("held"))
		died := c.enqueue("died", obj{"max_attempts": 1})
		last := c.builder.claim(died)
		c.builder.ok(200, "POST", "/v1/tasks/"+died+"/fail", last.hold(obj{"failure": obj{"class": "external", "code": "x", "retryable": true}}))
		manual := c.enqueue("manual", obj{"join": "manual"})
		same := func(mark string) sources {
			s := shipped(t)
			s["packs/budgets/budgets.rego"] += "\n# " + mark + "\n"
			return s
		}
		active, ready := w.op.stage(same("one")), w.op.stage(same("two"))
		w.settled(active)
		w.settled(ready)
		w.activate(active)
		failure := obj{"failure": obj{"class": "external", "code": "x", "retryable": true}}

		w.agent("mailer", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": "mail.send", "safety": "mutating", "approval": "manual"}}})
		alice := w.alice()
		pending := c.orc.waits("POST", "/v1/tasks", c.task("mail-1", obj{"capability": "mail.send"}))
		approved := c.orc.waits("POST", "/v1/tasks", c.task("mail-2", obj{"capability": "mail.send"}))
		alice.approve(approved)

		judge := w.verifier("judge", "vera", "")
		judged := c.enqueue("judged", obj{"verify": obj{"required": true}})
		c.builder.complete(c.builder.claim(judged))
		_, accept := judge.verdict("/v1/tasks/"+judged, "accept", nil)
		mine := c.run
		c.judgedRun()
		waits := c.run
		c.run = mine
		c.orc.ok(200, "POST", "/v1/runs/"+waits+"/seal", nil)
		_, done := judge.verdict("/v1/runs/"+waits, "accept", nil)

		ended := c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 1}}).str("run_id")
		c.orc.ok(200, "POST", "/v1/runs/"+ended+"/cancel", nil)
		w.op.ok(201, "PUT", "/v1/secrets/kept", obj{"host": "api.example.com", "value": "s3cret"})
		quota := w.op.ok(201, "POST", "/v1/quotas", obj{"metric": "open_approvals", "subject": "tenant", "limit": 1000}).str("quota_id")

		next := w.newKey(w.keysDir())
		w.op.ok(201, "POST", "/v1/keys", obj{"public_key": next.text})
		within(t, 20*time.Second, "every gateway holds the key", func() bool {
			rows, _ := w.receiptKeys()
			return len(rows) == 2 && len(rows[1].Waiting) == 0 && len(rows[1].Ready) == len(w.gw)
		})

		w.op.ok(201, "PUT", "/v1/egress/grants/granted", obj{"host": "a.example", "agents": []string{"builder"}})

		// Every operation that changes something, with a call that would succeed (or,
		// for an answer nobody asked for, leave the receipt of a refusal).
		calls := map[string]struct {
			who  caller
			id   string
			body any
		}{
			"session.open":      {w.op, "", obj{"principal": "auditor", "kind": "human", "role": "auditor"}},
			"session.start":     {fresh, opened.str("session_id"), nil},
			"session.heartbeat": {idle, string(idle.id), nil},
			"session.close":     {idle, string(idle.id), nil},
			"session.revoke":    {w.op, string(idle.id), nil},
			"session.spawn":     {w.op, "builder", obj{"role": "executor"}},
			"agent.register":    {w.op, "another", obj{"archetypes": []string{"executor"}, "domain": "web"}},
			"agent.activate":    {w.op, "planned", nil},
			"agent.suspend":     {w.op, "builder", nil},
			"agent.revoke":      {w.op, "builder", nil},
			"agent.supersede":   {w.op, "builder", obj{"successor": "planned"}},
			"agent.retire":      {w.op, "builder", nil},
			"run.create":        {c.orc, "", obj{"budget": obj{"steps": 1}}},
			"run.seal":          {c.orc, c.run, nil},
			"run.cancel":        {c.orc, c.run, nil},
			"task.enqueue":      {c.orc, "", c.task("new", nil)},
			"task.claim":        {c.builder, "", nil},
			"task.claim.byId":   {c.builder, queued, nil},
			"task.heartbeat":    {c.builder, l.task, l.hold(nil)},
			"task.complete":     {c.builder, l.task, l.hold(nil)},
			"agent.delegate":    {c.orc, "", obj{"run_id": c.run, "to": "builder", "task": obj{"key": "given", "capability": tool}}},
			"task.handoff":      {c.builder, l.task, l.hold(obj{"to": obj{"key": "after"}})},
			"artifact.put":      {c.builder, "?task_id=" + l.task + "&name=site&lease_id=" + l.id + fmt.Sprintf("&fence=%d", l.fence), "the site"},
			"task.fail":         {c.builder, l.task, l.hold(failure)},
			"task.release":      {c.builder, l.task, l.hold(nil)},
			"task.cancel":       {c.orc, queued, nil},
			"task.revive":       {c.orc, died, obj{"key": "again"}},
			"task.admit":        {c.orc, manual, nil},
			"task.verify":       {judge, judged, accept},
			"run.close":         {judge, waits, done},
			"policy.stage":      {w.op, "", same("three").upload(t)},
			"policy.activate":   {w.op, ready, nil},
			"policy.withdraw":   {w.op, ready, nil},
			"policy.rollback":   {w.op, "", nil},
			"approval.decide":   {alice, pending, obj{"decision": "approve"}},
			"approval.respond":  {alice, pending, obj{"response": obj{}}},
			"approval.revoke":   {w.op, approved, nil},
			"role.bind":         {w.op, "auditor", obj{"principal": "somebody"}},
			"role.unbind":       {w.op, "auditor", obj{"principal": "nobody"}},
			"quota.set":         {w.op, "", obj{"metric": "queued_tasks", "subject": "tenant", "limit": 1000}},
			"quota.delete":      {w.op, quota, nil},
			"egress.fetch":      {c.builder, "", obj{"grant": "site-api"}},
			"egress.grant":      {w.op, "site-api", obj{"host": "a.example", "agents": []string{"builder"}}},
			"egress.revoke":     {w.op, "granted", nil},
			"secret.put":        {w.op, "stripe", obj{"host": "api.example.com", "value": "s3cret"}},
			"secret.delete":     {w.op, "kept", nil},
			"effect.resolve":    {w.op, "eff_01J00000000000000000000000", obj{"as": "ok"}},
			"key.introduce":     {w.op, "", obj{"public_key": w.newKey(t.TempDir()).text}}, // refused: another one waits
			"key.activate":      {w.op, "", obj{"key_id": next.KeyID}},
			"key.retire":        {w.op, "", obj{"key_id": next.KeyID}},
			"key.revoke":        {w.op, "", obj{"key_id": next.KeyID}}, // refused: it was never in use
			"evidence.shred":    {w.op, ended, obj{"reason": "legal_order"}},
			"capability.invoke": {c.orc, "", obj{"capability": "run.create", "args": obj{"budget": obj{"steps": 1}}}},
		}
		before := w.entities()
		w.refuseWrites(true)
		for _, op := range w.operations() {
			if op.method == http.MethodGet {
				continue
			}
			call, ok := calls[op.id]
			if !ok {
				t.Errorf("no call is known for %s", op.id)
				continue
			}
			path := op.path
			if i := strings.Index(path, "{"); i >= 0 {
				path = path[:i] + call.id + path[i+strings.Index(path[i:], "}")+1:]
			}
			if strings.HasPrefix(call.id, "?") {
				path += call.id
			}
			r := call.who.do(op.method, path, call.body)
			if op.id == "effect.resolve" && r.status == 404 {
				continue // no effect is unknown, and that is no receipt's to say
			}
			if r.status != 503 || r.code() != "store_unavailable" || r.header.Get("Retry-After") == "" {
				t.Errorf("%s: %s", op.id, r)
			}
		}
		if after := w.entities(); !maps.Equal(before, after) {
			t.Errorf("before %v\nafter %v", before, after)
		}
		w.refuseWrites(false)
		within(t, 10*time.Second, "the gateway takes changes again", func() bool {
			return c.builder.do("POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil)).status == 200
		})
		c.orc.ok(201, "POST", "/v1/tasks", c.task("new", nil))
		w.audit()
	})
}
