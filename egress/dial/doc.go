// Package dial connects to hosts that others named, without letting them reach
// what only this machine can.
//
// Its invariants:
//
//   - a name is resolved once, every address it has is checked, and what is
//     dialled is a checked address: no second answer of a name server counts;
//   - an address that is no host of the internet is dialled only where the
//     operator granted it;
//   - no proxy of the environment is used, TLS is verified, and no redirect is
//     followed: where one leads is another question to ask;
//   - a request has a connection of its own, and when it ends so does all that was
//     begun for it: looking for its name, connecting, the handshake, reading on.
package dial
