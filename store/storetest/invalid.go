package storetest

import (
	"fmt"
	"strings"

	"github.com/writ-gateway/writ"
)

// invalidTxs each spoil a transaction that would be committed.
func invalidTxs() map[string]func(*writ.Tx) {
	long := strings.Repeat("x", 257)
	return map[string]func(*writ.Tx){
		"a document without a fact": func(tx *writ.Tx) { tx.Fact = nil },
		"a delete without a fact":   func(tx *writ.Tx) { tx.Fact, tx.Ops = nil, nil; tx.Delete("doc/a") },
		"a foreign fact alone":      func(tx *writ.Tx) { tx.Fact = foreign("run_a", "x") },
		"a foreign fact before none": func(tx *writ.Tx) {
			tx.Ops, tx.Before, tx.Fact = nil, foreign("", "x"), nil
			tx.Add(writ.Counter{Entity: "e", Field: "f"}, 1)
		},
		"a foreign fact of another run": func(tx *writ.Tx) { tx.Before = foreign("run_other", "x") },
		"a foreign fact not signed":     func(tx *writ.Tx) { tx.Before = foreign(tx.Fact.Run, "x"); tx.Before.Sig = nil },
		"two facts of the gateway's":    func(tx *writ.Tx) { f := *tx.Fact; tx.Before = &f },
		"too many operations": func(tx *writ.Tx) {
			for range writ.MaxOps {
				tx.Add(writ.Counter{Entity: "e", Field: "f"}, 1)
			}
		},
		"too many bytes": func(tx *writ.Tx) {
			for i := range 5 {
				tx.Put(writ.Key(fmt.Sprintf("doc/%d", i)), make([]byte, writ.MaxDocBytes))
			}
		},
		"too large a document":  func(tx *writ.Tx) { tx.Put("doc/b", make([]byte, writ.MaxDocBytes+1)) },
		"an empty document":     func(tx *writ.Tx) { tx.Put("doc/b", nil) },
		"a bad document name":   func(tx *writ.Tx) { tx.Put("doc b", []byte("x")) },
		"a long document name":  func(tx *writ.Tx) { tx.Put(writ.Key(long), []byte("x")) },
		"a bad index name":      func(tx *writ.Tx) { tx.Index("list:x", "m", 0) },
		"an empty member":       func(tx *writ.Tx) { tx.Index("list/x", "", 0) },
		"a long member":         func(tx *writ.Tx) { tx.Index("list/x", strings.Repeat("x", 1025), 0) },
		"a negative score":      func(tx *writ.Tx) { tx.Index("list/x", "m", -1) },
		"too large a score":     func(tx *writ.Tx) { tx.Index("list/x", "m", writ.MaxAmount+1) },
		"a bad counter entity":  func(tx *writ.Tx) { tx.Add(writ.Counter{Entity: "", Field: "f"}, 1) },
		"a bad counter field":   func(tx *writ.Tx) { tx.Add(writ.Counter{Entity: "e", Field: "f#"}, 1) },
		"too large an amount":   func(tx *writ.Tx) { tx.Add(writ.Counter{Entity: "e", Field: "f"}, -writ.MaxAmount-1) },
		"a bad lane":            func(tx *writ.Tx) { tx.Push("0/{x}/d", "e") },
		"an empty entry":        func(tx *writ.Tx) { tx.Push("0/x.y/d", "") },
		"a long entry":          func(tx *writ.Tx) { tx.Push("0/x.y/d", long) },
		"an ack of nothing":     func(tx *writ.Tx) { tx.Ack(writ.Delivery{Lane: "0/x.y/d"}) },
		"an unknown operation":  func(tx *writ.Tx) { tx.Ops = append(tx.Ops, writ.Op{Kind: "drop"}) },
		"an unknown guard":      func(tx *writ.Tx) { tx.Guards = append(tx.Guards, writ.Guard{Kind: "maybe"}) },
		"a bad guarded name":    func(tx *writ.Tx) { tx.Expect("doc a", 0) },
		"a range without one":   func(tx *writ.Tx) { tx.ExpectRange("list/x", 0) },
		"a bad guarded range":   func(tx *writ.Tx) { tx.ExpectRange("v/x x", 0) },
		"a bad free index":      func(tx *writ.Tx) { tx.Free("list x", "a", "b", "") },
		"an unbounded free":     func(tx *writ.Tx) { tx.Free("list/x", "a", "", "") },
		"a reversed free":       func(tx *writ.Tx) { tx.Free("list/x", "b", "a", "") },
		"a bad guarded counter": func(tx *writ.Tx) { tx.Within(writ.Counter{Entity: "e e", Field: "f"}, 0, 0) },
	}
}
