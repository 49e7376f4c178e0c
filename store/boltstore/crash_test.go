package boltstore_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/storetest"
)

// kill -9 at a random moment, again and again over one file: every commit that
// was acknowledged is there with its fact, and nothing is there by half.
func TestKillLosesNothing(t *testing.T) {
	seed := storetest.Seed(t)
	t.Logf("seed %d (repeat with WRIT_SEED=%d)", seed, seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	path := filepath.Join(t.TempDir(), "writ.db")
	acked := map[writ.CallID]int64{}
	for round := range length(4, 200) {
		work := child(t.Context(), "work", path, fmt.Sprint(round))
		out, err := work.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := work.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		got, until := 0, 1+rng.IntN(400)
		var killed bool
		for lines.Scan() {
			call, num, ok := strings.Cut(lines.Text(), " ")
			var seq int64
			if _, err := fmt.Sscan(num, &seq); !ok || err != nil {
				break // cut by the kill
			}
			acked[writ.CallID(call)] = seq
			if got++; got >= until && !killed {
				killed = true
				time.AfterFunc(time.Duration(rng.IntN(5000))*time.Microsecond, func() { _ = work.Process.Kill() })
			}
		}
		if err := work.Wait(); err == nil || !killed {
			t.Fatalf("round %d: the child ended by itself after %d commits: %v", round, got, err)
		}
		s := open(t, path, boltstore.Options{})
		wantWhole(t, s, acked)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
	t.Logf("%d acknowledged commits", len(acked))
}

// wantWhole checks a shard of tasks from outside.
func wantWhole(t *testing.T, s store.Store, acked map[writ.CallID]int64) {
	t.Helper()
	ctx := t.Context()
	head, err := s.Head(ctx, workShard)
	if err != nil {
		t.Fatal(err)
	}
	facts := make([]writ.CallID, 0, head.Seq+1) // by sequence
	for len(facts) <= int(head.Seq) {
		page, err := s.Facts(ctx, workShard, int64(len(facts))-1, 500, 0)
		if err != nil || len(page) == 0 {
			t.Fatalf("facts after %d of %d: %d, %v", len(facts)-1, head.Seq, len(page), err)
		}
		for _, f := range page {
			if f.Commit.Seq != int64(len(facts)) {
				t.Fatalf("sequence %d follows %d", f.Commit.Seq, len(facts)-1)
			}
			facts = append(facts, writ.CallID(f.Head))
		}
	}
	for call, seq := range acked {
		if seq > head.Seq || facts[seq] != call {
			t.Errorf("the acknowledged commit %s of sequence %d is not there", call, seq)
		}
		if c, err := s.Commit(ctx, workShard, writ.Tx{Call: call}); err != nil || c.Seq != seq {
			t.Errorf("the acknowledged call %s is not remembered: %+v, %v", call, c, err)
		}
	}
	var waiting []string
	tasks := 0
	for from := ""; ; {
		r := writ.Range{Index: workList, From: from, Limit: 500}
		snap, err := s.Read(ctx, workShard, writ.ReadSet{Ranges: []writ.Range{r}})
		if err != nil {
			t.Fatal(err)
		}
		page := snap.Ranges[r].Members
		if len(page) == 0 {
			break
		}
		from = page[len(page)-1].Name + "\x00"
		var keys []writ.Key
		for _, m := range page {
			keys = append(keys, taskKey(writ.CallID(m.Name)))
		}
		if snap, err = s.Read(ctx, workShard, writ.ReadSet{Docs: keys}); err != nil {
			t.Fatal(err)
		}
		for i, k := range keys {
			d := snap.Docs[k]
			if d.Version < 1 || d.Version > head.Seq+1 {
				t.Errorf("document %s at version %d has no fact; the last is %d", k, d.Version, head.Seq)
			}
			if string(d.Body) == queued {
				if facts[d.Version-1] != writ.CallID(page[i].Name) {
					t.Errorf("document %s at version %d belongs to the fact of %s", k, d.Version, facts[d.Version-1])
				}
				waiting = append(waiting, page[i].Name)
			}
		}
		tasks += len(page)
	}
	if tasks != len(facts) {
		t.Errorf("%d tasks for %d facts", tasks, len(facts))
	}
	var lane []string
	for {
		ds, err := s.Receive(ctx, workShard, []writ.Lane{workLane}, "checker", 500)
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			lane = append(lane, d.Entry)
		}
	}
	slices.Sort(lane)
	slices.Sort(waiting)
	if !slices.Equal(lane, waiting) {
		t.Errorf("%d entries in the lane, %d queued tasks", len(lane), len(waiting))
	}
}

// A full disk refuses, costs nothing that was acknowledged, and is over when
// there is space again.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "writ.db")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := child(ctx, "fill", path, "").Output()
	if err != nil {
		t.Fatal(err)
	}
	acked := len(strings.Fields(string(out)))
	if acked < 20 {
		t.Fatalf("only %d commits were acknowledged", acked)
	}
	s := open(t, path, boltstore.Options{})
	head, err := s.Head(ctx, workShard)
	if err != nil || head.Seq != int64(acked)-1 {
		t.Fatalf("head %+v after %d acknowledged commits, %v", head, acked, err)
	}
	for i := range acked {
		k := writ.Key(fmt.Sprintf("fill/%d", i))
		snap, err := s.Read(ctx, workShard, writ.ReadSet{Docs: []writ.Key{k}})
		if d := snap.Docs[k]; err != nil || d.Version != int64(i)+1 || len(d.Body) != fillBody {
			t.Fatalf("document %d: version %d, %d bytes, %v", i, d.Version, len(d.Body), err)
		}
	}
}
