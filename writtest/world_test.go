package writtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

type noArgs struct{}

type shown struct {
	State   string `json:"state"`
	Version int64  `json:"version"`
}

// verb makes a capability that plans what a test says.
func verb(reads func(writ.Snapshot) writ.ReadSet, plan func(*writ.Call, writ.Snapshot, *writ.Tx)) *writ.Capability {
	return writ.Define[noArgs, shown](writ.Capability{ID: "test.verb", Safety: writ.SafetyMutating}, writ.Verb[noArgs]{
		Reads: func(_ *writ.Call, _ *noArgs, s writ.Snapshot) (writ.ReadSet, error) { return reads(s), nil },
		Plan: func(c *writ.Call, _ *noArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			plan(c, s, &tx)
			return tx, writ.Reply{Body: shown{State: "x"}, Versioned: []string{"version"}, ETag: -1}, nil
		},
	})
}

func docs(keys ...writ.Key) func(writ.Snapshot) writ.ReadSet {
	return func(writ.Snapshot) writ.ReadSet { return writ.ReadSet{Docs: keys} }
}

func TestPlansThatBreakARule(t *testing.T) {
	key := writ.AgentKey("builder")
	agent := func(c *writ.Call) writ.Agent {
		return writ.Agent{ID: "builder", State: writ.AgentPlanned, Receipt: writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))}
	}
	for name, c := range map[string]struct {
		k    *writ.Capability
		want string
	}{
		"fine": {verb(docs(key), func(c *writ.Call, s writ.Snapshot, tx *writ.Tx) {
			_ = tx.PutDoc(s, key, "agent", agent(c))
			tx.Move("agent", "builder", "", "planned")
		}), ""},
		"written unread": {verb(docs(), func(c *writ.Call, s writ.Snapshot, tx *writ.Tx) {
			_ = tx.PutDoc(s, key, "agent", agent(c))
			tx.Move("agent", "builder", "", "planned")
		}), "was not read"},
		"no move": {verb(docs(key), func(c *writ.Call, s writ.Snapshot, tx *writ.Tx) {
			_ = tx.PutDoc(s, key, "agent", agent(c))
		}), "without a move"},
		"illegal move": {verb(docs(key), func(c *writ.Call, s writ.Snapshot, tx *writ.Tx) {
			_ = tx.PutDoc(s, key, "agent", agent(c))
			tx.Move("agent", "builder", "", "active")
		}), "not legal"},
		"planned from what has changed": {verb(docs(key), func(c *writ.Call, s writ.Snapshot, tx *writ.Tx) {
			_ = tx.PutDoc(s, key, "agent", agent(c))
			tx.Move("agent", "builder", "", "planned")
			tx.Move("agent", "builder", "", "planned")
		}), "and then from"},
		"other receipt": {verb(docs(key), func(c *writ.Call, s writ.Snapshot, tx *writ.Tx) {
			_ = tx.PutDoc(s, key, "agent", writ.Agent{ID: "builder"})
			tx.Move("agent", "builder", "", "planned")
		}), "receipt"},
		"range without limit": {verb(func(writ.Snapshot) writ.ReadSet {
			return writ.ReadSet{Ranges: []writ.Range{{Index: writ.IndexAgents}}}
		}, func(*writ.Call, writ.Snapshot, *writ.Tx) {}), "limit 0"},
		"endless reads": {verb(func(s writ.Snapshot) writ.ReadSet {
			return writ.ReadSet{Docs: []writ.Key{writ.Key("task/" + strings.Repeat("x", len(s.Docs)+1))}}
		}, func(*writ.Call, writ.Snapshot, *writ.Tx) {}), "still asks"},
	} {
		w := New()
		reply, _, err := w.Call(c.k, w.System(), &noArgs{})
		if c.want == "" {
			v, berr := Body[shown](reply)
			if err != nil || berr != nil || v.Version != 1 || reply.ETag != 1 || len(w.Facts) != 1 {
				t.Errorf("%s: got %+v, %v, %v", name, reply, err, berr)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || len(w.Facts) != 0 {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestGuards(t *testing.T) {
	w := New()
	version := w.Seed("task/a", "task", writ.Task{ID: "a"})
	w.SetIndex("v/held/x", "m", 1)
	w.SetIndex("scope/x", "fs:a/ other", 0)
	w.SetCounter(writ.Counter{Entity: "run/x", Field: "steps"}, 5)
	ranged := w.Snapshot(writ.ReadSet{Ranges: []writ.Range{{Index: "v/held/x", Limit: 1}}}).Ranges[writ.Range{Index: "v/held/x", Limit: 1}].Version
	steps := writ.Counter{Entity: "run/x", Field: "steps"}
	for name, c := range map[string]struct {
		guard func(*writ.Tx)
		holds bool
	}{
		"version":       {func(tx *writ.Tx) { tx.Expect("task/a", version) }, true},
		"other version": {func(tx *writ.Tx) { tx.Expect("task/a", version+1) }, false},
		"absent":        {func(tx *writ.Tx) { tx.Expect("task/b", 0) }, true},
		"range":         {func(tx *writ.Tx) { tx.ExpectRange("v/held/x", ranged) }, true},
		"other range":   {func(tx *writ.Tx) { tx.ExpectRange("v/held/x", 0) }, false},
		"empty range":   {func(tx *writ.Tx) { tx.ExpectRange("v/held/y", 0) }, true},
		"free":          {func(tx *writ.Tx) { tx.Free("scope/x", "fs:b/", "fs:b0", "me") }, true},
		"mine":          {func(tx *writ.Tx) { tx.Free("scope/x", "fs:a/", "fs:a0", "other") }, true},
		"taken":         {func(tx *writ.Tx) { tx.Free("scope/x", "fs:a/", "fs:a0", "me") }, false},
		"within":        {func(tx *writ.Tx) { tx.Within(steps, 5, 5) }, true},
		"below":         {func(tx *writ.Tx) { tx.Within(steps, 6, 9) }, false},
		"in time":       {func(tx *writ.Tx) { tx.NotAfter(w.Now) }, true},
		"late":          {func(tx *writ.Tx) { tx.NotAfter(w.Now - 1) }, false},
		"limit":         {func(tx *writ.Tx) { tx.AddUpTo(steps, 1, 6) }, true},
		"over limit":    {func(tx *writ.Tx) { tx.AddUpTo(steps, 1, 5) }, false},
	} {
		var tx writ.Tx
		tx.Index("list/x", name, 0)
		c.guard(&tx)
		err := w.Apply(tx)
		var conflict *Conflict
		if (err == nil) != c.holds || (err != nil && !errors.As(err, &conflict)) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, written := w.Index("list/x")[name]; written != c.holds {
			t.Errorf("%s: written %v", name, written)
		}
		w.SetCounter(steps, 5)
	}
}

func TestVersionsOfIndexesNeverRepeat(t *testing.T) {
	w := New()
	r := writ.Range{Index: "v/held/x", Limit: 10}
	version := func() int64 { return w.Snapshot(writ.ReadSet{Ranges: []writ.Range{r}}).Ranges[r].Version }
	seen := map[int64]bool{}
	for i := range 5 {
		w.SetIndex(r.Index, "m", int64(i))
		if v := version(); v == 0 || seen[v] {
			t.Fatalf("version %d again", v)
		}
		seen[version()] = true
		before := version()
		w.SetIndex(r.Index, "m", int64(i)) // no change
		if version() != before {
			t.Fatal("the version moved without a change")
		}
		if i%2 == 1 {
			w.DropIndex(r.Index, "m")
			if version() != 0 {
				t.Fatal("an empty index has a version")
			}
		}
	}
}
