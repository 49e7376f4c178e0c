package gateway

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/writ-gateway/writ"
)

// Route is one operation: how a capability is reached over HTTP.
type Route struct {
	OperationID string // unique; the capability's id unless it has several routes
	Capability  writ.CapabilityID
	Method      string
	Path        string // with {parameters} named like the arguments they fill
	Tag         string
	Outcomes    []writ.Outcome // what it may answer with; for the description only

	// TakesBytes: the body is bytes, and the arguments travel in the query.
	// GivesBytes: an accepted call is answered with bytes.
	TakesBytes, GivesBytes bool
}

// Params lists the parameters in the path.
func (r Route) Params() []string {
	var out []string
	for _, seg := range strings.Split(r.Path, "/") {
		if len(seg) > 2 && seg[0] == '{' {
			out = append(out, seg[1:len(seg)-1])
		}
	}
	return out
}

// capabilityInvoke is the one capability whose call is made for another one.
const capabilityInvoke writ.CapabilityID = "capability.invoke"

// Open lists the paths that are not governed. Everything else the gateway
// serves is a capability.
var Open = []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml", "/docs", EnvelopePath}

// Routes is every governed operation.
var Routes = routes()

func routes() []Route {
	const get, post, put = http.MethodGet, http.MethodPost, http.MethodPut
	done := []writ.Outcome{writ.OutcomeDone}
	made := []writ.Outcome{writ.OutcomeCreated}
	either := []writ.Outcome{writ.OutcomeDone, writ.OutcomeCreated}
	var out []Route
	add := func(tag, method, path string, id writ.CapabilityID, outcomes []writ.Outcome) {
		out = append(out, Route{OperationID: string(id), Capability: id, Method: method, Path: path, Tag: tag, Outcomes: outcomes})
	}

	add("sessions", post, "/v1/sessions", "session.open", made)
	add("sessions", get, "/v1/sessions", "session.list", done)
	add("sessions", get, "/v1/sessions/{session_id}", "session.get", done)
	for _, verb := range []string{"start", "heartbeat", "close", "revoke"} {
		add("sessions", post, "/v1/sessions/{session_id}/"+verb, writ.CapabilityID("session."+verb), done)
	}

	add("agents", put, "/v1/agents/{agent_id}", "agent.register", either)
	add("agents", get, "/v1/agents", "agent.list", done)
	add("agents", get, "/v1/agents/route", "agent.route", done)
	add("agents", post, "/v1/agents/delegate", "agent.delegate", either)
	add("agents", get, "/v1/agents/{agent_id}", "agent.info", done)
	add("agents", get, "/v1/agents/{agent_id}/tools", "agent.tools", done)
	add("agents", get, "/v1/agents/{agent_id}/health", "agent.health", done)
	add("agents", post, "/v1/agents/{agent_id}/spawn", "session.spawn", made)
	for _, verb := range []string{"activate", "suspend", "revoke", "supersede", "retire"} {
		add("agents", post, "/v1/agents/{agent_id}/"+verb, writ.CapabilityID("agent."+verb), done)
	}

	add("runs", post, "/v1/runs", "run.create", made)
	add("runs", get, "/v1/runs", "run.list", done)
	add("runs", get, "/v1/runs/{run_id}", "run.get", done)
	add("runs", get, "/v1/runs/{run_id}/budget", "run.budget", done)
	add("runs", get, "/v1/runs/{run_id}/actions", "receipt.list", done)
	out[len(out)-1].OperationID = "receipt.list.byRun"
	for _, verb := range []string{"seal", "cancel", "close"} {
		add("runs", post, "/v1/runs/{run_id}/"+verb, writ.CapabilityID("run."+verb), done)
	}

	add("tasks", post, "/v1/tasks", "task.enqueue", either)
	add("tasks", get, "/v1/tasks", "task.list", done)
	add("tasks", get, "/v1/tasks/{task_id}", "task.get", done)
	add("tasks", post, "/v1/tasks/claim", "task.claim", []writ.Outcome{writ.OutcomeDone, writ.OutcomeEmpty})
	add("tasks", post, "/v1/tasks/{task_id}/claim", "task.claim", done)
	out[len(out)-1].OperationID = "task.claim.byId"
	for _, verb := range []string{"heartbeat", "complete", "handoff", "fail", "release", "cancel", "admit", "verify"} {
		add("tasks", post, "/v1/tasks/{task_id}/"+verb, writ.CapabilityID("task."+verb), done)
	}
	add("tasks", post, "/v1/tasks/{task_id}/revive", "task.revive", either)
	add("tasks", get, "/v1/scopes", "scope.list", done)

	add("artifacts", put, "/v1/artifacts", "artifact.put", either)
	out[len(out)-1].TakesBytes = true
	add("artifacts", get, "/v1/artifacts", "artifact.list", done)
	add("artifacts", get, "/v1/artifacts/{digest}", "artifact.get", done)
	add("artifacts", get, "/v1/artifacts/{digest}/content", "artifact.content", done)
	out[len(out)-1].GivesBytes = true

	add("approvals", get, "/v1/approvals", "approval.list", done)
	add("approvals", get, "/v1/approvals/{approval_id}", "approval.get", done)
	add("approvals", post, "/v1/approvals/{approval_id}/decision", "approval.decide", done)
	add("approvals", post, "/v1/approvals/{approval_id}/response", "approval.respond", done)
	add("approvals", post, "/v1/approvals/{approval_id}/revoke", "approval.revoke", done)

	add("capabilities", get, "/v1/capabilities", "capability.list", done)
	add("capabilities", get, "/v1/capabilities/{capability}", "capability.get", done)
	add("capabilities", post, "/v1/invoke", capabilityInvoke, either)

	add("policy", get, "/v1/policy", "policy.info", done)
	add("policy", get, "/v1/policy/explain/{receipt_id}", "policy.explain", done)
	add("policy", get, "/v1/policy/records", "policy.records", done)
	add("policy", get, "/v1/policy/shadow", "policy.shadow", done)
	add("policy", get, "/v1/policy/bundles", "policy.list", done)
	add("policy", post, "/v1/policy/bundles", "policy.stage", either)
	add("policy", post, "/v1/policy/bundles/{digest}/activate", "policy.activate", done)
	add("policy", post, "/v1/policy/bundles/{digest}/withdraw", "policy.withdraw", done)
	add("policy", post, "/v1/policy/rollback", "policy.rollback", done)

	add("roles", get, "/v1/roles", "role.list", done)
	add("roles", get, "/v1/roles/permissions", "role.permissions", done)
	add("roles", post, "/v1/roles/{role}/bind", "role.bind", done)
	add("roles", post, "/v1/roles/{role}/unbind", "role.unbind", done)

	add("quotas", get, "/v1/quotas", "quota.list", done)
	add("quotas", post, "/v1/quotas", "quota.set", either)
	add("quotas", get, "/v1/quotas/{quota_id}", "quota.get", done)
	add("quotas", post, "/v1/quotas/{quota_id}/delete", "quota.delete", done)

	add("egress", post, "/v1/egress/fetch", "egress.fetch", done)
	add("egress", put, "/v1/egress/grants/{grant_id}", "egress.grant", either)
	add("egress", get, "/v1/egress/grants", "egress.grants", done)
	add("egress", post, "/v1/egress/grants/{grant_id}/revoke", "egress.revoke", done)

	add("effects", get, "/v1/effects", "effect.list", done)
	add("effects", get, "/v1/effects/{effect_id}", "effect.get", done)
	add("effects", post, "/v1/effects/{effect_id}/resolve", "effect.resolve", done)

	add("secrets", get, "/v1/secrets", "secret.list", done)
	add("secrets", put, "/v1/secrets/{name}", "secret.put", either)
	add("secrets", post, "/v1/secrets/{name}/delete", "secret.delete", done)

	add("receipts", get, "/v1/receipts", "receipt.list", done)
	add("receipts", get, "/v1/receipts/export", "receipt.export", done)
	add("receipts", get, "/v1/receipts/{receipt_id}", "receipt.get", done)
	add("receipts", get, "/v1/log/head", "log.head", done)
	add("keys", get, "/v1/keys", "key.list", done)
	add("keys", post, "/v1/keys", "key.introduce", either)
	add("keys", post, "/v1/keys/activate", "key.activate", done)
	add("keys", post, "/v1/keys/retire", "key.retire", done)
	add("keys", post, "/v1/keys/revoke", "key.revoke", done)
	add("receipts", get, "/v1/receipts/{receipt_id}/evidence", "receipt.evidence", done)
	add("receipts", post, "/v1/runs/{run_id}/evidence/shred", "evidence.shred", done)
	return out
}

// tags says what each group of operations is for.
var tags = []struct{ name, text string }{
	{"sessions", "Who acts: one principal in one role, for a time. A session opened with heartbeats must be heard within heartbeat_ttl_s: " +
		"session.heartbeat, task.heartbeat and task.claim (also while it waits) all count. Silent longer it is suspended and can come back with " +
		"session.heartbeat within 60 seconds; after that it ends, what it claims is given back, and the tasks it holds go back to the queue."},
	{"agents", "The registry: what agents there are, what they can do and where they may write."},
	{"runs", "Containers of work with an owner, a budget and an end."},
	{"tasks", "Work: enqueued, claimed under a lease, completed once. The holder sends task.heartbeat every heartbeat_every_s seconds: " +
		"it extends the lease, keeps the session, and says when to stop."},
	{"artifacts", "What tasks make beyond their results: bytes, by their SHA-256. The holder of a task puts them and completes the task with them; " +
		"who is given them, or may read the run, names the task and the digest."},
	{"approvals", "Calls that people must agree to first, and what they decided."},
	{"capabilities", "What can be called, and one way to call it by name."},
	{"policy", "The rules in force, and how others take their place."},
	{"roles", "Who may act in which role, and what each may invoke. A call needs a principal that is bound to its session's role, and a role that may."},
	{"quotas", "How much, and how often, for a tenant, an agent, a session, a role or a capability. What is over one is refused with 429 and a Retry-After."},
	{"egress", "What agents may reach outside, and the one way to it. People give grants, agents use them for the tasks they hold."},
	{"effects", "What calls did outside the gateway. The intent is committed first, what became of it afterwards; where nobody knows, an operator says it."},
	{"secrets", "Values the gateway puts into requests it makes for others, each for one host. They are shown to nobody."},
	{"keys", "What receipts are signed with. At any index of the log exactly one key signs; a key manifest says which, and follows from the receipts themselves."},
	{"receipts", "Signed records of every transition and denial."},
}

// CheckRoutes says whether routes and registry match: each capability a caller
// may use has a route, each route a capability that is not internal, and path
// parameters name arguments.
func CheckRoutes(reg *writ.Registry) error {
	routed := map[writ.CapabilityID]bool{}
	ids := map[string]bool{}
	for _, r := range Routes {
		if ids[r.OperationID] {
			return fmt.Errorf("operation %s is listed twice", r.OperationID)
		}
		ids[r.OperationID] = true
		routed[r.Capability] = true
		c := reg.Get(r.Capability)
		switch {
		case c == nil:
			return fmt.Errorf("route %s %s: capability %s is not registered", r.Method, r.Path, r.Capability)
		case c.Internal:
			return fmt.Errorf("route %s %s: capability %s is internal", r.Method, r.Path, r.Capability)
		case (r.Method == http.MethodGet) != c.ReadOnly() && r.Capability != capabilityInvoke:
			return fmt.Errorf("route %s %s: the method does not fit the safety of %s", r.Method, r.Path, r.Capability)
		}
		if c.Args == nil || c.Result == nil || c.Args.Kind() != reflect.Struct {
			return fmt.Errorf("capability %s: its arguments are not a struct, or it has no result", c.ID)
		}
		fields := argumentFields(c.Args)
		if _, ok := fields["args"]; r.Capability == capabilityInvoke && (!ok || len(fields) != 2) {
			return fmt.Errorf("capability %s: its arguments are not those of gateway.Invocation", c.ID)
		}
		for _, p := range r.Params() {
			if _, ok := fields[p]; !ok {
				return fmt.Errorf("route %s %s: %s has no argument %q", r.Method, r.Path, r.Capability, p)
			}
		}
	}
	for _, c := range reg.All() {
		if !c.Internal && !routed[c.ID] {
			return fmt.Errorf("capability %s has no route", c.ID)
		}
	}
	return nil
}
