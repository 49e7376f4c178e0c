package guard_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// between is a store in which something happens before a read of a document.
type between struct {
	store.Store
	reads  atomic.Int64
	of     func(writ.Key) bool
	before func()
}

func (b *between) Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	if b.before != nil && slices.ContainsFunc(rs.Docs, b.of) {
		b.before()
	}
	b.reads.Add(1)
	return b.Store.Read(ctx, shard, rs)
}

type followArgs struct {
	From writ.Key `json:"from"`
}

// follow is a verb that reads a document, then the one it names, and refuses
// when that is not there; or plans a move that is in no table, with the code of a defect.
func follow(code writ.Code) *writ.Capability {
	next := func(a *followArgs, s writ.Snapshot) (to writ.Key, err error) {
		to, _, _, err = writ.Get[writ.Key](s, a.From)
		return to, err
	}
	return writ.Define[followArgs, thingView](writ.Capability{ID: "test.follow", Summary: "Follow.", Safety: writ.SafetyMutating}, writ.Verb[followArgs]{
		Reads: func(_ *writ.Call, a *followArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Docs: []writ.Key{a.From}, Ranges: []writ.Range{{Index: "v/list", Limit: 1}}}
			if !s.Has(a.From) {
				return rs, nil
			}
			to, err := next(a, s)
			if to != "" {
				rs.Docs = append(rs.Docs, to)
			}
			return rs, err
		},
		Plan: func(_ *writ.Call, a *followArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			to, err := next(a, s)
			gone := err == nil && (to == "" || s.Docs[to].Version == 0)
			if gone && code == writ.CodeInternal {
				tx.Move(writ.ObjectBallot, "x", string(writ.BallotCarried), string(writ.BallotOpen))
				err = tx.PutDoc(s, "ballot/x", writ.ObjectBallot, writ.Ballot{})
			} else if gone {
				err = writ.Refuse(code, "test", "what it names is not there", "")
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone}, err
		},
	})
}

// A refusal that leaves no receipt states nothing that was never true: the
// document named and the one that names it were read at different times.
func TestRefusalsWithoutReceiptAreSettled(t *testing.T) {
	const from = writ.Key("from/a")
	for _, code := range []writ.Code{writ.CodeNotFound, writ.CodeInputInvalid, writ.CodeVersion, writ.CodeInternal} {
		b := &between{of: func(k writ.Key) bool { return strings.HasPrefix(string(k), "to/") }}
		w := newWorld(t, func(c *guard.Config) {
			reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), follow(code))...)
			if err != nil {
				t.Fatal(err)
			}
			b.Store, c.Store, c.Registry = c.Store, b, reg
		})
		alice := w.session("alice")
		// move lets from name another document, which it makes; what was named
		// before is gone. At every moment the document named is there.
		place := byte('a')
		move := func() {
			call := &writ.Call{}
			if err := w.door.Stamp(call); err != nil {
				t.Fatal(err)
			}
			tx := writ.Tx{Call: call.ID, Fact: &writ.Fact{
				ID: writ.ReceiptID(writ.MakeID(writ.PrefixReceipt, w.now.Load(), [10]byte{place})), KeyID: "key", Head: []byte("{"), Tail: []byte("}"),
			}}
			tx.Delete(writ.Key("to/" + string(place)))
			place++
			to := writ.Key("to/" + string(place))
			for k, doc := range map[writ.Key]any{from: to, to: "here"} {
				body, err := json.Marshal(doc)
				if err != nil {
					t.Fatal(err)
				}
				tx.Put(k, []byte(`{"kind":"test","schema":1,"body":`+string(body)+`}`))
			}
			if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
				t.Fatal(err)
			}
		}
		move()

		var once first
		b.before = func() { once.do(move) }
		if _, _, err := w.call(alice, "test.follow", followArgs{From: from}, ""); err != nil {
			t.Errorf("%s: refused for what was never so: %v", code, err)
		}
		// Who always meets a change is told that, and nothing else.
		b.before = move
		if _, _, err := w.call(alice, "test.follow", followArgs{From: from}, ""); writ.CodeOf(err) != writ.CodeContention {
			t.Errorf("%s: got %v", code, err)
		}
		b.before = nil
		if _, _, err := w.call(alice, "test.follow", followArgs{From: from}, ""); err != nil {
			t.Errorf("%s: %v", code, err)
		}

		// What is so stays refused: at the price of one more read when the last
		// one did not see it all, and of none when it did.
		tx := writ.Tx{Call: "cll_gone", Fact: &writ.Fact{ID: "rcp_gone", KeyID: "key", Head: []byte("{"), Tail: []byte("}")}}
		tx.Delete(writ.Key("to/" + string(place)))
		if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			from  writ.Key
			reads int64
		}{{from, 4}, {"from/none", 2}} {
			before := b.reads.Load()
			if _, _, err := w.call(alice, "test.follow", followArgs{From: c.from}, ""); writ.CodeOf(err) != code {
				t.Errorf("%s: got %v", code, err)
			}
			if n := b.reads.Load() - before; n != c.reads {
				t.Errorf("%s: %d reads for %s, want %d", code, n, c.from, c.reads)
			}
		}

		// An index that has a version is looked at again too.
		var twice first
		b.before = func() {
			twice.do(func() {
				tx := writ.Tx{Call: "cll_list"}
				tx.Index("v/list", "member", 1)
				if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
					t.Fatal(err)
				}
			})
		}
		before := b.reads.Load()
		if _, _, err := w.call(alice, "test.follow", followArgs{From: from}, ""); writ.CodeOf(err) != code {
			t.Errorf("%s: got %v", code, err)
		}
		if n := b.reads.Load() - before; n != 8 {
			t.Errorf("%s: %d reads around a changed index, want 8: two tries", code, n)
		}
	}
}
