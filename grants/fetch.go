package grants

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/target"
)

// EgressFetchArgs say what is wanted of whom.
type EgressFetchArgs struct {
	Grant   writ.EgressID     `json:"grant,omitempty" doc:"Grant to use; path says where under it. Or give to." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	URL     string            `json:"to,omitempty" doc:"URL in its one spelling; a grant for it is looked up. Or give grant and path." maxLength:"4096"`
	Path    string            `json:"path,omitempty" doc:"Path and query under the grant. Default: /." maxLength:"4096"`
	Method  string            `json:"method,omitempty" doc:"Method." enum:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS" default:"GET"`
	Headers map[string]string `json:"headers,omitempty" doc:"Headers, 32 at most. Credentials and what frames the request are left out: the gateway puts its own in."`
	Body    string            `json:"body,omitempty" doc:"Body, as encoding says." maxLength:"65536"`
	Code    string            `json:"encoding,omitempty" doc:"How body is written." enum:"text,base64" default:"text"`
	Most    int64             `json:"max_bytes,omitempty" doc:"Bytes of the answer that are taken; more are refused." default:"65536" minimum:"1" maximum:"1048576"`
	Task    writ.TaskID       `json:"task_id,omitempty" doc:"The task it is for, if the session holds more than one." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Labels  []writ.Label      `json:"labels,omitempty" doc:"Kinds of data that are sent, besides those the session has been given with its tasks." maxItems:"9"`
	Mode    writ.EgressMode   `json:"mode,omitempty" doc:"How it goes out. A tunnel is opened with CONNECT only." enum:"request,tunnel" default:"request"`
	Length  *int64            `json:"length,omitempty" doc:"Bytes of the body that is streamed; said by the gateway." minimum:"-1"`
}

// EgressFetched is what a host said.
type EgressFetched struct {
	Effect  writ.EffectID     `json:"effect_id" doc:"The effect."`
	Intent  writ.ReceiptID    `json:"intent" doc:"Receipt of what was permitted; that of the call says what became of it."`
	Status  int64             `json:"status" doc:"Status of the answer; 0 for a tunnel."`
	Headers map[string]string `json:"headers" doc:"Headers of the answer, without credentials and what framed it."`
	Body    string            `json:"body" doc:"Body of the answer, as encoding says."`
	Code    string            `json:"encoding" doc:"How body is written." enum:"text,base64"`
	Up      int64             `json:"up_bytes" doc:"Bytes sent, heads included."`
	Down    int64             `json:"down_bytes" doc:"Bytes received, heads included."`
}

const (
	opFetch    = "grants.Fetch"
	maxHeaders = 32
	maxHeld    = 16 // tasks of a session that are looked at
	headBytes  = 24 << 10
)

// fetch is the one way out: whatever agents do outside is a call of it.
func fetch() *writ.Capability {
	return writ.Define[EgressFetchArgs, EgressFetched](writ.Capability{
		ID: "egress.fetch", Class: writ.Effectful, Effects: []string{"network"}, Safety: writ.SafetyMutating, Steps: 1, Summary: "Have a request made to a host outside, under a grant.",
		Example: `{"grant":"github-api","path":"/repos/writ-gateway/writ","task_id":"tsk_01M89R8776FSMT3FKAH3617HBC"}`,
	}, writ.Verb[EgressFetchArgs]{
		Reads: fetchReads, Describe: fetchDescribe, Plan: fetchPlan,
	})
}

// wish reads what is wanted.
func (a *EgressFetchArgs) wish() (w wish, err error) {
	w = wish{mode: a.Mode, method: a.Method}
	wrong := func(pointer, msg string) (wish, error) {
		return w, &writ.Error{Code: writ.CodeInputInvalid, Op: opFetch, Fields: []writ.FieldError{{Pointer: pointer, Msg: msg}}, Msg: "this is no request that can be made", Hint: "correct the field named in errors"}
	}
	elsewhere := func(err error) (wish, error) {
		return w, &writ.Error{Code: writ.CodeEgress, Op: opFetch, Msg: "where the request goes is not written in the one way there is", Hint: "hosts are lower-case names without a dot at the end; paths have no empty parts, dots or needless escapes", Err: err}
	}
	if w.mode == "" {
		w.mode = writ.EgressRequest
	}
	if w.method == "" {
		w.method = "GET"
	}
	switch {
	case (a.Grant == "") == (a.URL == ""):
		return wrong("/grant", "give a grant, or a URL")
	case a.URL != "" && a.Path != "":
		return wrong("/path", "goes with a grant; a URL has its own")
	case w.mode == writ.EgressTunnel:
		if w.to, err = target.Parse(a.URL); err != nil {
			return elsewhere(err)
		}
		w.method = ""
	case a.URL != "":
		if w.scheme, w.to, w.path, w.query, err = target.ParseURL(a.URL); err != nil {
			return elsewhere(err)
		}
	default:
		if w.path, w.query, err = target.ParseRequest(a.Path); err != nil {
			return elsewhere(err)
		}
	}
	if len(a.Headers) > maxHeaders {
		return wrong("/headers", "are more than 32")
	}
	for name, value := range a.Headers {
		if !validHeader(name, value) {
			return wrong("/headers", "names are tokens, values have no control characters")
		}
	}
	if _, err := a.body(); err != nil {
		return wrong("/body", "is not what encoding says")
	}
	return w, nil
}

// Bytes is the body that is to be sent.
func (a *EgressFetchArgs) Bytes() []byte { b, _ := a.body(); return b }

func (a *EgressFetchArgs) body() ([]byte, error) {
	if a.Code == "base64" {
		return base64.StdEncoding.Strict().DecodeString(a.Body)
	}
	return []byte(a.Body), nil
}

func validHeader(name, value string) bool {
	if name == "" || len(name) > 128 || len(value) > 8192 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return !strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// work is what the caller holds: the task it acts for and all others.
type work struct {
	task  writ.Task
	is    bool
	tasks []writ.Task
	run   writ.Run
}

func heldBy(c *writ.Call) writ.Range {
	return writ.Range{Index: writ.SessionTasks(c.Caller.Session), Limit: maxHeld + 1}
}

// workOf finds the task a call is for: the one it names, or the only one its session
// holds.
func (a *EgressFetchArgs) workOf(c *writ.Call, s writ.Snapshot) (w work, err error) {
	for _, m := range s.Ranges[heldBy(c)].Members {
		key := writ.TaskKey(writ.TaskID(m.Name))
		if !s.Has(key) {
			continue
		}
		t, _, ok, err := writ.Get[writ.Task](s, key)
		if err != nil {
			return w, err
		}
		if !ok || t.Lease == nil || t.Lease.Session != c.Caller.Session {
			continue
		}
		w.tasks = append(w.tasks, t)
		if a.Task == t.ID {
			w.task, w.is = t, true
		}
	}
	if a.Task == "" && len(w.tasks) == 1 {
		w.task, w.is = w.tasks[0], true
	}
	if w.is && s.Has(writ.RunKey(w.task.Run)) {
		w.run, _, _, err = writ.Get[writ.Run](s, writ.RunKey(w.task.Run))
	}
	return w, err
}

func fetchReads(c *writ.Call, a *EgressFetchArgs, s writ.Snapshot) (writ.ReadSet, error) {
	to, err := a.wish()
	if err != nil {
		return writ.ReadSet{}, err
	}
	rs := a.candidates(to, s)
	rs.Ranges = append(rs.Ranges, heldBy(c))
	rs.Docs = append(rs.Docs, writ.GivenKey(c.Caller.Session))
	for _, m := range s.Ranges[heldBy(c)].Members {
		id := writ.TaskID(m.Name)
		rs.Docs = append(rs.Docs, writ.TaskKey(id))
		rs.Counters = append(rs.Counters, writ.TaskLease(id))
	}
	w, err := a.workOf(c, s)
	if err != nil || !w.is {
		return rs, err
	}
	rs.Docs = append(rs.Docs, writ.RunKey(w.task.Run))
	for _, dim := range metered {
		rs.Counters = append(rs.Counters, writ.BudgetUsed(w.task.Run, dim))
	}
	if len(s.Missing(a.candidates(to, s)).Docs) > 0 {
		return rs, nil
	}
	f, err := a.find(c, to, w.task.Run, s)
	if err == nil && !f.all() && a.crowded(to, s) { // before policy says that there is no grant: nobody knows
		err = writ.Refuse(writ.CodeEgress, opFetch, "there are more grants for this host than are looked at, and none of those looked at lets this agent do that",
			"name the grant, if it is no tunnel; operators: revoke grants for the host that are over, or give this one a name that comes before theirs")
	}
	if err != nil || !f.is {
		return rs, err
	}
	rs.Counters = append(rs.Counters, writ.EgressSecond(f.grant.ID), writ.EgressBegun(f.grant.ID))
	if f.grant.Credential != "" {
		rs = rs.Join(writ.SecretReads(f.grant.Credential, s))
	}
	return rs, nil
}

// metered are the dimensions bytes are counted in.
var metered = []string{writ.BudgetEgress, writ.BudgetIngress}

// charge is what is set aside: what the exchange may take at most, or what is left if
// that is less.
func (a *EgressFetchArgs) charge(c *writ.Call, f found, w work, s writ.Snapshot) writ.Charge {
	up, down := f.grant.UpBytes, f.grant.DownBytes
	switch {
	case a.Length != nil && *a.Length >= 0:
		up = min(up, *a.Length+headBytes)
	case a.Length == nil:
		up = min(up, int64(len(a.Body))+headBytes)
	}
	if c.Streams == nil {
		down = min(down, a.Most+headBytes)
	}
	out := writ.Charge{writ.BudgetEgress: up, writ.BudgetIngress: down}
	for _, dim := range metered {
		if limit, ok := w.run.Limited(dim); ok {
			if left := limit - s.Counters[writ.BudgetUsed(w.run.ID, dim)]; left > 0 {
				out[dim] = min(out[dim], left)
			}
		}
	}
	return out
}

func fetchDescribe(c *writ.Call, a *EgressFetchArgs, s writ.Snapshot) (sub writ.Subject, err error) {
	to, err := a.wish()
	if err != nil {
		return sub, err
	}
	w, err := a.workOf(c, s)
	if err != nil {
		return sub, err
	}
	sub.Sinks = []writ.Sink{writ.SinkEgress}
	if sub.Labels, err = a.labels(c, w, s); err != nil {
		return sub, err
	}
	f, err := a.find(c, to, w.task.Run, s)
	if err != nil {
		return sub, err
	}
	if w.is {
		sub.Run = &writ.RunFacts{ID: w.run.ID, State: w.run.State}
		sub.Task = &writ.TaskFacts{ID: w.task.ID, State: w.task.State, Capability: w.task.Capability, Domain: w.task.Domain, Safety: w.task.Safety, Approval: w.task.Approval}
		if sub.Task.Approval == "" {
			sub.Task.Approval = writ.ApprovalAuto
		}
		sub.Charge = a.charge(c, f, w, s)
	}
	g := f.grant
	sub.Egress = &writ.EgressFacts{
		Scheme: to.scheme, NewHost: !f.is, Pinned: f.is, Jailed: c.Jailed,
		Grant: &writ.EgressGrantFacts{
			ID: g.ID, Found: f.is && f.mode && f.run, Live: f.live, Method: f.method, Path: f.path, Private: len(g.Private) > 0, Mode: to.mode, Admits: g.Admits,
		},
	}
	if f.is {
		sub.Egress.Scheme, sub.Egress.Private = g.Scheme, len(g.Private) > 0
	}
	if g.Credential != "" {
		_, err := writ.UseSecret(s, g.Credential, secretHost(g))
		sub.Egress.Secret, sub.Egress.Pinned = true, err == nil
	}
	return sub, nil
}

// secretHost is the host of a grant as secrets are pinned to it.
func secretHost(g writ.EgressGrant) string {
	t := target.Target{Host: g.Host, Port: uint16(g.Port)}
	return strings.TrimSuffix(t.String(), ":443")
}

func fetchPlan(c *writ.Call, a *EgressFetchArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
	refuse := func(code writ.Code, msg, hint string) (writ.Tx, writ.Reply, error) {
		return writ.Tx{}, writ.Reply{}, writ.Refuse(code, opFetch, msg, hint)
	}
	to, err := a.wish()
	if err != nil {
		return tx, reply, err
	}
	w, err := a.workOf(c, s)
	if err != nil {
		return tx, reply, err
	}
	switch {
	case (to.mode == writ.EgressTunnel || a.Length != nil) && c.Streams == nil:
		return refuse(writ.CodeInputInvalid, "a tunnel, and a body of its own, come over a connection of the agent's", "use CONNECT, or /egress/<grant>/<path>")
	case !w.is && len(w.tasks) > 1:
		return refuse(writ.CodeInputInvalid, "the session holds several tasks, and this call does not say for which it is", "give task_id, or hold one task")
	case !w.is, w.task.State != writ.TaskRunning, s.Now > s.Counters[writ.TaskLease(w.task.ID)]:
		return refuse(writ.CodeNotHolder, "nobody acts outside but for a task it holds", "claim the task first, and keep its lease with heartbeats")
	case len(s.Ranges[heldBy(c)].Members) > maxHeld:
		return refuse(writ.CodeInputInvalid, "the session holds too many tasks to say what data it has been given", "hold fewer at a time")
	}
	f, err := a.find(c, to, w.task.Run, s)
	if err != nil {
		return tx, reply, err
	}
	switch {
	case !f.is || !f.all():
		return refuse(writ.CodeEgress, "no grant lets this agent do that", "operators give grants with egress.grant; egress.grants shows those there are for you")
	case !c.Jailed && f.grant.Mode == writ.EgressTunnel:
		return refuse(writ.CodeEgress, "tunnels are for agents in a jail", "have the gateway make the request")
	}
	labels, err := a.labels(c, w, s)
	if err != nil {
		return tx, reply, err
	}
	for _, l := range labels {
		if !slices.Contains(f.grant.Admits, l) {
			return refuse(writ.CodeClassification, "the grant does not admit what kind of data this is", "egress.grants shows which kinds it does")
		}
	}
	g, sub := f.grant, a.charge(c, f, w, s)
	errand := &writ.Errand{
		TimeoutMs: min(g.TimeMs, g.ExpiresAt-s.Now), While: []writ.Key{writ.EgressGrantKey(g.ID)},
		Task: w.task.ID, Lease: w.task.Lease.ID, Labels: labels,
	}
	if g.Credential != "" {
		use, err := writ.UseSecret(s, g.Credential, secretHost(g))
		if err != nil {
			return tx, reply, err
		}
		errand.Secrets, errand.While = []writ.SecretUse{use}, append(errand.While, writ.SecretKey(use.ID))
	}
	errand.Detail = writ.EgressErrand{Grant: g, Version: f.version, Method: to.method, Path: to.path, Query: to.query, Up: sub[writ.BudgetEgress], Down: sub[writ.BudgetIngress]}
	if err := begin(&tx, g, s); err != nil {
		return writ.Tx{}, reply, err
	}
	tx.NotAfter(s.Counters[writ.TaskLease(w.task.ID)])
	tx.NotAfter(g.ExpiresAt - 1)
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: EgressFetched{Headers: map[string]string{}, Code: "text"}, Errand: errand}, nil
}

// labels is what is sent counted as: what the call says, what the session has been given
// so far, and what the tasks it holds carry.
func (a *EgressFetchArgs) labels(c *writ.Call, w work, s writ.Snapshot) ([]writ.Label, error) {
	given, err := writ.GivenTo(s, c.Caller.Session)
	sets := [][]writ.Label{a.Labels, given}
	for _, t := range w.tasks {
		sets = append(sets, t.Labels)
	}
	return writ.JoinLabels(sets...), err
}

// begin counts the exchange in its second of the store's clock.
func begin(tx *writ.Tx, g writ.EgressGrant, s writ.Snapshot) error {
	second, begun := writ.EgressSecond(g.ID), writ.EgressBegun(g.ID)
	now, was, n := s.Now/1000, s.Counters[second], s.Counters[begun]
	tx.Within(second, was, was)
	if now <= was { // the store's clock may have been read a moment ago
		if n >= g.Rate {
			e := writ.Refuse(writ.CodeQuota, opFetch, "more exchanges begin in this second than the grant lets begin", "go slower")
			e.RetryMs = 1000
			return e
		}
		tx.AddUpTo(begun, 1, g.Rate)
		return nil
	}
	tx.Within(begun, n, n)
	tx.Add(second, now-was)
	tx.Add(begun, 1-n)
	return nil
}
