// Package writ is the dictionary of the gateway: every noun, id, key, state
// table and transaction type that crosses a package border is declared here,
// and nothing else is. It imports the standard library only.
//
// One governed call runs through it like this: the gateway builds a [Call];
// the door reads a [Snapshot] named by a [ReadSet]; the capability describes
// the [Subject] for policy and plans a [Tx] with a [Reply]; the store commits
// the Tx with its [Fact]; the receipts package seals fact and commit into a
// [Receipt].
//
// Planning is pure: functions here and in the rooms (agents, runs, queue, …)
// have no clock, no randomness and no I/O of their own. Time is
// [Snapshot.Now], new ids come from [Call.NewID].
package writ

// Version is the version of the program, set by the build.
var Version = "0.1.0-dev"
