// Package storetest is the contract of package store as running code: Run
// holds a host to every sentence of the seam, Model is the same contract in
// plain maps, and Differential feeds both the same random operations.
//
// It is not a tool for testing rooms: those are pure and need no store. Its
// invariant is that a host which passes may replace any other.
package storetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Opened is a store to test and what its host lets a test do to it. Run never
// uses one shard in two cases, so open may hand out stores over one shared
// server. The one that opens also closes (testing.TB.Cleanup); cases call
// Close only on stores that Reopen or Crash gave them a successor for.
//
// A nil hook means that the host has no such thing: the cases that need it
// are not run, and Run prints which. The host's own tests owe the same promises
// another way.
type Opened struct {
	Store store.Store

	// Peer opens another handle on the same data, as a second replica does.
	Peer func(testing.TB) store.Store
	// Reopen closes the store and opens it again over the same data.
	Reopen func(testing.TB) store.Store
	// Crash ends the host without warning, as kill -9 does, and opens it again
	// over what it left.
	Crash func(testing.TB) store.Store
	// Advance moves the store's clock forward.
	Advance func(time.Duration)
	// StepBack moves the store's clock backward.
	StepBack func(time.Duration)
}

// testCase is one sentence of the contract.
type testCase struct {
	name  string
	needs *need // nil: nothing
	run   func(*fixture)
}

// need is something a host may lack.
type need struct {
	what string
	met  func(Opened) bool
}

var (
	aClock  = &need{"a clock that tests can move", func(o Opened) bool { return o.Advance != nil && o.StepBack != nil }}
	aReopen = &need{"a way to close and open it again", func(o Opened) bool { return o.Reopen != nil }}
	aCrash  = &need{"a way to crash it inside the test", func(o Opened) bool { return o.Crash != nil }}
)

// Run holds a host to the contract, one named subtest for each sentence. open
// is called once for each of them.
func Run(t *testing.T, open func(t testing.TB) Opened) {
	probe := open(t)
	left := map[string][]string{}
	for _, group := range [][]testCase{
		readCases, commitCases, guardCases, opCases, indexCases, laneCases, walkCases, wakeCases, factCases, lifeCases, raceCases,
	} {
		for _, c := range group {
			if c.needs != nil && !c.needs.met(probe) {
				left[c.needs.what] = append(left[c.needs.what], c.name)
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(newFixture(t, open(t)))
			})
		}
	}
	if _, ok := probe.Store.(*Model); ok {
		return // no host of its own
	}
	for _, what := range slices.Sorted(maps.Keys(left)) {
		fmt.Printf("note: %s: %d cases are not run, the host lacks %s: %s\n", t.Name(), len(left[what]), what, strings.Join(left[what], "; "))
	}
}

func newShard() writ.Tenant { return writ.Tenant(fmt.Sprintf("t-%016x", rand.Uint64())) }
