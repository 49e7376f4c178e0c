package guard_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/runs"
)

// flows are workflows of a world: each is a name, and its steps make "test.bump" calls, or
// "test.full" ones, for which there is no room until somebody says so.
type flows struct {
	t     *testing.T
	w     *world
	door  *guard.Door
	room  atomic.Bool
	tries atomic.Int64

	mu    sync.Mutex
	steps map[string][]guard.Step // by digest
	read  map[string]int          // how often
}

// newFlows adds runs to a world, in some shards.
func newFlows(t *testing.T, w *world, shards ...writ.Tenant) *flows {
	t.Helper()
	f := &flows{t: t, w: w, steps: map[string][]guard.Step{}, read: map[string]int{}}
	full := writ.Define[thingArgs, thingView](writ.Capability{ID: "test.full", Summary: "Wait for room.", Safety: writ.SafetyMutating}, writ.Verb[thingArgs]{
		Plan: func(*writ.Call, *thingArgs, writ.Snapshot, writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if f.tries.Add(1); !f.room.Load() {
				return tx, r, writ.Refuse(writ.CodeQuota, "test", "there is no room", "wait")
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone}, nil
		},
	})
	caps := append(guard.Capabilities(), append(things(), full)...)
	caps = append(caps, runs.Capabilities(runs.Config{Workflow: func(flow writ.RawObject, _ map[string]int64) (int64, []writ.RunOutput, []writ.FieldError) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return int64(len(f.steps[writ.DigestOf(flow)])), nil, nil
	}})...)
	reg, err := writ.NewRegistry(caps...)
	if err != nil {
		t.Fatal(err)
	}
	f.door, err = guard.New(guard.Config{
		Store: w.reads, Registry: reg, Decider: w.law, Sealer: w.seal, Archive: noArchive{}, Validator: plainJSON{}, Origin: "writ.local", Shards: shards,
		Blobs: &blobStore{put: func(string) error { return nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shards {
		policy, bindings := w.law.Revisions()
		f.system(s, "gate.set", guard.GateSetArgs{PolicyRevision: policy, BindingsRevision: bindings, ReceiptKeyID: w.seal.KeyID()})
	}
	return f
}

func (f *flows) system(in writ.Tenant, id writ.CapabilityID, args any) {
	f.t.Helper()
	if _, _, err := f.door.System(f.t.Context(), in, id, args, nil); err != nil {
		f.t.Fatal(err)
	}
}

func (f *flows) unfolder(shards ...writ.Tenant) *guard.Unfolder {
	return guard.NewUnfolder(f.door, guard.UnfolderConfig{Shards: shards, Steps: func(_ context.Context, digest string, _ writ.RunID) ([]guard.Step, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.read[digest]++
		return f.steps[digest], nil
	}})
}

// planner is a session that may order runs.
func (f *flows) planner(in writ.Tenant) *writ.Credential {
	f.t.Helper()
	id, hash := writ.SessionID(writ.MakeID(writ.PrefixSession, 1, [10]byte{1})), sha256.Sum256([]byte("secret"))
	f.system(in, "test.session", sessionArgs{ID: id, Hash: hex.EncodeToString(hash[:]), Principal: "planner", Role: writ.RoleOrchestrator})
	return &writ.Credential{Tenant: in, Session: id, SecretHash: hash}
}

// order makes a run of n steps.
func (f *flows) order(by *writ.Credential, name string, n int, does writ.CapabilityID) (run writ.RunID, digest string) {
	f.t.Helper()
	flow := fmt.Sprintf(`{"name":%q}`, name)
	digest = writ.DigestOf([]byte(flow))
	steps := make([]guard.Step, n)
	for i := range steps {
		steps[i] = guard.Step{Key: fmt.Sprint("s", i), Capability: does, Args: thingArgs{Run: runID(byte(i))}}
	}
	f.mu.Lock()
	f.steps[digest] = steps
	f.mu.Unlock()
	raw, err := json.Marshal(map[string]any{"budget": map[string]any{"steps": 1000}, "workflow": json.RawMessage(flow)})
	if err != nil {
		f.t.Fatal(err)
	}
	call := &writ.Call{Capability: "run.create", Credential: by, Raw: raw}
	if err := f.door.Stamp(call); err != nil {
		f.t.Fatal(err)
	}
	reply, _, err := f.door.Do(f.t.Context(), call)
	if err != nil {
		f.t.Fatal(err)
	}
	return reply.Body.(runs.RunView).RunID, digest
}

func (f *flows) unfolded(in writ.Tenant, run writ.RunID) bool {
	f.t.Helper()
	s, err := f.w.store.Read(f.t.Context(), in, writ.ReadSet{Docs: []writ.Key{writ.RunKey(run)}})
	if err != nil {
		f.t.Fatal(err)
	}
	doc, _, _, err := writ.Get[writ.Run](s, writ.RunKey(run))
	if err != nil {
		f.t.Fatal(err)
	}
	return doc.Workflow.Unfolded
}

// However many workflows wait, one that can go on does: who has had a turn comes after
// the others.
func TestThoseThatWaitStopNobody(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		f := newFlows(t, w, shard)
		by := f.planner(shard)
		const waiting = 1010 // more than one look sees
		for range waiting {
			f.order(by, "waits", 1, "test.full")
		}
		goes, _ := f.order(by, "goes", 200, "test.bump")
		u := f.unfolder(shard)
		for turns := 0; !f.unfolded(shard, goes); turns++ {
			if u.Unfold(t.Context(), true); turns > 100 {
				t.Fatalf("it has had no turn while others were tried %d times", f.tries.Load())
			}
		}
	})
}

// What waits is tried again later, and ever later, and goes on when there is room.
func TestWhatWaitsIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	f := newFlows(t, w, shard)
	by := f.planner(shard)
	var waiting []writ.RunID
	for range 3 {
		run, _ := f.order(by, "waits", 9, "test.full")
		waiting = append(waiting, run)
	}
	u := f.unfolder(shard)
	tried := func() (n int64) {
		before := f.tries.Load()
		for u.Unfold(t.Context(), true) {
		}
		return f.tries.Load() - before
	}
	if n := tried(); n < 3 {
		t.Fatalf("tried %d", n)
	}
	if n := tried(); n != 0 {
		t.Errorf("tried again at once: %d", n)
	}
	waits := []int64{}
	for last := w.now.Load(); len(waits) < 12; {
		w.now.Add(1000)
		if n := tried(); n == 3 { // one step of each
			waits, last = append(waits, w.now.Load()-last), w.now.Load()
		} else if n != 0 {
			t.Fatalf("tried %d", n)
		}
	}
	if first, last := waits[0], waits[len(waits)-1]; first != 5000 || last <= first || last > 30_000 {
		t.Errorf("tried again after %d", waits)
	}
	f.room.Store(true)
	w.now.Add(30_000)
	tried()
	for _, run := range waiting {
		if !f.unfolded(shard, run) {
			t.Error("there is room, and it waits")
		}
	}
}

// What is remembered of one shard is not forgotten for another's sake.
func TestShardsUnfoldApart(t *testing.T) {
	w := newWorld(t)
	shards := []writ.Tenant{shard, "other"}
	f := newFlows(t, w, shards...)
	made, digests := map[writ.Tenant]writ.RunID{}, map[writ.Tenant]string{}
	for _, in := range shards {
		made[in], digests[in] = f.order(f.planner(in), string(in), 600, "test.bump")
	}
	u := f.unfolder(shards...)
	for u.Unfold(t.Context(), true) {
	}
	for _, in := range shards {
		if !f.unfolded(in, made[in]) || f.read[digests[in]] != 1 {
			t.Errorf("%s: its steps were read %d times", in, f.read[digests[in]])
		}
	}
}
