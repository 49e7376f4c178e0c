package grants_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/grants"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/writtest"
)

const build writ.CapabilityID = "site.build"

// lab is a shard with the room and the queue on it.
type lab struct {
	*writtest.World
	testing.TB
	verbs  map[writ.CapabilityID]*writ.Capability
	op     writ.Caller
	a, b   writ.Caller
	run    writ.RunID
	jailed bool
	tasks  int
}

func newLab(t testing.TB) *lab {
	l := &lab{World: writtest.New(), TB: t, verbs: map[writ.CapabilityID]*writ.Capability{}, jailed: true}
	l.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen, Schema: 1})
	for _, k := range append(grants.Capabilities(), queue.Capabilities(queue.Config{MinLeaseSeconds: 1})...) {
		l.verbs[k.ID] = k
	}
	l.run = l.Run("boss", 1000).ID
	l.op = l.Open(writ.RoleOperator, "olga", "")
	for _, id := range []writ.AgentID{"agent-a", "agent-b"} {
		a := l.Agent(id, "web", build)
		a.MaxConcurrent = 1000
		l.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
	}
	l.a, l.b = l.Open(writ.RoleExecutor, "worker-a", "agent-a"), l.Open(writ.RoleExecutor, "worker-b", "agent-b")
	return l
}

func (l *lab) plan(id writ.CapabilityID, by writ.Caller, args any) (*writtest.Planned, error) {
	l.Helper()
	call := l.NewCall(l.verbs[id], by, args)
	call.Jailed = l.jailed
	return l.Plan(l.verbs[id], call)
}

func (l *lab) try(id writ.CapabilityID, by writ.Caller, args any) (writ.Reply, error) {
	l.Helper()
	p, err := l.plan(id, by, args)
	if err != nil {
		return writ.Reply{}, err
	}
	if p.Reply.Errand != nil { // the door would add the fact of the intent
		p.Tx.Fact = &writ.Fact{}
		return p.Reply, l.Apply(p.Tx)
	}
	return l.Commit(p)
}

func (l *lab) do(id writ.CapabilityID, by writ.Caller, args any) writ.Reply {
	l.Helper()
	r, err := l.try(id, by, args)
	if err != nil {
		l.Fatalf("%s: %v", id, err)
	}
	return r
}

func (l *lab) refused(code writ.Code, id writ.CapabilityID, by writ.Caller, args any) *writ.Error {
	l.Helper()
	_, err := l.try(id, by, args)
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != code {
		l.Errorf("%s: got %v, want %s", id, err, code)
		return &writ.Error{}
	}
	return e
}

// work gives a task with labels to somebody.
func (l *lab) work(by writ.Caller, labels ...writ.Label) writ.TaskID {
	l.Helper()
	l.tasks++
	orc := l.Open(writ.RoleOrchestrator, "boss", "")
	r := l.do("task.enqueue", orc, &queue.TaskEnqueueArgs{Run: l.run, Key: "task-" + strings.Repeat("x", l.tasks), Capability: build, Domain: "web", Labels: labels})
	v, err := writtest.Body[queue.TaskView](r)
	if err != nil {
		l.Fatal(err)
	}
	l.do("task.claim", by, &queue.TaskClaimArgs{Task: v.ID})
	return v.ID
}

func good() *grants.EgressGrantArgs {
	return &grants.EgressGrantArgs{ID: "site-api", Host: "api.example.com", Agents: []writ.AgentID{"agent-a"}, Methods: []string{"GET", "POST"}, PathPrefix: "/v1", UpBytes: 100_000, DownBytes: 200_000}
}

func get(path string) *grants.EgressFetchArgs {
	return &grants.EgressFetchArgs{Grant: "site-api", Path: path, Method: "GET", Most: 1000}
}

// A grant is in its one form, for whom there is, or it is none.
func TestGrantsHaveOneForm(t *testing.T) {
	l := newLab(t)
	for name, change := range map[string]func(*grants.EgressGrantArgs){
		"host in upper case": func(a *grants.EgressGrantArgs) { a.Host = "API.example.com" }, "dot at the end": func(a *grants.EgressGrantArgs) { a.Host = "api.example.com." },
		"port in the host": func(a *grants.EgressGrantArgs) { a.Host = "api.example.com:443" }, "address in another base": func(a *grants.EgressGrantArgs) { a.Host = "0x7f.1" },
		"wildcard": func(a *grants.EgressGrantArgs) { a.Host = "*.example.com" }, "path with dots": func(a *grants.EgressGrantArgs) { a.PathPrefix = "/a/../b" },
		"path without slash": func(a *grants.EgressGrantArgs) { a.PathPrefix = "v1" }, "secrets may leave": func(a *grants.EgressGrantArgs) { a.Admits = []writ.Label{writ.LabelSecretToken} },
		"unheard of label": func(a *grants.EgressGrantArgs) { a.Admits = []writ.Label{"odd"} }, "tunnel with methods": func(a *grants.EgressGrantArgs) { a.Mode = writ.EgressTunnel },
		"tunnel to an address": func(a *grants.EgressGrantArgs) {
			a.Mode, a.Methods, a.PathPrefix, a.Host = writ.EgressTunnel, nil, "", "93.184.216.34"
		},
		"tunnel with a credential": func(a *grants.EgressGrantArgs) {
			a.Mode, a.Methods, a.PathPrefix, a.Credential = writ.EgressTunnel, nil, "", "stripe"
		},
		"everything private":      func(a *grants.EgressGrantArgs) { a.Private = []string{"0.0.0.0/0"} },
		"metadata":                func(a *grants.EgressGrantArgs) { a.Private = []string{"169.254.169.254/32"} },
		"more than it looks":      func(a *grants.EgressGrantArgs) { a.Private = []string{"10.1.2.3/8"} },
		"larger than what is":     func(a *grants.EgressGrantArgs) { a.Private = []string{"10.0.0.0/7"} },
		"no network":              func(a *grants.EgressGrantArgs) { a.Private = []string{"10.1.2.3"} },
		"IPv4 as IPv6":            func(a *grants.EgressGrantArgs) { a.Private = []string{"::ffff:10.0.0.0/104"} },
		"credential with no name": func(a *grants.EgressGrantArgs) { a.Credential = "Not A Slug" },
		"unheard of mode":         func(a *grants.EgressGrantArgs) { a.Mode = "raw" },
	} {
		a := good()
		change(a)
		if e := l.refused(writ.CodeInputInvalid, "egress.grant", l.op, a); len(e.Fields) == 0 {
			t.Errorf("%s: %v", name, e)
		}
	}
	a := good()
	a.Agents = []writ.AgentID{"nobody"}
	l.refused(writ.CodeNotFound, "egress.grant", l.op, a)
	a = good()
	a.Run = writ.RunID(l.NewID(writ.PrefixRun))
	l.refused(writ.CodeNotFound, "egress.grant", l.op, a)
	for _, ok := range []string{"10.1.0.0/16", "127.0.0.1/32", "192.168.0.0/16", "fd00::/8", "::1/128"} {
		a := good()
		a.Private = []string{ok}
		l.do("egress.grant", l.op, a)
	}
}

// No agent, and nobody an agent stands behind, decides where agents go.
func TestPeopleGrant(t *testing.T) {
	l := newLab(t)
	for _, by := range []writ.Caller{
		l.a,
		{Role: writ.RoleOperator, Principal: "bot", Kind: writ.KindAgent},
		{Role: writ.RoleOperator, Principal: "olga", Kind: writ.KindHuman, Behind: []writ.AgentID{"agent-a"}},
	} {
		l.refused(writ.CodeSoD, "egress.grant", by, good())
	}
	l.do("egress.grant", l.op, good())
	l.refused(writ.CodeSoD, "egress.revoke", l.a, &grants.GrantArgs{ID: "site-api"})
}

// A grant is used as it is, by whom it names, for a task.
func TestFetch(t *testing.T) {
	l := newLab(t)
	l.refused(writ.CodeNotHolder, "egress.fetch", l.a, get("/v1/x"))
	task := l.work(l.a, writ.LabelInternalSystem)
	l.refused(writ.CodeEgress, "egress.fetch", l.a, get("/v1/x"))
	l.do("egress.grant", l.op, good())
	p, err := l.plan("egress.fetch", l.a, get("/v1/x?y"))
	if err != nil {
		t.Fatal(err)
	}
	e := p.Reply.Errand.Detail.(writ.EgressErrand)
	if e.Grant.Host != "api.example.com" || e.Method != "GET" || e.Path != "/v1/x" || e.Query != "y" || p.Reply.Errand.TimeoutMs != 60_000 || p.Reply.Errand.While[0] != writ.EgressGrantKey("site-api") {
		t.Errorf("%+v", p.Reply.Errand)
	}
	if held, _, _ := writtest.Get[writ.Task](l.World, writ.TaskKey(task)); p.Reply.Errand.Task != task || p.Reply.Errand.Lease != held.Lease.ID || !slices.Equal(p.Reply.Errand.Labels, held.Labels) {
		t.Errorf("it goes on while %+v", p.Reply.Errand)
	}
	f := p.Subject.Egress
	if p.Subject.Task.ID != task || p.Subject.Run.ID != l.run || f.Scheme != "https" || !f.Jailed || !f.Grant.Found || !f.Grant.Live || !f.Grant.Method || !f.Grant.Path || f.Private || f.Secret || !f.Pinned {
		t.Errorf("%+v %+v", p.Subject, f)
	}
	if c := p.Subject.Charge; c[writ.BudgetEgress] != e.Up || c[writ.BudgetIngress] != e.Down || e.Up > 100_000 || e.Down > 1000+24<<10 {
		t.Errorf("%v, %+v", c, e)
	}
	for name, c := range map[string]struct {
		args *grants.EgressFetchArgs
		code writ.Code
	}{
		"another path":    {get("/v2"), writ.CodeEgress},
		"near the path":   {get("/v10"), writ.CodeEgress},
		"dots":            {get("/v1/../v2"), writ.CodeEgress},
		"escaped dots":    {get("/v1/%2e%2e/v2"), writ.CodeEgress},
		"another method":  {&grants.EgressFetchArgs{Grant: "site-api", Path: "/v1", Method: "DELETE"}, writ.CodeEgress},
		"another grant":   {&grants.EgressFetchArgs{Grant: "other", Path: "/v1"}, writ.CodeEgress},
		"another host":    {&grants.EgressFetchArgs{URL: "https://other.example.com/v1"}, writ.CodeEgress},
		"another port":    {&grants.EgressFetchArgs{URL: "https://api.example.com:444/v1"}, writ.CodeEgress},
		"another scheme":  {&grants.EgressFetchArgs{URL: "http://api.example.com:443/v1"}, writ.CodeEgress},
		"a subdomain":     {&grants.EgressFetchArgs{URL: "https://x.api.example.com/v1"}, writ.CodeEgress},
		"upper case":      {&grants.EgressFetchArgs{URL: "https://API.example.com/v1"}, writ.CodeEgress},
		"a user":          {&grants.EgressFetchArgs{URL: "https://u@api.example.com/v1"}, writ.CodeEgress},
		"a file":          {&grants.EgressFetchArgs{URL: "file:///etc/passwd"}, writ.CodeEgress},
		"both":            {&grants.EgressFetchArgs{Grant: "site-api", URL: "https://api.example.com/v1"}, writ.CodeInputInvalid},
		"neither":         {&grants.EgressFetchArgs{}, writ.CodeInputInvalid},
		"a tunnel":        {&grants.EgressFetchArgs{URL: "api.example.com:443", Mode: writ.EgressTunnel}, writ.CodeInputInvalid},
		"a stream":        {&grants.EgressFetchArgs{Grant: "site-api", Path: "/v1", Length: new(int64)}, writ.CodeInputInvalid},
		"a header of two": {&grants.EgressFetchArgs{Grant: "site-api", Path: "/v1", Headers: map[string]string{"X": "a\r\nY: b"}}, writ.CodeInputInvalid},
		"a header's name": {&grants.EgressFetchArgs{Grant: "site-api", Path: "/v1", Headers: map[string]string{"X:": "a"}}, writ.CodeInputInvalid},
		"a body":          {&grants.EgressFetchArgs{Grant: "site-api", Path: "/v1", Body: "!", Code: "base64"}, writ.CodeInputInvalid},
		"kind of data":    {&grants.EgressFetchArgs{Grant: "site-api", Path: "/v1", Labels: []writ.Label{writ.LabelPIIRedacted}}, writ.CodeClassification},
		"unknown data":    {&grants.EgressFetchArgs{Grant: "site-api", Path: "/v1", Labels: []writ.Label{"odd"}}, writ.CodeClassification},
	} {
		if e := l.refused(c.code, "egress.fetch", l.a, c.args); e.Code != c.code {
			t.Errorf("%s", name)
		}
	}
	l.do("egress.fetch", l.a, &grants.EgressFetchArgs{URL: "https://api.example.com/v1/z", Method: "POST", Body: "hi"})

	// Another agent is told what one is told for whom there is no grant at all.
	l.work(l.b, writ.LabelInternalSystem)
	other := l.refused(writ.CodeEgress, "egress.fetch", l.b, get("/v1/x"))
	none := l.refused(writ.CodeEgress, "egress.fetch", l.b, &grants.EgressFetchArgs{Grant: "nothing", Path: "/v1/x", Method: "GET"})
	if other.Msg != none.Msg || other.Hint != none.Hint {
		t.Errorf("%v and %v", other, none)
	}
	if p, err := l.Plan(l.verbs["egress.grants"], l.NewCall(l.verbs["egress.grants"], l.b, &grants.EgressGrantsArgs{})); err != nil || len(p.Reply.Body.(grants.EgressGrants).Grants) != 0 {
		t.Errorf("another agent sees %+v, %v", p, err)
	}
}

// What agents were given they may send: all of it, and what kind it is says nobody but
// those who gave it.
func TestLabelsGoAlong(t *testing.T) {
	l := newLab(t)
	l.do("egress.grant", l.op, good())
	first := l.work(l.a, writ.LabelInternalSystem)
	l.do("egress.fetch", l.a, get("/v1"))
	l.work(l.a, writ.LabelPIIChatMessage)
	l.refused(writ.CodeInputInvalid, "egress.fetch", l.a, get("/v1")) // for which of them?
	a := get("/v1")
	a.Task = first
	l.refused(writ.CodeClassification, "egress.fetch", l.a, a)
	p := good()
	p.Admits = []writ.Label{writ.LabelPIIChatMessage, writ.LabelInternalSystem}
	l.do("egress.grant", l.op, p)
	l.do("egress.fetch", l.a, a)
	a.Task = writ.TaskID(l.NewID(writ.PrefixTask))
	l.refused(writ.CodeInputInvalid, "egress.fetch", l.a, a)
}

// What an agent has read it still knows when it gives the task back: the session goes on
// with the labels of every task it has had.
func TestLabelsStayWithTheSession(t *testing.T) {
	l := newLab(t)
	l.do("egress.grant", l.op, good())
	task := l.work(l.a, writ.LabelPIIRedacted)
	held, version, _ := writtest.Get[writ.Task](l.World, writ.TaskKey(task))
	l.do("task.release", l.a, &queue.TaskReleaseArgs{TaskHold: queue.TaskHold{Task: task, Lease: held.Lease.ID, Fence: held.FenceOf(version)}})
	l.work(l.a, writ.LabelInternalSystem)
	l.refused(writ.CodeClassification, "egress.fetch", l.a, get("/v1"))
	p := good()
	p.Admits = []writ.Label{writ.LabelPIIRedacted, writ.LabelInternalSystem}
	l.do("egress.grant", l.op, p)
	if got, err := l.plan("egress.fetch", l.a, get("/v1")); err != nil || !slices.Equal(got.Subject.Labels, []writ.Label{writ.LabelInternalSystem, writ.LabelPIIRedacted}) {
		t.Errorf("policy is told of %v, %v", got, err)
	}
}

// A grant ends: with its time, when it is taken back, and with the lease it is used
// under.
func TestGrantsEnd(t *testing.T) {
	l := newLab(t)
	a := good()
	a.ExpiresInS = 10
	l.do("egress.grant", l.op, a)
	l.work(l.a, writ.LabelInternalSystem)
	p, err := l.plan("egress.fetch", l.a, get("/v1"))
	if err != nil || p.Reply.Errand.TimeoutMs != 10_000 {
		t.Fatalf("%+v, %v", p, err)
	}
	l.Advance(10)
	p.Tx.Fact = &writ.Fact{}
	if err := l.Apply(p.Tx); err == nil {
		t.Error("it commits after the end of the grant")
	}
	l.refused(writ.CodeEgress, "egress.fetch", l.a, get("/v1"))
	a.ExpiresInS = 86400
	l.do("egress.grant", l.op, a)
	l.do("egress.fetch", l.a, get("/v1"))
	if p, err = l.plan("egress.fetch", l.a, get("/v1")); err != nil {
		t.Fatal(err)
	}
	l.do("egress.revoke", l.op, &grants.GrantArgs{ID: "site-api"})
	p.Tx.Fact = &writ.Fact{}
	if err := l.Apply(p.Tx); err == nil {
		t.Error("it commits after the grant was taken back")
	}
	l.refused(writ.CodeEgress, "egress.fetch", l.a, get("/v1"))
	l.refused(writ.CodeIllegal, "egress.revoke", l.op, &grants.GrantArgs{ID: "site-api"})
	if n := len(l.Members(writ.IndexEgress)) + len(l.Members(writ.IndexEgressHosts)); n != 0 || l.Counter(writ.EgressBegun("site-api")) != 0 {
		t.Errorf("%d entries are left", n)
	}
	l.do("egress.grant", l.op, good())
	l.do("egress.fetch", l.a, get("/v1"))
	l.Advance(3600)
	l.refused(writ.CodeNotHolder, "egress.fetch", l.a, get("/v1")) // nobody kept the lease
}

// No more begins in a second than may.
func TestRate(t *testing.T) {
	l := newLab(t)
	a := good()
	a.Rate = 3
	l.do("egress.grant", l.op, a)
	l.work(l.a, writ.LabelInternalSystem)
	for range 3 {
		for range 3 {
			l.do("egress.fetch", l.a, get("/v1"))
		}
		if e := l.refused(writ.CodeQuota, "egress.fetch", l.a, get("/v1")); e.RetryMs == 0 {
			t.Error("nobody says when to come again")
		}
		l.Advance(1)
	}
	for _, first := range []bool{true, false} { // in its second or not
		l.Advance(1)
		if !first {
			l.do("egress.fetch", l.a, get("/v1"))
		}
		one, err := l.plan("egress.fetch", l.a, get("/v1"))
		if err != nil {
			t.Fatal(err)
		}
		for l.Counter(writ.EgressBegun("site-api")) < 3 || l.Counter(writ.EgressSecond("site-api")) != l.Now/1000 {
			l.do("egress.fetch", l.a, get("/v1"))
		}
		one.Tx.Fact = &writ.Fact{}
		if err := l.Apply(one.Tx); err == nil {
			t.Error("a fourth begins, judged before the three")
		}
	}
}

// A change moves a grant in its lists, and the run of a grant is the only one.
func TestChange(t *testing.T) {
	l := newLab(t)
	l.do("egress.grant", l.op, good())
	a := good()
	a.Host, a.Run = "b.example.com", l.run
	l.do("egress.grant", l.op, a)
	if got := strings.Join(l.Members(writ.IndexEgressHosts), " "); got != "b.example.com:443 site-api" {
		t.Error(got)
	}
	l.work(l.a, writ.LabelInternalSystem)
	l.do("egress.fetch", l.a, get("/v1"))
	a.Run = l.Run("boss", 10).ID
	l.do("egress.grant", l.op, a)
	l.refused(writ.CodeEgress, "egress.fetch", l.a, get("/v1"))
}

// However many grants others have for a host, and however many are over, an agent's own
// is found; where more are than are looked at it is told so, and can name it.
func TestManyGrantsForAHost(t *testing.T) {
	l := newLab(t)
	l.work(l.a, writ.LabelInternalSystem)
	tunnel := func() *grants.EgressGrantArgs {
		g := good()
		g.Mode, g.Methods, g.PathPrefix = writ.EgressTunnel, nil, ""
		return g
	}
	fill := func(prefix string, n int, agent writ.AgentID) {
		for i := range n {
			g := tunnel()
			g.ID, g.Agents, g.ExpiresInS = writ.EgressID(fmt.Sprintf("%s-%03d", prefix, i)), []writ.AgentID{agent}, 10
			l.do("egress.grant", l.op, g)
		}
	}
	ask := func(kind string) (writ.EgressID, error) {
		a := &grants.EgressFetchArgs{URL: "https://api.example.com/v1/x", Method: "GET", Most: 1000}
		if kind == "tunnel" {
			a = &grants.EgressFetchArgs{URL: "api.example.com:443", Mode: writ.EgressTunnel}
		}
		call := l.NewCall(l.verbs["egress.fetch"], l.a, a)
		call.Jailed, call.Streams = true, struct{}{}
		p, err := l.Plan(l.verbs["egress.fetch"], call)
		if err != nil {
			return "", err
		}
		p.Tx.Fact = &writ.Fact{}
		return p.Reply.Errand.Detail.(writ.EgressErrand).Grant.ID, l.Apply(p.Tx)
	}
	fill("b", 63, "agent-b")
	fill("c", 63, "agent-a") // its own, and over by then
	l.Advance(10)
	mine, through := good(), tunnel()
	mine.ID, through.ID = "mine", "mine-too"
	l.do("egress.grant", l.op, mine)
	l.do("egress.grant", l.op, through)
	for kind, want := range map[string]writ.EgressID{"request": "mine", "tunnel": "mine-too"} {
		if got, err := ask(kind); got != want || err != nil {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
	}
	fill("z", 2, "agent-b") // behind them: they are found still
	for kind, want := range map[string]writ.EgressID{"request": "mine", "tunnel": "mine-too"} {
		if got, err := ask(kind); got != want || err != nil {
			t.Errorf("%s, with more than are looked at: %q, %v", kind, got, err)
		}
	}
	fill("a", 2, "agent-b") // before them: they come too late
	for _, kind := range []string{"request", "tunnel"} {
		_, err := ask(kind)
		if e, ok := errors.AsType[*writ.Error](err); !ok || e.Code != writ.CodeEgress || !strings.Contains(e.Msg, "more grants") || strings.Contains(e.Msg+e.Hint, "example.com") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	a := get("/v1/x")
	a.Grant = "mine"
	l.do("egress.fetch", l.a, a)
	l.do("egress.revoke", l.op, &grants.GrantArgs{ID: "c-000"})
	l.do("egress.revoke", l.op, &grants.GrantArgs{ID: "c-001"})
	if got, err := ask("tunnel"); got != "mine-too" || err != nil {
		t.Errorf("after some are revoked: %q, %v", got, err)
	}
}

// A credential goes to its own host.
func TestCredential(t *testing.T) {
	l := newLab(t)
	l.work(l.a, writ.LabelInternalSystem)
	a := good()
	a.Credential = "stripe"
	l.do("egress.grant", l.op, a)
	l.refused(writ.CodeUnavailable, "egress.fetch", l.a, get("/v1"))
	id := writ.SecretID(l.NewID(writ.PrefixSecret))
	put := func(host string) {
		l.Seed(writ.SecretNameKey("stripe"), "secretname", writ.SecretName{ID: id})
		l.Seed(writ.SecretKey(id), writ.ObjectSecret, writ.Secret{ID: id, Name: "stripe", State: writ.SecretStored, Version: 3, Host: host, Header: "Authorization", Template: "Bearer {{secret}}"})
	}
	put("other.example.com")
	l.refused(writ.CodeEgress, "egress.fetch", l.a, get("/v1"))
	put("api.example.com")
	p, err := l.plan("egress.fetch", l.a, get("/v1"))
	if err != nil || len(p.Reply.Errand.Secrets) != 1 || p.Reply.Errand.Secrets[0] != (writ.SecretUse{ID: id, Version: 3}) || len(p.Reply.Errand.While) != 2 || !p.Subject.Egress.Secret || !p.Subject.Egress.Pinned {
		t.Errorf("%+v, %v", p, err)
	}
}
