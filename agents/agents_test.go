package agents

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// room is a World with this room's capabilities by id.
type room struct {
	*writtest.World
	t    *testing.T
	caps map[writ.CapabilityID]*writ.Capability
	ops  writ.Caller
}

func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{World: writtest.New(), t: t, caps: map[writ.CapabilityID]*writ.Capability{}}
	for _, c := range Capabilities(Config{
		Secret:  SecretsFrom([]byte("0123456789abcdef0123456789abcdef")),
		Builtin: func(id writ.CapabilityID) bool { return id == "task.claim" },
		CheckSchema: func(s writ.RawObject) error {
			if strings.Contains(string(s), "$ref") {
				return writ.Refuse(writ.CodeInputInvalid, "", "references are refused", "")
			}
			return nil
		},
		PublicKey: func(pem string) (writ.PublicKey, error) {
			id, ok := strings.CutPrefix(pem, "pem of ")
			if !ok {
				return writ.PublicKey{}, errors.New("is no key")
			}
			return writ.PublicKey{ID: "SHA256:" + strings.TrimSpace(id), PEM: strings.TrimSpace(pem)}, nil
		},
	}) {
		r.caps[c.ID] = c
	}
	r.ops = r.Open(writ.RoleOperator, "olivia", "")
	return r
}

func (r *room) call(id writ.CapabilityID, by writ.Caller, args any) (writ.Reply, writ.Tx, error) {
	r.t.Helper()
	c := r.caps[id]
	if c == nil {
		r.t.Fatalf("there is no capability %s", id)
	}
	return r.Call(c, by, args)
}

func (r *room) must(id writ.CapabilityID, by writ.Caller, args any) writ.Reply {
	r.t.Helper()
	reply, _, err := r.call(id, by, args)
	if err != nil {
		r.t.Fatalf("%s: %v", id, err)
	}
	return reply
}

// refused wants a refusal with a code, and that nothing changed.
func (r *room) refused(code writ.Code, id writ.CapabilityID, by writ.Caller, args any) *writ.Error {
	r.t.Helper()
	before := len(r.Facts)
	_, _, err := r.call(id, by, args)
	if writ.CodeOf(err) != code {
		r.t.Fatalf("%s: got %v, want %s", id, err, code)
	}
	if len(r.Facts) != before {
		r.t.Fatalf("%s: refused, but left a fact", id)
	}
	e, _ := errors.AsType[*writ.Error](err)
	if e.Msg == "" || e.Hint == "" {
		r.t.Fatalf("%s: the refusal has no message or hint: %+v", id, e)
	}
	return e
}

func body[T any](t *testing.T, r writ.Reply) T {
	t.Helper()
	v, err := writtest.Body[T](r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func entry(id writ.AgentID, scopes ...string) *AgentRegisterArgs {
	return &AgentRegisterArgs{
		AgentID: id, Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "media", WriteScope: scopes,
		Tools: []writ.Tool{
			{Name: "site.build", Safety: writ.SafetyMutating},
			{Name: "site.drop", Safety: writ.SafetyBlocked, InputSchema: writ.RawObject(`{"type":"object"}`)},
		},
	}
}

func (r *room) active(id writ.AgentID, scopes ...string) {
	r.t.Helper()
	r.must("agent.register", r.ops, entry(id, scopes...))
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: id})
}

func TestAgentEveryMove(t *testing.T) {
	states := []writ.AgentState{"", writ.AgentPlanned, writ.AgentActive, writ.AgentSuspended, writ.AgentSuperseded, writ.AgentRetired}
	verbs := map[writ.CapabilityID]struct {
		to   writ.AgentState
		args any
	}{
		"agent.register":  {writ.AgentPlanned, entry("builder")},
		"agent.activate":  {writ.AgentActive, &AgentActivateArgs{AgentID: "builder"}},
		"agent.suspend":   {writ.AgentSuspended, &AgentSuspendArgs{AgentID: "builder"}},
		"agent.revoke":    {writ.AgentSuspended, &AgentRevokeArgs{AgentID: "builder"}},
		"agent.retire":    {writ.AgentRetired, &AgentRetireArgs{AgentID: "builder"}},
		"agent.supersede": {writ.AgentSuperseded, &AgentSupersedeArgs{AgentID: "builder", Successor: "next"}},
	}
	for id, v := range verbs {
		for _, from := range states {
			t.Run(fmt.Sprintf("%s from %q", id, from), func(t *testing.T) {
				r := newRoom(t)
				r.Seed(writ.AgentKey("next"), writ.ObjectAgent, r.World.Agent("next", "media", "site.build"))
				if from != "" {
					a := r.World.Agent("builder", "media", "site.build")
					a.State = from
					r.Seed(writ.AgentKey("builder"), writ.ObjectAgent, a)
				}
				switch {
				case from == "" && id != "agent.register":
					r.refused(writ.CodeNotFound, id, r.ops, v.args)
				case writ.AgentMoves.May(from, v.to) && !(id == "agent.suspend" && from != writ.AgentActive):
					reply := r.must(id, r.ops, v.args)
					got := body[AgentView](t, reply)
					if got.State != v.to || got.Version == 0 || reply.ETag != got.Version {
						t.Fatalf("got %+v, ETag %d", got, reply.ETag)
					}
					last := r.Facts[len(r.Facts)-1]
					want := []writ.Change{{Kind: "agent", ID: "builder", From: string(from), To: string(v.to)}}
					if !slices.Equal(last.Changes, want) || got.Receipt != last.Receipt {
						t.Fatalf("got %+v, want %+v", last, want)
					}
					if n := r.Counter(writ.RegistryRevision()); n != 1 {
						t.Fatalf("the registry's revision is %d, want 1", n)
					}
				default:
					e := r.refused(writ.CodeIllegal, id, r.ops, v.args)
					if e.Details["from"] != string(from) || e.Details["to"] != string(v.to) {
						t.Fatalf("got %v", e.Details)
					}
				}
			})
		}
	}
}

func TestRegisterSaysEverythingThatIsWrong(t *testing.T) {
	r := newRoom(t)
	a := entry("builder", "fs:repo/a", "fs:repo/../secret", "fs:repo/a/b/", "nope")
	a.Archetypes = []writ.Role{writ.RoleExecutor, writ.RoleExecutor}
	a.Tools = append(a.Tools,
		writ.Tool{Name: "site.build", Safety: writ.SafetyMutating},
		writ.Tool{Name: "task.claim", Safety: writ.SafetyMutating, InputSchema: writ.RawObject(`[1]`)},
		writ.Tool{Name: "site.ref", Safety: writ.SafetyMutating, InputSchema: writ.RawObject(`{"$ref":"x"}`)})
	e := r.refused(writ.CodeInputInvalid, "agent.register", r.ops, a)
	var got []string
	for _, f := range e.Fields {
		got = append(got, f.Pointer)
		if strings.Contains(f.Msg, "secret") {
			t.Errorf("%s repeats what was sent: %s", f.Pointer, f.Msg)
		}
	}
	want := []string{
		"/archetypes/1", "/tools/2/name", "/tools/3/name", "/tools/3/input_schema", "/tools/4/input_schema",
		"/write_scope/1", "/write_scope/2", "/write_scope/3",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q\nwant %q", got, want)
	}
	if n := r.Counter(writ.RegistryRevision()); n != 0 {
		t.Fatalf("the revision moved to %d", n)
	}
}

func TestRegisterBounds(t *testing.T) {
	r := newRoom(t)
	deep := entry("builder")
	for i := range 8 {
		deep.WriteScope = append(deep.WriteScope, fmt.Sprintf("fs:%d/%s", i, strings.Repeat("a/", 40)))
	}
	r.refused(writ.CodeInputInvalid, "agent.register", r.ops, deep)

	large := entry("builder")
	for i := range 60 {
		large.Tools = append(large.Tools, writ.Tool{
			Name: writ.CapabilityID(fmt.Sprintf("site.t%d", i)), Safety: writ.SafetyMutating,
			InputSchema: writ.RawObject(`{"title":"` + strings.Repeat("x", 2000) + `"}`),
		})
	}
	r.refused(writ.CodeTooLarge, "agent.register", r.ops, large)

	// The widest entry that is taken can also be activated: one transaction.
	wide := entry("builder")
	for i := range 32 {
		wide.WriteScope = append(wide.WriteScope, fmt.Sprintf("fs:w%d/a/b/c/d", i))
	}
	for i := range 62 {
		wide.Tools = append(wide.Tools, writ.Tool{Name: writ.CapabilityID(fmt.Sprintf("site.t%d", i)), Safety: writ.SafetyMutating})
	}
	r.must("agent.register", r.ops, wide)
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
}

func TestRegisterAgain(t *testing.T) {
	r := newRoom(t)
	first := r.must("agent.register", r.ops, entry("builder", "FS:repo/a"))
	if first.Outcome != writ.OutcomeCreated {
		t.Fatalf("got %s", first.Outcome)
	}
	v := body[AgentView](t, first)
	if !slices.Equal(v.WriteScope, []string{"fs:repo/a/"}) || v.MaxConcurrent != 4 {
		t.Fatalf("got %+v", v)
	}
	r.Advance(5)
	changed := entry("builder")
	changed.Domain, changed.MaxConcurrent = "finance", 9
	again := r.must("agent.register", r.ops, changed)
	w := body[AgentView](t, again)
	if again.Outcome != writ.OutcomeDone || w.Domain != "finance" || w.MaxConcurrent != 9 || w.CreatedAt != v.CreatedAt || w.UpdatedAt == v.UpdatedAt || w.Version <= v.Version {
		t.Fatalf("got %s %+v", again.Outcome, w)
	}

	c := r.caps["agent.register"]
	call := r.NewCall(c, r.ops, changed)
	call.IfVersion = v.Version
	if _, _, err := r.Do(c, call); writ.CodeOf(err) != writ.CodeVersion {
		t.Fatalf("a stale If-Match: got %v", err)
	}
	call = r.NewCall(c, r.ops, changed)
	call.IfVersion = w.Version
	if _, _, err := r.Do(c, call); err != nil {
		t.Fatal(err)
	}
}

func TestActivateIndexesAndSuspendUndoes(t *testing.T) {
	r := newRoom(t)
	r.active("builder", "fs:repo/a/", "mem:notes/")
	if got := r.Members(writ.IndexTools); !slices.Equal(got, []string{"site.build builder", "site.drop builder"}) {
		t.Fatalf("tools: %q", got)
	}
	if got := r.Members(ScopeIndex); !slices.Equal(got, []string{"fs:repo/a/ builder", "mem:notes/ builder"}) {
		t.Fatalf("scopes: %q", got)
	}
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
	if len(r.Members(writ.IndexTools)) != 0 || len(r.Members(ScopeIndex)) != 0 {
		t.Fatalf("left: %q %q", r.Members(writ.IndexTools), r.Members(ScopeIndex))
	}
	if got := r.Index(writ.IndexTodo)["agent builder"]; got != r.Now {
		t.Fatalf("the cascade is due at %d, want %d", got, r.Now)
	}
}

func TestActivateRefusesOverlap(t *testing.T) {
	for _, c := range []struct {
		mine, theirs string
		overlap      bool
	}{
		{"fs:repo/a/", "fs:repo/a/", true},
		{"fs:repo/a/b/", "fs:repo/a/", true},
		{"fs:repo/a/", "fs:repo/a/b/", true},
		{"fs:repo/plug/", "fs:repo/plugins/", false},
		{"fs:repo/a/", "mem:repo/a/", false},
	} {
		r := newRoom(t)
		r.active("first", c.theirs)
		r.must("agent.register", r.ops, entry("second", c.mine))
		args := &AgentActivateArgs{AgentID: "second"}
		if c.overlap {
			e := r.refused(writ.CodeScopeConflict, "agent.activate", r.ops, args)
			if e.Details["holder_agent"] != "first" {
				t.Errorf("%+v: got %v", c, e.Details)
			}
			r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "first"})
		}
		r.must("agent.activate", r.ops, args)
	}
}

// Two agents activated at the same time cannot both get an overlapping scope:
// the second commit meets the first one's guard.
func TestActivateRace(t *testing.T) {
	r := newRoom(t)
	r.must("agent.register", r.ops, entry("first", "fs:repo/"))
	r.must("agent.register", r.ops, entry("second", "fs:repo/a/"))
	c := r.caps["agent.activate"]
	p1, err := r.Plan(c, r.NewCall(c, r.ops, &AgentActivateArgs{AgentID: "first"}))
	if err != nil {
		t.Fatal(err)
	}
	p2, err := r.Plan(c, r.NewCall(c, r.ops, &AgentActivateArgs{AgentID: "second"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(p1); err != nil {
		t.Fatal(err)
	}
	var conflict *writtest.Conflict
	if _, err := r.Commit(p2); !errors.As(err, &conflict) {
		t.Fatalf("got %v, want a conflict", err)
	}
}

func TestActivateNeedsTools(t *testing.T) {
	r := newRoom(t)
	a := entry("builder")
	a.Tools = nil
	r.must("agent.register", r.ops, a)
	r.refused(writ.CodeIllegal, "agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	a.Archetypes = []writ.Role{writ.RoleVerifier}
	r.must("agent.register", r.ops, a)
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
}

func TestAgentToolsShowsBlocked(t *testing.T) {
	r := newRoom(t)
	r.must("agent.register", r.ops, entry("builder"))
	show := func() string {
		got := body[AgentTools](t, r.must("agent.tools", r.ops, &AgentToolsArgs{AgentID: "builder"}))
		return fmt.Sprint(got.State, " ", got.Tools[0].Callable, " ", got.Tools[1].Safety, " ", got.Tools[1].Callable)
	}
	if got := show(); got != "planned false blocked false" {
		t.Fatal(got)
	}
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	if got := show(); got != "active true blocked false" {
		t.Fatal(got)
	}
	r.refused(writ.CodeNotFound, "agent.tools", r.ops, &AgentToolsArgs{AgentID: "nobody"})
	r.refused(writ.CodeNotFound, "agent.info", r.ops, &AgentInfoArgs{AgentID: "nobody"})
}

func TestAgentListPages(t *testing.T) {
	r := newRoom(t)
	want := []string{"a-b", "ab", "ab-c", "b0", "zz"}
	for _, id := range want {
		r.must("agent.register", r.ops, entry(writ.AgentID(id)))
	}
	for limit := range int64(7) {
		var got []string
		after := writ.AgentID("")
		for range 10 {
			p := body[AgentList](t, r.must("agent.list", r.ops, &AgentListArgs{After: after, Limit: limit}))
			for _, a := range p.Agents {
				got = append(got, string(a.AgentID))
			}
			if p.Next == "" {
				break
			}
			after = writ.AgentID(p.Next)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("limit %d: got %q", limit, got)
		}
	}
}

// An agent's keys are read and kept in their one form, and replaced as a whole.
func TestAgentKeys(t *testing.T) {
	r := newRoom(t)
	with := func(keys ...string) *AgentRegisterArgs {
		a := entry("builder")
		a.Keys = keys
		return a
	}
	keys := func(reply writ.Reply) string {
		v, err := writtest.Body[AgentView](reply)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(v.Keys)
	}
	for _, tc := range []struct {
		keys []string
		at   string
	}{
		{[]string{"pem of a", "a"}, "/keys/1"},
		{[]string{"pem of a", "pem of a "}, "/keys/1"}, // written otherwise
		{[]string{"pem of a", "pem of b", "pem of c", "pem of d", "pem of e"}, "/keys/4"},
	} {
		e := r.refused(writ.CodeInputInvalid, "agent.register", r.ops, with(tc.keys...))
		if len(e.Fields) != 1 || e.Fields[0].Pointer != tc.at {
			t.Errorf("%q: got %v, want %s", tc.keys, e.Fields, tc.at)
		}
	}
	if got, want := keys(r.must("agent.register", r.ops, with("pem of a ", "pem of b"))), "[{SHA256:a pem of a} {SHA256:b pem of b}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := keys(r.must("agent.info", r.ops, &AgentInfoArgs{AgentID: "builder"})), "[{SHA256:a pem of a} {SHA256:b pem of b}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := keys(r.must("agent.register", r.ops, with("pem of c"))); got != "[{SHA256:c pem of c}]" {
		t.Errorf("got %s: another list replaces them all", got)
	}
	if got := keys(r.must("agent.register", r.ops, with())); got != "[]" {
		t.Errorf("got %s", got)
	}
}
