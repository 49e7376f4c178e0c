package policies

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
	"github.com/writ-gateway/writ"
)

// awkward are bodies of rules that come at the input in every way there is, and
// what their pack sees of it.
var awkward = []struct{ id, body, sees string }{
	{"a_alias", `x := input.agent; not x.domain`, "agent"},
	{"a_alias_deep", `x := input.task; y := x.state; y == "queued"`, "task"},
	{"a_tuple", `[a, b] := [input.run.state, input.task.id]; a == "active"; b != ""`, "run.state task.id"},
	{"a_object", `x := {"s": input.run.state, "k": input.principal.kind}; x[_] == "agent"`, "principal.kind run.state"},
	{"a_function", `_domain(input.task) == "web"`, "task"},
	{"a_function_key", `_named(input.egress, "private")`, "egress"},
	{"a_variable", `some k; input.session[k] == "executor"`, "session"},
	{"a_computed", `input.task[_word("sta", "te")] == "queued"`, "task"},
	{"a_nested", `input.budget[input.task.domain].fits`, "budget task.domain"},
	{"a_walk", `walk(input.skill, [_, v]); v == "active"`, "skill"},
	{"a_get", `object.get(input.egress, "scheme", "none") == "none"`, "egress"},
	{"a_keys", `"domain" in object.keys(input.agent)`, "agent"},
	{"a_array", `count([l | some l in input.labels; startswith(l, "public")]) == 1`, "labels"},
	{"a_set", `count({s | some s in input.scopes.requested}) > count(input.sinks)`, "scopes.requested sinks"},
	{"a_map", `{q.metric: q.fits | some q in input.quotas}.running_tasks`, "quotas"},
	{"a_every", `every s in input.scopes.requested { startswith(s, "fs:") }`, "scopes.requested"},
	{"a_template", `$"{input.run.id}/{input.task.id}" != "/"`, "run.id task.id"},
	{"a_not", `not input.content.declared`, "content.declared"},
	{"a_not_part", `not input.content`, "content"},
	{"a_index", `input.labels[0] == "internal.system"`, "labels"},
	{"a_else", `_level == 2`, "agent.status approval.state run.state"},
	{"a_default", `_flag == false`, "grant.fits"},
	{"a_partial", `_by[input.call.via]`, "call.via task.id"},
	{"a_union", `object.union(input.price, input.grant).known`, "grant price"},
	{"a_number", `input.budget.steps.limit - input.price.microusd > 10`, "budget.steps price.microusd"},
	{"a_error", `input.task.domain == "12"; to_number(input.run.id) > 10`, "run.id task.domain"},
	{"a_input", `_whole(input)`, "the time"},
	{"a_input_alias", `x := input; x.run.state == "active"`, "the time"},
	{"a_input_variable", `some k; input[k].state == "active"`, "the time"},
	{"a_input_walk", `walk(input, [["run", "state"], "active"])`, "the time"},
	{"a_input_get", `object.get(input, ["run", "state"], "") == "active"`, "the time"},
	{"a_clock", `input.env.now_ms > 1790000000000; input.run.state == "active"`, "the time"},
}

// helpers are those the bodies call.
const helpers = `
_domain(t) := t.domain

_named(o, k) := o[k]

_word(a, b) := concat("", [a, b])

_whole(i) if i.run.state == "active"

_level := 1 if {
	input.agent.status == "active"
} else := 2 if {
	input.run.state == "active"
} else := 3 if input.approval.state

default _flag := false

_flag if input.grant.fits

_by[input.task.id] := 1

_by["capability.invoke"] := 2
`

// used are the helpers of a body, without those only others need.
func used(body string) string {
	var out string
	for _, h := range strings.Split(strings.TrimPrefix(helpers, "\n"), "\n\n") {
		name := h[strings.Index(h, "_"):]
		if end := strings.IndexAny(name, "([ \n"); strings.Contains(body, name[:end]) {
			out += "\n" + h + "\n"
		}
	}
	return out
}

// everything is every capability some pack is routed to by its own name.
var everything = slices.Concat(verbs, []writ.CapabilityID{
	"approval.decide", "approval.respond", "artifact.put", "connector.register", "delivery.send", "egress.fetch", "memory.put",
	"message.send", "run.close", "secret.put", "skill.load", "skill.execute", "task.verify", "transform.run",
})

// loadAwkward is the shipped packs beside the awkward ones.
func loadAwkward(t testing.TB) *Engine {
	t.Helper()
	f := sources(t)
	for _, a := range awkward {
		guardPack(f, a.id, "*", "allow, deny", `"effect": "allow", "code": "quota_exceeded"`, a.body)
		f["packs/"+a.id+"/"+a.id+".rego"] = append(f["packs/"+a.id+"/"+a.id+".rego"], used(a.body)...)
	}
	e, err := Load(t.Context(), from(f), Options{Capabilities: everything, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What a pack sees is what its source says.
func TestReads(t *testing.T) {
	names := map[uint8]string{}
	for name, k := range keys {
		if names[k.order] != "" {
			t.Fatalf("%s and %s have one number", name, names[k.order])
		}
		names[k.order] = name
	}
	sees := func(p *pack) string {
		if p.reads.clock {
			return "the time"
		}
		var out []string
		for _, at := range p.reads.places {
			name := names[uint8(at>>8)]
			if below := names[uint8(at)]; below != "" {
				name += "." + below
			}
			out = append(out, name)
		}
		return strings.Join(out, " ")
	}
	want := map[string]string{
		"approvals":      "approval call.capability egress principal.kind skill.effects task.approval task.capability task.raised task.safety",
		"budgets":        "budget call.capability grant price principal.kind session.role task.raised task.safety",
		"classification": "call.capability call.class call.safety content labels session.role sinks task.raised task.safety",
		"egress":         "call.capability egress labels principal.kind skill",
		"lifecycle":      "agent call.capability call.class call.safety entry.contract entry.domain principal.kind run session task.deferred task.owned_elsewhere",
		"quotas":         "call.capability quotas",
		"skills":         "call.capability session.role skill",
		"sod":            "call.capability duty session.role",
		"write_scopes":   "agent call.capability call.class call.safety scopes.claimed scopes.requested session",
	}
	for _, a := range awkward { // with what the other rule of each of them reads
		parts := strings.Fields(a.sees)
		if a.sees != "the time" {
			parts = append(parts, "call.capability")
			slices.Sort(parts)
			want[a.id] = strings.Join(parts, " ")
		} else {
			want[a.id] = a.sees
		}
	}
	for _, p := range loadAwkward(t).now.Load().packs {
		if got := sees(p); got != want[p.ID] {
			t.Errorf("%s sees\n got %s\nwant %s", p.ID, got, want[p.ID])
		}
		if (p.memo == nil) != p.reads.clock {
			t.Errorf("%s: it sees the time: %t, and is remembered: %t", p.ID, p.reads.clock, p.memo != nil)
		}
	}
}

// OPA's own analysis finds nothing that a read-set lacks.
func TestReadsCoverDependencies(t *testing.T) {
	packs := loadAwkward(t).now.Load().packs
	compiler, err := compile(packs)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		refs, err := dependencies.Base(compiler, ast.MustParseRef("data.packs."+p.ID+".findings"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range refs {
			if !r.HasPrefix(ast.InputRootRef) || p.reads.clock {
				continue
			}
			top := placeOf(keys[string(r[1].Value.(ast.String))], nil)
			at := top
			if below := step(r, 2); below != nil {
				at |= placeOf(nil, below)
			}
			if !slices.Contains(p.reads.places, at) && !slices.Contains(p.reads.places, top) {
				t.Errorf("%s reads %s, and its read-set has no part of it", p.ID, r)
			}
		}
	}
}

// A replaced input is no reason to see less: the contract forbids it to packs,
// and the analysis does not rest on that.
func TestReadsWithReplacedInput(t *testing.T) {
	const text = "package packs.p\n\n_h if input.run.state == \"x\"\n\nfindings contains 1 if _h with input.task as input.agent.domain\n"
	m := ast.MustParseModuleWithOpts(text, ast.ParserOptions{RegoVersion: ast.RegoV1})
	c := ast.NewCompiler()
	if c.Compile(map[string]*ast.Module{"p.rego": m}); c.Failed() {
		t.Fatal(c.Errors)
	}
	got := (&pack{modules: map[string]*ast.Module{"p.rego": m}}).readsOf(c)
	want := []place{placeOf(kAgent, kDomain), placeOf(kRun, kState), placeOf(kTask, nil)}
	if got.clock || !slices.Equal(got.places, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Keys tell apart what is absent, what is empty, and what stands at another
// place; what is not read is not in them.
func TestKeys(t *testing.T) {
	read := readSet{places: []place{placeOf(kAgent, kDomain), placeOf(kAgent, kID), placeOf(kBudget, keys["steps"]), placeOf(kScopes, kClaimed)}}
	key := func(change func(*writ.PolicyInput)) string {
		in := claim()
		change(&in)
		b := newBuilder()
		if err := b.input(in); err != nil {
			t.Fatal(err)
		}
		return string(read.key(nil, b))
	}
	seen := map[string]string{}
	for name, change := range map[string]func(*writ.PolicyInput){
		"as it is":       func(*writ.PolicyInput) {},
		"nobody":         func(in *writ.PolicyInput) { in.Subject.Agent = nil },
		"no domain":      func(in *writ.PolicyInput) { in.Subject.Agent.Domain = "" },
		"no id":          func(in *writ.PolicyInput) { in.Subject.Agent.ID = "" },
		"only an id":     func(in *writ.PolicyInput) { in.Subject.Agent.Domain, in.Subject.Agent.ID = "", "web" },
		"the other way":  func(in *writ.PolicyInput) { in.Subject.Agent.Domain, in.Subject.Agent.ID = "builder-1", "web" },
		"zero bytes":     func(in *writ.PolicyInput) { in.Subject.Agent.Domain = "web\"\x00\"builder-1" },
		"no budget":      func(in *writ.PolicyInput) { in.Subject.Budget = nil },
		"other budget":   func(in *writ.PolicyInput) { in.Subject.Budget[0].Band = 80 },
		"claims of none": func(in *writ.PolicyInput) { in.Subject.Claimed = []string{} },
	} {
		k := key(change)
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s have one key %q", name, other, k)
		}
		seen[k] = name
	}
	for name, change := range map[string]func(*writ.PolicyInput){
		"status": func(in *writ.PolicyInput) { in.Subject.Agent.Status = writ.AgentSuspended },
		"task":   func(in *writ.PolicyInput) { in.Subject.Task = nil },
		"an unheard of limit": func(in *writ.PolicyInput) {
			in.Subject.Budget = append(in.Subject.Budget, writ.BudgetFacts{Dimension: "zeal"})
		},
	} {
		if k := key(change); seen[k] != "as it is" {
			t.Errorf("%s is not read, and the key is %q", name, k)
		}
	}
}

// The members of the input stand in the order of their places, so a key is made
// in one walk; and each place has the JSON of its value.
func TestPlaces(t *testing.T) {
	b := newBuilder()
	if err := b.input(full()); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(b.members, func(x, y member) int { return int(x.place) - int(y.place) }) {
		t.Fatal("the members are not in the order of their places: the keys were not made in order")
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(b.json, &doc); err != nil {
		t.Fatal(err)
	}
	want := map[place]string{}
	for top, v := range doc {
		want[placeOf(keys[top], nil)] = string(v)
		var below map[string]json.RawMessage
		if json.Unmarshal(v, &below) == nil {
			for name, v := range below {
				want[placeOf(keys[top], keys[name])] = string(v)
			}
		}
	}
	got := map[place]string{}
	for _, m := range b.members {
		got[m.place] = string(b.json[m.from:m.to])
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
