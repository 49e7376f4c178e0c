// Package shred keeps the keys under which a ledger's evidence is sealed once
// more when it is filed: one for each run, and one for each day of the calls
// that are about no run. Destroying the key of a run makes all evidence of it
// that was filed unreadable, and leaves receipts, log and proofs as they are.
//
// Invariants: the key that a filed record names is on disk before the record
// is; a key is used for receipts from a sequence of its own on, so that the
// shredding filed under sequence s destroys exactly those of its run that begin
// before s, whenever that is done, and how often; a number names one key for
// good. The keys are wrapped by one that is derived from the shared evidence
// key, and are in no fact and no store.
package shred
