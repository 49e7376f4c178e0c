// Package health asks the endpoints of agents whether they work.
//
// It decides nothing and keeps nothing: what is due lies in the store, one
// replica takes it, and what it found is recorded through the door. Its
// invariants:
//
//   - an endpoint that is due is asked once, by one replica;
//   - an endpoint that hangs, floods or redirects costs a bounded number of
//     connections, bytes and seconds, and holds up no other;
//   - what an endpoint says reaches nobody: its status, how long it took and why
//     it does not pass do;
//   - no log line, error or metric holds more of an address than its host.
package health
