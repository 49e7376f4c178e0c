// Package writtest is a shard in memory for testing rooms: a [World] reads
// snapshots, runs a capability the way the door does (hops of reads, describe,
// plan), checks every guard and applies the transaction. It has no policy, no
// roles, no idempotency and no receipts of its own, and it is not a store for
// production. Its invariant: what it applies, a real store would accept, and
// what breaks a rule of planning (a document written unread, a move that is
// not noted or not legal, a wrong receipt id) is an error here.
package writtest
