// Package supervisor runs agents in jails for the sessions that were spawned.
//
// It decides nothing and keeps nothing: which jails are wanted lies in the store, one
// replica takes each, and what becomes of it is noted through the door. How a jail is
// made is its Jailer's business, and who may call through its listeners the gateway's.
// Its invariants:
//
//   - no process of an agent runs before what holds it is noted in a receipt and its
//     session has started, by a call that policy judged;
//   - what cannot be jailed is not run;
//   - when a session ends its listeners close and its jail is killed;
//   - a jail whose listeners nobody serves is killed;
//   - the end of a jail it had is noted, however long that takes; one it does not know,
//     with its name on it, is lost;
//   - when the supervisor stops, so do all its jails.
package supervisor
