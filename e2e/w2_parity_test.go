package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// described is an operation with the example the API reference shows of it.
type described struct {
	operation
	inPath, inQuery []string
	args            obj // of the capability's example
}

func (w *world) described() (out []described) {
	w.t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `json:"operationId"`
			Capability string `json:"x-capability"`
			Parameters []struct {
				Name, In string
				Example  any
			}
			RequestBody struct {
				Content map[string]struct{ Example obj }
			}
		}
	}
	if err := json.Unmarshal(caller{t: w.t, gw: w.gw[0]}.ok(200, "GET", "/openapi.json", nil).body, &doc); err != nil {
		w.t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			d := described{operation: operation{strings.ToUpper(method), path, op.ID, op.Capability}, args: obj{}}
			maps.Copy(d.args, op.RequestBody.Content["application/json"].Example)
			for _, p := range op.Parameters {
				if p.Example != nil {
					d.args[p.Name] = p.Example
				}
				switch p.In {
				case "path":
					d.inPath = append(d.inPath, p.Name)
				case "query":
					d.inQuery = append(d.inQuery, p.Name)
				}
			}
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b described) int { return strings.Compare(a.id, b.id) })
	return out
}

// ways are the two by which one call can be made.
var ways = map[string]func(by caller, op described, args obj) reply{
	"REST": func(by caller, op described, args obj) reply {
		body, path, query := maps.Clone(args), op.path, url.Values{}
		for _, p := range op.inPath {
			path = strings.ReplaceAll(path, "{"+p+"}", url.PathEscape(fmt.Sprint(args[p])))
			delete(body, p)
		}
		if op.method == http.MethodGet || len(op.inQuery) > 0 {
			for name, v := range body {
				query.Set(name, fmt.Sprint(v))
			}
			return by.do(op.method, path+"?"+query.Encode(), nil)
		}
		return by.do(op.method, path, body)
	},
	"invoke": func(by caller, op described, args obj) reply {
		return by.do("POST", "/v1/invoke", obj{"capability": op.capability, "args": args})
	},
}

// What is made up anew each time: ids, and times, digests, keys and signatures.
var (
	madeIDs  = regexp.MustCompile(`\b([a-z]{3}_|R)[0-9A-HJKMNP-TV-Z]{26}`)
	madeText = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|CAP-\d+-\d+|\br-[0-9a-f]{12}|(sha256:)?[0-9a-f]{32,64}|\b[0-9a-f]{16}\b|[A-Za-z0-9+/_-]{40,}={0,2}`)
)

// moving are the reads whose answers go with what the log has got to meanwhile, or who holds a new key by now.
var moving = map[string]bool{"key.list": true, "log.head": true, "receipt.evidence": true, "receipt.export": true, "receipt.get": true, "receipt.list": true, "policy.records": true}

// shapeOf is a JSON value with everything that is made up anew each time put aside.
func shapeOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, m := range v {
			out[madeIDs.ReplaceAllString(name, "$1")] = shapeOf(m)
		}
		return out
	case []any:
		for i := range v {
			v[i] = shapeOf(v[i])
		}
	case string:
		return madeText.ReplaceAllString(madeIDs.ReplaceAllString(v, "$1"), "…")
	case json.Number, float64:
		return 0
	}
	return v
}

// told is all a caller, and an auditor after him, learn of a call, but for the way it came.
func (w *world) told(by caller, op described, way string, args obj) string {
	r := ways[way](by, op, args)
	switch kind, _, _ := strings.Cut(op.capability, "."); kind {
	case "role", "policy", "key": // a replica answers 503 until it has read what holds now
		for _, g := range w.gw {
			within(w.t, 10*time.Second, "what holds now is known", func() bool { return w.op.at(g).do("GET", "/v1/policy", nil).status == 200 })
		}
	}
	status, body := r.status, r.at()
	if way == "invoke" && status < 300 {
		if body = r.at("data"); r.str("status") == "empty" {
			status = 204 // the envelope says that there is nothing
		}
	}
	switch problem, _ := body.(map[string]any); r.code() {
	case "":
		if moving[op.capability] || op.capability == "artifact.content" { // by its path it is the bytes, by name what is known of them
			body = nil
		}
	case writ.CodeMalformed:
		body = r.code() // one says it of a query, the other of a body
	default:
		delete(problem, "request_id")
	}
	text, _ := json.Marshal(shapeOf(body))
	out := fmt.Sprintf("%d %s", status, text)
	if id := r.receipt(); id != "" {
		s := w.op.ok(200, "GET", "/v1/receipts/"+string(id), nil)
		p, _ := s.at("statement", "predicate").(map[string]any)
		if p["via"] != nil && p["via"] != "capability.invoke" {
			w.t.Errorf("%s came by %v", op.capability, p["via"])
		}
		delete(p, "via")
		text, _ = json.Marshal(shapeOf(p))
		out += "\n\treceipt " + string(text)
	}
	return out
}

// oneWay are the calls there is only one way to make, and why.
var oneWay = map[string]string{
	"capability.invoke": "it is the other way itself",
	"artifact.put":      "it brings bytes, which no arguments hold",
}

// play makes every call there is by one way, each of somebody who may make it with what is
// his, then wrongly, then by somebody who may not, and says what became of each.
func play(w *world, way string) map[string]string {
	what := map[string]string{}
	c := newCast(w.t, w)
	may := rights(w.t)
	people := map[writ.Role]caller{writ.RoleOperator: w.op, writ.RoleOrchestrator: c.orc, writ.RoleExecutor: c.builder}
	for _, role := range []writ.Role{writ.RoleVerifier, writ.RoleApprover, writ.RoleAuditor} {
		people[role] = w.session("of-"+string(role), role, "")
	}
	roles := []writ.Role{writ.RoleOperator, writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier, writ.RoleApprover, writ.RoleAuditor}
	scenes := c.scenes(w.t, c.another(), w.alice(), w.verifier("judge", "vera", ""))
	quota := w.op.ok(201, "POST", "/v1/quotas", obj{"metric": "claims_per_min", "subject": "agent", "limit": 1000}).str("quota_id")
	for i, op := range w.described() {
		if oneWay[op.capability] != "" {
			continue
		}
		role := roles[slices.IndexFunc(roles, func(r writ.Role) bool { return may[r][op.capability] })]
		by, args := people[role], maps.Clone(op.args)
		// What it is about is there, and is the caller's.
		var l lease
		if args["lease_id"] != nil {
			run := c.newRun(1000)
			l = c.builder.claim(c.orc.ok(201, "POST", "/v1/tasks", obj{"run_id": run, "key": "held", "capability": tool, "required_domain": "web"}).str("task_id"))
			args["lease_id"], args["fence"] = l.id, l.fence
			by = c.builder
		} else if args["task_id"] != nil || strings.Contains(op.path, "{task_id}") {
			l.task = c.enqueue(fmt.Sprintf("task-%d", i), nil)
		}
		for name, value := range map[string]any{"task_id": l.task, "run_id": c.newRun(1000), "agent_id": fmt.Sprintf("agent-%d", i), "quota_id": quota} {
			if args[name] != nil || strings.Contains(op.path, "{"+name+"}") {
				args[name] = value
			}
		}
		if id, _ := args["agent_id"].(string); id != "" && op.capability != "agent.register" {
			w.agent(writ.AgentID(id), "other", "executor", "other.tool", nil, nil)
		}
		if args["session_id"] != nil {
			other := w.session(fmt.Sprintf("guest-%d", i), writ.RoleAuditor, "")
			args["session_id"] = other.id
			if op.capability != "session.revoke" {
				by = other
			}
			delete(args, "write_claims")
		}
		switch op.capability {
		case "agent.supersede":
			args["successor"] = "planner"
		case "task.handoff":
			delete(args, "refs")
			args["to"] = obj{"task": obj{"key": "after", "capability": tool}}
		case "task.claim":
			by = c.builder
			args = obj{"task_id": c.enqueue(fmt.Sprintf("next-%d", i), nil)}
			if op.id == op.capability {
				args = obj{"domains": []string{"nowhere"}}
			}
		case "task.enqueue":
			args["run_id"] = c.run
		case "agent.delegate":
			args = obj{"run_id": c.run, "to": "builder", "task": obj{"key": "given", "capability": tool}}
		case "receipt.get", "receipt.evidence", "policy.explain":
			args["receipt_id"] = w.op.ok(200, "POST", "/v1/runs/"+c.newRun(5)+"/seal", nil).receipt()
		case "receipt.export", "receipt.list", "log.head":
			args = obj{}
			if op.id != op.capability {
				args["run_id"] = c.run
			}
		case "session.open":
			args = obj{"principal": "someone", "kind": "human", "role": "auditor"}
		case "egress.grant":
			args["agents"] = []string{"builder"}
		}
		if !moving[op.capability] { // the other replica has no ledger
			by = by.at(w.last())
		}
		say := func(kind string, by caller, args obj) string {
			got := w.told(by, op, way, args)
			what[op.id+" "+kind] = got
			return got
		}
		say("with more than it takes", by, with(args, "nosuch", "1"))
		for name, v := range args {
			if _, ok := v.(string); ok && !slices.Contains(op.inPath, name) {
				say("with a wrong "+name, by, with(args, name, strings.Repeat("?", 5000)))
			} else if !ok && op.method == http.MethodGet {
				say("with a wrong "+name, by, with(args, name, "x"))
			}
		}
		got := say("as it should be", by, args)
		if scene := scenes[writ.CapabilityID(op.capability)]; got[0] != '2' && scene != nil { // it takes more than names of what is there
			by, args := scene()
			got = say("as it is accepted", by.at(w.last()), args)
		}
		if got[0] != '2' {
			w.t.Errorf("%s is never accepted: %s", op.id, got)
		}
		if no := slices.IndexFunc(roles, func(r writ.Role) bool { return !may[r][op.capability] }); no >= 0 {
			stranger := w.session(fmt.Sprintf("stranger-%d", i), roles[no], "") // of so many denials of one principal each has a receipt
			if got := say("by who may not", stranger, args); !strings.HasPrefix(got, "403 ") || !strings.Contains(got, `"code":"rbac_denied"`) || !strings.Contains(got, "\treceipt ") {
				w.t.Errorf("%s by %s: %s", op.id, roles[no], got)
			}
		}
	}
	return what
}

// Every call there is has one meaning: by its own path or by name through
// capability.invoke it is decided alike, answered alike, and leaves a receipt of one
// form, whether it is right, wrong or refused. What is called comes from what the gateway says it has.
func TestW2T2OneCallTwoWays(t *testing.T) {
	onLenientHosts(t, func(t *testing.T, host string, args []string) {
		byREST := play(newWorld(t, host, args...), "REST")
		byName := play(newWorld(t, host, args...), "invoke")
		for _, call := range slices.Sorted(maps.Keys(byREST)) {
			if byREST[call] != byName[call] {
				t.Errorf("%s:\nREST   %s\ninvoke %s", call, byREST[call], byName[call])
			}
		}
	})
}
