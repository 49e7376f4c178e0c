package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

type info struct {
	Revision string `json:"revision"`
}

type room struct {
	*writtest.World
	t    *testing.T
	caps map[writ.CapabilityID]*writ.Capability
	aud  writ.Caller
}

func newRoom(t *testing.T, change func(*Config)) *room {
	t.Helper()
	r := &room{World: writtest.New(), t: t, caps: map[writ.CapabilityID]*writ.Capability{}}
	hidden := writ.Define[PolicyInfoArgs, info](writ.Capability{ID: "run.reap", Internal: true, Class: writ.Mandate}, writ.Verb[PolicyInfoArgs]{})
	var all []*writ.Capability
	cfg := Config{
		Builtin: func() []*writ.Capability { return append(all, hidden) },
		Schemas: func(k *writ.Capability) (a, b writ.RawObject) {
			return writ.RawObject(`{"title":"` + k.Args.Name() + `"}`), writ.RawObject(`{"title":"` + k.Result.Name() + `"}`)
		},
		Rights: func(_ writ.BundleID, _ writ.Tenant, role writ.Role) (func(writ.CapabilityID) bool, bool) {
			return func(id writ.CapabilityID) bool {
				return role == writ.RoleAuditor || role == writ.RoleApprover && id == "receipt.get" || role == writ.RoleExecutor && id == "task.claim"
			}, true
		},
		PolicyInfo:     func() any { return info{"r1"} },
		PolicyInfoType: reflect.TypeFor[info](),
		Bundle:         func(rc writ.Receipt) ([]byte, error) { return fmt.Appendf(nil, `{"bundle":%d}`, rc.Seq), nil },
		Proof:          func(rc writ.Receipt) ([]byte, error) { return fmt.Appendf(nil, "proof of %d", rc.Seq), nil },
		Envelope: func(rc writ.Receipt) ([]byte, error) {
			return []byte(fmt.Sprintf(`{"payload":%q}`, rc.Payload)), nil
		},
		Evidence: func(rc writ.Receipt) ([]byte, error) {
			return []byte(`{"object":` + strings.TrimPrefix(string(rc.Evidence), "sealed ") + `}`), nil
		},
		Export: func(list []writ.Receipt, _, at int64, _ bool) ([]byte, error) {
			var b bytes.Buffer
			b.WriteString(`{"format":"f"}` + "\n")
			for _, rc := range list {
				fmt.Fprintf(&b, "{\"seq\":%d}\n", rc.Seq)
			}
			fmt.Fprintf(&b, "{\"count\":%d,\"at\":%d}\n", len(list), at)
			return b.Bytes(), nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	all = Capabilities(cfg)
	for _, c := range all {
		r.caps[c.ID] = c
	}
	r.aud = r.Open(writ.RoleAuditor, "ada", "")
	r.Archive = archive(5)
	return r
}

// archive holds n receipts; the odd ones belong to a run.
func archive(n int64) func(writ.ArchiveRead) []writ.Receipt {
	return func(q writ.ArchiveRead) (out []writ.Receipt) {
		for seq := range n {
			rc := writ.Receipt{ID: receiptID(seq), Seq: seq, Payload: []byte(fmt.Sprintf(`{"n":%d}`, seq))}
			if seq > 0 {
				rc.Evidence = []byte(fmt.Sprintf("sealed %d", seq))
			}
			switch {
			case q.Receipt != "" && q.Receipt != rc.ID:
			case q.Receipt == "" && (seq <= q.After || (q.Run != "" && seq%2 == 0)):
			case len(out) < q.Limit:
				out = append(out, rc)
			}
		}
		return out
	}
}

func receiptID(seq int64) writ.ReceiptID {
	return writ.ReceiptID(writ.MakeID(writ.PrefixReceipt, seq, [10]byte{1}))
}

func (r *room) must(id writ.CapabilityID, args any) writ.Reply {
	r.t.Helper()
	reply, tx, err := r.Call(r.caps[id], r.aud, args)
	if err != nil {
		r.t.Fatalf("%s: %v", id, err)
	}
	if !tx.Empty() {
		r.t.Fatalf("%s writes", id)
	}
	return reply
}

func (r *room) refused(code writ.Code, id writ.CapabilityID, args any) {
	r.t.Helper()
	if _, _, err := r.Call(r.caps[id], r.aud, args); writ.CodeOf(err) != code {
		r.t.Fatalf("%s: got %v, want %s", id, err, code)
	}
}

func body[T any](t *testing.T, r writ.Reply) T {
	t.Helper()
	v, err := writtest.Body[T](r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// tool gives an active agent one tool of a safety.
func (r *room) tool(id writ.AgentID, name writ.CapabilityID, safety writ.Safety, state writ.AgentState) {
	a := r.World.Agent(id, "media", name)
	a.Tools[0].Safety, a.Tools[0].Description, a.State = safety, "By "+string(id)+".", state
	r.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
}

func TestCapabilityList(t *testing.T) {
	r := newRoom(t, nil)
	r.tool("alpha", "site.build", writ.SafetyMutating, writ.AgentActive)
	r.tool("beta", "site.build", writ.SafetyDestructive, writ.AgentActive)
	r.tool("gamma", "site.build", writ.SafetyBlocked, writ.AgentActive)
	r.tool("delta", "site.drop", writ.SafetyBlocked, writ.AgentActive)
	r.tool("epsilon", "site.late", writ.SafetyReadOnly, writ.AgentSuspended) // a stray entry
	r.SetIndex(writ.IndexTools, "site.none zeta", 0)                         // of nobody
	r.SetCounter(writ.RegistryRevision(), 7)

	reply := r.must("capability.list", &CapabilityListArgs{})
	got := body[CapabilityList](t, reply)
	if got.Revision != 7 || reply.ETag != 7 || got.Truncated {
		t.Fatalf("got revision %d, ETag %d, truncated %v", got.Revision, reply.ETag, got.Truncated)
	}
	var ids []string
	for _, c := range got.Capabilities {
		ids = append(ids, string(c.ID))
	}
	want := []string{
		"capability.get", "capability.invoke", "capability.list", "log.head", "policy.explain", "policy.info", "policy.records", "policy.shadow", "receipt.evidence", "receipt.export", "receipt.get", "receipt.list",
		"site.build", "site.drop",
	}
	if !slices.Equal(ids, want) {
		t.Fatalf("got %q\nwant %q", ids, want)
	}
	build, drop := got.Capabilities[12], got.Capabilities[13]
	if !slices.Equal(build.Agents, []writ.AgentID{"alpha", "beta", "gamma"}) || build.Safety != writ.SafetyDestructive || !build.Callable || build.Kind != "task" || build.Summary != "By alpha." {
		t.Errorf("got %+v", build)
	}
	if drop.Safety != writ.SafetyBlocked || drop.Callable {
		t.Errorf("got %+v", drop)
	}
	// Others see what their role may invoke, and task capabilities if it has to do with tasks.
	for role, want := range map[writ.Role]string{writ.RoleApprover: "[receipt.get]", writ.RoleExecutor: "[site.build site.drop]", writ.RoleConnector: "[]"} {
		r.aud = r.Open(role, "bob", "")
		ids := []writ.CapabilityID{}
		for _, c := range body[CapabilityList](t, r.must("capability.list", &CapabilityListArgs{})).Capabilities {
			ids = append(ids, c.ID)
		}
		if fmt.Sprint(ids) != want {
			t.Errorf("%s sees %v, want %s", role, ids, want)
		}
		for _, id := range []writ.CapabilityID{"receipt.get", "receipt.list", "site.build"} {
			if slices.Contains(ids, id) {
				r.must("capability.get", &CapabilityGetArgs{Capability: id})
			} else {
				r.refused(writ.CodeNotFound, "capability.get", &CapabilityGetArgs{Capability: id})
			}
		}
		invoked := writ.CodeNotFound // what it is not shown it cannot find out by calling it either
		if slices.Contains(ids, "site.build") {
			invoked = writ.CodeUnavailable
		}
		r.refused(invoked, "capability.invoke", &CapabilityInvokeArgs{Capability: "site.build"})
		r.refused(invoked, "capability.invoke", &CapabilityInvokeArgs{Capability: "site.drop"})
	}
	r = newRoom(t, func(c *Config) { c.Rights = nil }) // it holds no policies, so it says nothing
	r.refused(writ.CodePolicyDown, "capability.list", &CapabilityListArgs{})
	r.refused(writ.CodePolicyDown, "capability.get", &CapabilityGetArgs{Capability: "receipt.get"})
	r.refused(writ.CodePolicyDown, "capability.invoke", &CapabilityInvokeArgs{Capability: "site.build"})
	if b := got.Capabilities[0]; b.Kind != "builtin" || b.Version != "1" || !b.Callable || b.Safety != writ.SafetyReadOnly {
		t.Errorf("got %+v", b)
	}
}

func TestPolicyShadow(t *testing.T) {
	r := newRoom(t, nil)
	r.refused(writ.CodeNotReady, "policy.shadow", &PolicyShadowArgs{})

	now := []writ.PackVer{{ID: "freeze", Version: "1.0.0", Digest: "sha256:aa"}, {ID: "quiet", Version: "2.0.0", Digest: "sha256:bb"}}
	pending := []writ.ShadowPack{{ID: "freeze", Digest: "sha256:aa", Since: 9000, Evaluated: 1, Changed: 1, Changes: []writ.ShadowChange{
		{Rule: "freeze.frozen", From: writ.EffectAllow, To: writ.EffectDeny, Count: 1, Samples: []string{"cal_2"}},
	}}}
	r = newRoom(t, func(c *Config) {
		c.Shadow = func(writ.Tenant) ([]writ.PackVer, []writ.ShadowPack) { return now, pending }
	})
	r.Seed(writ.ShadowKey, writ.ObjectShadow, writ.Shadow{Packs: []writ.ShadowPack{
		{ID: "freeze", Digest: "sha256:aa", Since: 1000, Evaluated: 7, Failed: 2, Changed: 3, Changes: []writ.ShadowChange{
			{Rule: "freeze.frozen", From: writ.EffectAllow, To: writ.EffectDeny, Count: 3, Samples: []string{"rcp_1"}},
		}},
		{ID: "enforced_since", Digest: "sha256:cc", Since: 1000, Evaluated: 7},
	}})
	want := PolicyShadow{Packs: []ShadowedPack{
		{ID: "freeze", Version: "1.0.0", Digest: "sha256:aa", Since: "1970-01-01T00:00:01.000Z", Evaluated: 8, Failed: 2, Changed: 4, Changes: []ShadowedChange{
			{Rule: "freeze.frozen", From: writ.EffectAllow, To: writ.EffectDeny, Count: 4, Samples: []string{"rcp_1", "cal_2"}},
		}},
		{ID: "quiet", Version: "2.0.0", Digest: "sha256:bb", Changes: []ShadowedChange{}},
	}}
	if got := body[PolicyShadow](t, r.must("policy.shadow", &PolicyShadowArgs{})); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestCapabilityGet(t *testing.T) {
	r := newRoom(t, nil)
	r.tool("alpha", "site.build", writ.SafetyMutating, writ.AgentActive)
	r.tool("beta", "site.builder", writ.SafetyMutating, writ.AgentActive)
	r.tool("gamma", "site.build", writ.SafetyBlocked, writ.AgentActive)
	get := func(id writ.CapabilityID) CapabilityView {
		t.Helper()
		return body[CapabilityView](t, r.must("capability.get", &CapabilityGetArgs{Capability: id}))
	}
	v := get("site.build")
	if len(v.Providers) != 2 || v.Providers[0].AgentID != "alpha" || !v.Providers[0].Callable || v.Providers[1].Callable || v.Providers[0].Domain != "media" {
		t.Fatalf("got %+v", v)
	}
	v = get("receipt.get")
	if string(v.Input) != `{"title":"ReceiptGetArgs"}` || string(v.Output) != `{"title":"ReceiptView"}` || v.Kind != "builtin" {
		t.Fatalf("got %+v", v)
	}
	r.refused(writ.CodeNotFound, "capability.get", &CapabilityGetArgs{Capability: "run.reap"}) // internal
	r.refused(writ.CodeNotFound, "capability.get", &CapabilityGetArgs{Capability: "site.none"})
	r.refused(writ.CodeMalformed, "capability.invoke", &CapabilityInvokeArgs{Capability: "capability.invoke"})
	r.refused(writ.CodeUnavailable, "capability.invoke", &CapabilityInvokeArgs{Capability: "site.build"})
	r.refused(writ.CodeNotFound, "capability.invoke", &CapabilityInvokeArgs{Capability: "site.none"})
}

func TestPolicyInfo(t *testing.T) {
	r := newRoom(t, nil)
	if got := body[info](t, r.must("policy.info", &PolicyInfoArgs{})); got.Revision != "r1" {
		t.Fatalf("got %+v", got)
	}
	if got := r.caps["policy.info"].Result; got != reflect.TypeFor[info]() {
		t.Fatalf("the result's type is %v", got)
	}
	r = newRoom(t, func(c *Config) { c.PolicyInfo = nil })
	r.refused(writ.CodeNotReady, "policy.info", &PolicyInfoArgs{})
}

func TestReceiptGet(t *testing.T) {
	r := newRoom(t, nil)
	v := body[ReceiptView](t, r.must("receipt.get", &ReceiptGetArgs{ReceiptID: receiptID(3)}))
	if v.ReceiptID != receiptID(3) || v.Seq != 3 || string(v.Statement) != `{"n":3}` || string(v.Envelope) != `{"payload":"{\"n\":3}"}` || string(v.Bundle) != `{"bundle":3}` || v.Included {
		t.Fatalf("got %+v", v)
	}
	r.refused(writ.CodeNotFound, "receipt.get", &ReceiptGetArgs{ReceiptID: receiptID(99)})
	r = newRoom(t, func(c *Config) { c.Envelope, c.Export = nil, nil })
	r.refused(writ.CodeNotReady, "receipt.get", &ReceiptGetArgs{ReceiptID: receiptID(3)})
	r.refused(writ.CodeNotReady, "receipt.list", &ReceiptListArgs{})
	r.refused(writ.CodeNotReady, "receipt.export", &ReceiptExportArgs{})
}

// A receipt has a name that people can read; no two are alike, since the id is in it.
func TestRunKeys(t *testing.T) {
	r := writ.Receipt{ID: receiptID(3), Payload: []byte(`{"predicate":{"commit":{"at":"2026-01-02T03:04:05.678Z"},"transition":"task.complete"}}`)}
	want := "CAP-20260102-030405__task.complete__R" + strings.TrimPrefix(string(receiptID(3)), "rcp_")
	if got := runKey(r); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, payload := range []string{"", "{}", `{"predicate":{"transition":"x","commit":{"at":7}}}`} {
		if got := runKey(writ.Receipt{ID: receiptID(3), Payload: []byte(payload)}); got != "" {
			t.Errorf("of %q: %q", payload, got)
		}
	}
}

func TestLogHead(t *testing.T) {
	r := newRoom(t, func(c *Config) {
		c.LogHead = func(since, _ int64) (LogHead, error) {
			if since > 4 {
				return LogHead{}, writ.Refuse(writ.CodeNotFound, "x", "y", "z")
			}
			return LogHead{Origin: "o", Size: since + 1}, nil
		}
	})
	if got := body[LogHead](t, r.must("log.head", &LogHeadArgs{Since: 4})); got.Size != 5 || got.Origin != "o" {
		t.Errorf("got %+v", got)
	}
	r.refused(writ.CodeNotFound, "log.head", &LogHeadArgs{Since: 5})
	r = newRoom(t, nil)
	r.refused(writ.CodeNotReady, "log.head", &LogHeadArgs{})
}

func TestReceiptEvidence(t *testing.T) {
	r := newRoom(t, nil)
	v := body[ReceiptEvidence](t, r.must("receipt.evidence", &ReceiptEvidenceArgs{ReceiptID: receiptID(3)}))
	sum := sha256.Sum256([]byte(v.Text))
	if v.Text != `{"object":3}` || string(v.Evidence) != v.Text || v.Digest != hex.EncodeToString(sum[:]) || v.ReceiptID != receiptID(3) {
		t.Fatalf("got %+v", v)
	}
	r.refused(writ.CodeNotFound, "receipt.evidence", &ReceiptEvidenceArgs{ReceiptID: receiptID(99)})
	r.refused(writ.CodeNotFound, "receipt.evidence", &ReceiptEvidenceArgs{ReceiptID: receiptID(0)}) // has none
	r = newRoom(t, func(c *Config) { c.Evidence = nil })
	r.refused(writ.CodeNotReady, "receipt.evidence", &ReceiptEvidenceArgs{ReceiptID: receiptID(3)})
}

func ptr(n int64) *int64 { return &n }

func TestReceiptPages(t *testing.T) {
	for _, c := range []struct {
		args ReceiptListArgs
		want string
	}{
		{ReceiptListArgs{}, "[0 1 2 3 4] next 4 more false"},
		{ReceiptListArgs{After: ptr(-1), Limit: 2}, "[0 1] next 1 more true"},
		{ReceiptListArgs{After: ptr(0), Limit: 2}, "[1 2] next 2 more true"},
		{ReceiptListArgs{After: ptr(3), Limit: 2}, "[4] next 4 more false"},
		{ReceiptListArgs{After: ptr(4)}, "[] next 4 more false"},
		{ReceiptListArgs{RunID: "run_x"}, "[1 3] next 3 more false"},
	} {
		r := newRoom(t, nil)
		p := body[ReceiptList](t, r.must("receipt.list", &c.args))
		seqs := []int64{}
		for _, v := range p.Receipts {
			seqs = append(seqs, v.Seq)
		}
		if got := fmt.Sprintf("%v next %d more %v", seqs, p.NextAfter, p.More); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.args, got, c.want)
		}
	}
}

// The lines of an export reach the client byte for byte.
func TestReceiptExport(t *testing.T) {
	r := newRoom(t, nil)
	v := body[ReceiptExport](t, r.must("receipt.export", &ReceiptExportArgs{After: ptr(1), Limit: 2}))
	lines := append(append([]writ.RawObject{v.Header}, v.Receipts...), v.Head)
	var text []string
	for _, l := range lines {
		text = append(text, string(l))
	}
	want := fmt.Sprintf("{\"format\":\"f\"}\n{\"seq\":2}\n{\"seq\":3}\n{\"count\":2,\"at\":%d}", r.Now)
	if got := strings.Join(text, "\n"); got != want || v.NextAfter != 3 || !v.More {
		t.Fatalf("got %s, next %d, more %v", got, v.NextAfter, v.More)
	}
	v = body[ReceiptExport](t, r.must("receipt.export", &ReceiptExportArgs{After: ptr(9)}))
	if len(v.Receipts) != 0 || v.NextAfter != 9 || v.More || !json.Valid(v.Head) {
		t.Fatalf("got %+v", v)
	}

	r = newRoom(t, func(c *Config) {
		c.Export = func([]writ.Receipt, int64, int64, bool) ([]byte, error) { return []byte("{}\n{}\n"), nil }
	})
	r.refused(writ.CodeInternal, "receipt.export", &ReceiptExportArgs{})
	r = newRoom(t, func(c *Config) {
		c.Export = func([]writ.Receipt, int64, int64, bool) ([]byte, error) { return nil, errors.New("a gap") }
	})
	r.refused(writ.CodeInternal, "receipt.export", &ReceiptExportArgs{})
}
