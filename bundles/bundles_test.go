package bundles_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/bundles"
	"github.com/writ-gateway/writ/writtest"
)

// lab is a shard with the room on it. A bundle is any text; "lame" in it cannot
// be read, "huge" is too large.
type lab struct {
	*writtest.World
	testing.TB
	verbs map[writ.CapabilityID]*writ.Capability
	op    writ.Caller
	sys   writ.Caller
}

func open(sent, _ []byte, _ bool) (bundles.Contents, error) {
	if bytes.Contains(sent, []byte("lame")) {
		return bundles.Contents{}, writ.Refuse(writ.CodeInputInvalid, "test", "lame", "")
	}
	packed := sent
	if bytes.Contains(sent, []byte("huge")) {
		packed = bytes.Repeat([]byte("x"), writ.MaxChunks*writ.ChunkBytes)
	}
	sum := sha256.Sum256(sent)
	c := bundles.Contents{
		ID: writ.BundleID(hex.EncodeToString(sum[:])), Packed: packed, Bytes: int64(len(sent)), Bindings: "bindings of " + string(sent[:4]),
		Policy: "policy of " + string(sent[:4]), Packs: []writ.PackVer{{ID: "p", Version: "1.0.0"}},
		Bound: func(writ.Tenant) writ.BindingSet {
			if bytes.Contains(sent, []byte("open")) {
				return writ.BindingSet{{Principal: writ.Everybody, Role: writ.RoleOperator}: true}
			}
			return writ.BindingSet{{Principal: "olga", Role: writ.RoleOperator}: true}
		},
	}
	if bytes.Contains(sent, []byte("packs")) {
		c.Packs = make([]writ.PackVer, writ.MaxBundlePacks+1)
	}
	return c, nil
}

func unpack(packed []byte, digest string) ([]byte, error) {
	sum := sha256.Sum256(packed)
	if "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, errors.New("other bytes")
	}
	return packed, nil
}

func newLab(t testing.TB) *lab {
	l := &lab{World: writtest.New(), TB: t, verbs: map[writ.CapabilityID]*writ.Capability{}}
	for _, k := range bundles.New(bundles.Config{Open: open, Unpack: unpack}).Capabilities() {
		l.verbs[k.ID] = k
	}
	l.op = writ.Caller{Tenant: "default", Principal: "olga", Role: writ.RoleOperator}
	l.sys = writ.Caller{Tenant: "default", Principal: "writ", Role: writ.RoleSystem}
	return l
}

func (l *lab) do(by writ.Caller, id writ.CapabilityID, args any) (bundles.BundleView, error) {
	l.Helper()
	reply, _, err := l.World.Call(l.verbs[id], by, args)
	var v bundles.BundleView
	if err == nil {
		_ = json.Unmarshal(reply.JSON, &v)
	}
	return v, err
}

func (l *lab) must(by writ.Caller, id writ.CapabilityID, args any) bundles.BundleView {
	l.Helper()
	v, err := l.do(by, id, args)
	if err != nil {
		l.Fatalf("%s: %v", id, err)
	}
	return v
}

func (l *lab) refused(want writ.Code, by writ.Caller, id writ.CapabilityID, args any) *writ.Error {
	l.Helper()
	_, err := l.do(by, id, args)
	if writ.CodeOf(err) != want {
		l.Fatalf("%s: want %s, got %v", id, want, err)
	}
	return writ.AsError("", err)
}

func upload(text string) bundles.Upload {
	return bundles.Upload(base64.StdEncoding.EncodeToString([]byte(text)))
}

func (l *lab) adopt(text, replica string, force bool) {
	l.Helper()
	l.must(l.sys, "policy.adopt", &bundles.PolicyAdoptArgs{Bundle: upload(text), Replica: replica, ReceiptKey: "key", Force: force})
}

func (l *lab) stage(text string) string {
	l.Helper()
	return l.must(l.op, "policy.stage", &bundles.PolicyStageArgs{Bundle: upload(text)}).Digest
}

func (l *lab) beat(replicas ...string) {
	l.Helper()
	for _, r := range replicas {
		l.must(l.sys, "policy.beat", &bundles.PolicyBeatArgs{Replica: r, Seconds: 10, Tidy: true})
	}
}

func (l *lab) report(digest, replica, reason string) {
	l.Helper()
	l.must(l.sys, "policy.report", &bundles.PolicyReportArgs{Digest: digest, Replica: replica, OK: reason == "", Reason: reason})
}

func (l *lab) gate() writ.Gate {
	l.Helper()
	s := l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.GateKey}})
	g, _, _, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil {
		l.Fatal(err)
	}
	return g
}

func (l *lab) find(digest string) bundles.BundleView {
	l.Helper()
	reply, _, err := l.World.Call(l.verbs["policy.list"], l.op, &bundles.PolicyListArgs{Digest: digest})
	if err != nil {
		l.Fatal(err)
	}
	var page bundles.PolicyList
	if err := json.Unmarshal(reply.JSON, &page); err != nil || len(page.Bundles) != 1 {
		l.Fatalf("%v %s", err, reply.JSON)
	}
	return page.Bundles[0]
}

func (l *lab) chunks(digest string) (n int) {
	for _, d := range l.Snapshot(writ.ReadSet{Docs: writ.ChunkKeys(writ.BundleOf(digest))}).Docs {
		if d.Version != 0 {
			n++
		}
	}
	return n
}

func activate(digest string, force bool) *bundles.PolicyActivateArgs {
	return &bundles.PolicyActivateArgs{Digest: digest, Force: force}
}

func TestFromStagedToRolledBack(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	first := l.gate().Bundle.Digest()
	if g := l.gate(); g.PolicyRevision != "policy of one:" || g.ReceiptKeyID != "key" || g.State != writ.GateOpen {
		t.Fatalf("got %+v", g)
	}
	l.beat("r-1", "r-2")
	two := l.stage("two: rules")
	if v := l.find(two); v.State != writ.BundleStaged || len(v.Ready) != 0 || len(v.Waiting) != 2 || v.Source != writ.SourceCall {
		t.Errorf("got %+v", v)
	}
	if again := l.stage("two: rules"); again != two {
		t.Errorf("staged again it is %s", again)
	}
	l.refused(writ.CodeIllegal, l.op, "policy.activate", activate(two, true)) // nobody can compile it
	l.report(two, "r-1", "")
	e := l.refused(writ.CodeIllegal, l.op, "policy.activate", activate(two, false))
	if e.Details["not_ready"] != "r-2" || !strings.Contains(e.Msg, "r-2") {
		t.Errorf("got %+v", e)
	}
	l.report(two, "r-2", "")
	l.must(l.op, "policy.activate", activate(two, false))
	if g := l.gate(); g.Bundle.Digest() != two || g.PolicyRevision != "policy of two:" || g.BindingsRevision != "bindings of two:" {
		t.Errorf("got %+v", g)
	}
	if v := l.find(first); v.State != writ.BundleRetired {
		t.Errorf("got %+v", v)
	}
	facts := len(l.Facts)
	l.must(l.op, "policy.activate", activate(two, false))
	if len(l.Facts) != facts {
		t.Error("activating the bundle in force left a fact")
	}

	// Back, when one replica still holds the one before.
	l.refused(writ.CodeIllegal, l.op, "policy.rollback", &bundles.PolicyRollbackArgs{From: first})
	l.refused(writ.CodeIllegal, l.op, "policy.rollback", &bundles.PolicyRollbackArgs{From: two})
	l.report(first, "r-2", "")
	l.must(l.op, "policy.rollback", &bundles.PolicyRollbackArgs{From: two})
	if g := l.gate(); g.Bundle.Digest() != first {
		t.Errorf("got %+v", g)
	}
	if last := l.Facts[len(l.Facts)-1]; len(last.Changes) != 3 {
		t.Errorf("a rollback moves two bundles and the gate, got %+v", last.Changes)
	}
}

// Who is ready is looked up by name, so the index holds one score; members that
// an earlier version put there with another one get it with the next report.
func TestReadyHoldsOneScore(t *testing.T) {
	l := newLab(t)
	l.beat("r1", "r2", "r3")
	l.adopt("first", "r1", false)
	digest := l.gate().Bundle.Digest()
	index := writ.ReadyOn(l.gate().Bundle)
	l.SetIndex(index, "r3", l.Now)
	l.SetIndex(index, "gone", l.Now)
	l.Advance(1)
	l.report(digest, "r2", "")
	l.Advance(1)
	l.report(digest, "r1", "")
	all := writ.Range{Index: index, Limit: 10}
	got := l.Snapshot(writ.ReadSet{Ranges: []writ.Range{all}}).Ranges[all].Members
	if want := []writ.Member{{Name: "r1"}, {Name: "r2"}, {Name: "r3"}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRefusals(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	l.beat("r-1")
	stage := func(text string) *bundles.PolicyStageArgs {
		return &bundles.PolicyStageArgs{Bundle: upload(text)}
	}
	l.refused(writ.CodeInputInvalid, l.op, "policy.stage", stage("lame"))
	l.refused(writ.CodeInputInvalid, l.op, "policy.stage", &bundles.PolicyStageArgs{Bundle: "###"})
	l.refused(writ.CodeTooLarge, l.op, "policy.stage", stage("huge: rules"))
	l.refused(writ.CodeTooLarge, l.op, "policy.stage", stage("many packs"))
	l.refused(writ.CodeTooLarge, l.op, "policy.stage", &bundles.PolicyStageArgs{Bundle: bundles.Upload(strings.Repeat("A", writ.MaxChunks*writ.ChunkBytes+4))})
	if len(l.Facts) != 1 {
		t.Errorf("what is no bundle left facts: %+v", l.Facts)
	}
	l.refused(writ.CodeNotFound, l.op, "policy.activate", activate("sha256:"+strings.Repeat("0", 64), false))

	two := l.stage("two: rules")
	l.report(two, "r-1", "packs/x/x.rego:3: no")
	v := l.find(two)
	if v.State != writ.BundleRefused || v.Reason != "packs/x/x.rego:3: no" || v.Replica != "r-1" || l.chunks(two) != 0 {
		t.Errorf("got %+v with %d chunks", v, l.chunks(two))
	}
	facts := len(l.Facts)
	l.report(two, "r-2", "again")
	l.report(two, "r-2", "")
	if len(l.Facts) != facts || len(l.find(two).Ready) != 0 {
		t.Error("a refused bundle was reported on")
	}
	l.refused(writ.CodeIllegal, l.op, "policy.activate", activate(two, true))
	l.refused(writ.CodeIllegal, l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: two})

	// The same bytes once more: another version of the program may take them.
	if again := l.stage("two: rules"); again != two || l.find(two).Reason != "" || l.chunks(two) != 1 {
		t.Errorf("staged again: %+v", l.find(two))
	}
	l.must(l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: two})
	if l.find(two).State != writ.BundleWithdrawn || l.chunks(two) != 0 {
		t.Errorf("withdrawn: %+v", l.find(two))
	}
	one := l.gate().Bundle.Digest()
	l.refused(writ.CodeIllegal, l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: one})
	l.report(one, "r-1", "what is in force is not refused any more")
	if l.find(one).State != writ.BundleActive {
		t.Error("the bundle in force was refused")
	}
	for i := range writ.MaxStaged {
		l.stage(string(rune('a'+i)) + "bc: rules")
	}
	l.refused(writ.CodeQuota, l.op, "policy.stage", stage("nine: rules"))
}

// Between reading who is ready and the commit nobody may join unseen.
func TestAReplicaJoinsWhileAnActivationIsPlanned(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	l.beat("r-1")
	two := l.stage("two: rules")
	l.report(two, "r-1", "")
	k := l.verbs["policy.activate"]
	p, err := l.World.Plan(k, l.NewCall(k, l.op, activate(two, false)))
	if err != nil {
		t.Fatal(err)
	}
	l.beat("r-2")
	if _, err := l.World.Commit(p); err == nil {
		t.Error("it was committed although a replica joined that is not ready")
	}
	l.refused(writ.CodeIllegal, l.op, "policy.activate", activate(two, false))
	// One that is silent is not waited for.
	l.Advance(11)
	l.beat("r-1")
	l.must(l.op, "policy.activate", activate(two, false))
}

func TestAdoption(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	one := l.gate().Bundle
	l.adopt("two: rules", "r-2", false) // another replica, another folder
	if l.gate().Bundle != one {
		t.Error("the second folder took the place of the first")
	}
	l.beat("r-1", "r-2")
	l.adopt("two: rules", "r-2", true)
	if l.gate().Bundle == one || l.find(one.Digest()).State != writ.BundleRetired {
		t.Error("whoever starts a replica cannot put its folder in force")
	}
	l.adopt("one: rules", "r-1", true)
	if l.gate().Bundle != one || l.find(one.Digest()).State != writ.BundleActive {
		t.Error("a retired bundle cannot be adopted again")
	}
	facts := len(l.Facts)
	l.adopt("one: rules", "r-1", true)
	if len(l.Facts) != facts {
		t.Error("adopting what is in force left a fact")
	}
}

// Another version of the program makes another revision of the same bundle. It
// takes over when nobody else serves it.
func TestAdoptionUnderAnotherEngine(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	g := l.gate()
	g.PolicyRevision = "policy of an older engine"
	l.Seed(writ.GateKey, writ.ObjectGate, g)
	l.beat("r-1")
	args := &bundles.PolicyAdoptArgs{Bundle: upload("one: rules"), Replica: "r-2", ReceiptKey: "key"}
	l.refused(writ.CodeIllegal, l.sys, "policy.adopt", args)
	l.Advance(11)
	l.must(l.sys, "policy.adopt", args)
	if l.gate().PolicyRevision != "policy of one:" {
		t.Errorf("got %+v", l.gate())
	}
}

// Whatever happens, one bundle is active, the gate names it, its bytes are there and stay,
// and only what was staged or retired became active.
func TestOneIsActive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLab(t)
		l.adopt("aaaa: rules", "r-1", false)
		l.beat("r-1", "r-2")
		once := map[writ.BundleID]bool{mustBundle(l, "aaaa: rules"): true} // in force
		texts := []string{"aaaa: rules", "bbbb: rules", "cccc: rules", "dddd: rules"}
		digest := func() string {
			sum := sha256.Sum256([]byte(rapid.SampledFrom(texts).Draw(rt, "bundle")))
			return "sha256:" + hex.EncodeToString(sum[:])
		}
		replica := func() string { return rapid.SampledFrom([]string{"r-1", "r-2"}).Draw(rt, "replica") }
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			var err error
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0:
				_, err = l.do(l.op, "policy.stage", &bundles.PolicyStageArgs{Bundle: upload(rapid.SampledFrom(texts).Draw(rt, "text"))})
			case 1:
				_, err = l.do(l.op, "policy.activate", activate(digest(), rapid.Bool().Draw(rt, "force")))
			case 2:
				_, err = l.do(l.op, "policy.rollback", &bundles.PolicyRollbackArgs{})
			case 3:
				_, err = l.do(l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: digest()})
			case 4:
				_, err = l.do(l.sys, "policy.report", &bundles.PolicyReportArgs{Digest: digest(), Replica: replica(), OK: true})
			case 5:
				_, err = l.do(l.sys, "policy.report", &bundles.PolicyReportArgs{Digest: digest(), Replica: replica(), Reason: "no"})
			case 6:
				_, err = l.do(l.sys, "policy.adopt", &bundles.PolicyAdoptArgs{
					Bundle: upload(rapid.SampledFrom(texts).Draw(rt, "text")), Replica: replica(), Force: rapid.Bool().Draw(rt, "force"),
				})
			}
			if c := writ.CodeOf(err); err != nil && c != writ.CodeIllegal && c != writ.CodeNotFound && c != writ.CodeQuota {
				rt.Fatal(err)
			}
			active := 0
			for _, text := range texts {
				sum := sha256.Sum256([]byte(text))
				id := writ.BundleID(hex.EncodeToString(sum[:]))
				s := l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.BundleKey(id)}})
				b, _, ok, err := writ.Get[writ.Bundle](s, writ.BundleKey(id))
				if err != nil {
					rt.Fatal(err)
				}
				if !ok {
					continue
				}
				if b.State == writ.BundleActive {
					active++
					if l.gate().Bundle != id || l.gate().PolicyRevision != "policy of "+text[:4] {
						rt.Fatalf("%s is active, the gate says %+v", text, l.gate())
					}
				}
				once[id] = once[id] || b.State == writ.BundleActive
				kept := once[id] || b.State == writ.BundleStaged
				if has := l.chunks(id.Digest()); has != b.Chunks || has > 0 != kept {
					rt.Fatalf("%s is %s with %d chunks of %d", text, b.State, has, b.Chunks)
				}
			}
			if active != 1 {
				rt.Fatalf("%d bundles are active", active)
			}
		}
	})
}

// A bundle is shown whole to who names it and asks for it, as long as it is there.
func TestABundleIsShownWhole(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	l.beat("r-1")
	two := l.stage("two: rules")
	show := func(a bundles.PolicyListArgs) (out []bundles.BundleView) {
		l.Helper()
		reply, _, err := l.World.Call(l.verbs["policy.list"], l.op, &a)
		var page bundles.PolicyList
		if err == nil {
			err = json.Unmarshal(reply.JSON, &page)
		}
		if err != nil {
			l.Fatal(err)
		}
		return page.Bundles
	}
	s := l.Snapshot(writ.ReadSet{Docs: writ.ChunkKeys(writ.BundleOf(two))})
	want, err := bundles.Packed(s, writ.BundleOf(two))
	if err != nil || len(want) == 0 {
		t.Fatalf("%v, %v", want, err)
	}
	if got := show(bundles.PolicyListArgs{Digest: two, Content: true}); len(got) != 1 || !bytes.Equal(got[0].Content, want) {
		t.Errorf("got %+v", got)
	}
	for _, a := range []bundles.PolicyListArgs{{Digest: two}, {Content: true}} {
		for _, b := range show(a) {
			if b.Content != nil {
				t.Errorf("%+v: shown unasked", a)
			}
		}
	}
	l.must(l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: two})
	if got := show(bundles.PolicyListArgs{Digest: two, Content: true}); len(got) != 1 || got[0].Content != nil {
		t.Errorf("withdrawn: got %+v", got)
	}
}
