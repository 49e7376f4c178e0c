// Package egress carries out what agents may do outside: requests to hosts that a
// grant names, and nothing else.
//
// It decides nothing. An [Authorizer] judges an attempt first, and what it permits
// is all there is: the host, how many bytes, which addresses. So a name is looked
// up only after policy has let the attempt pass, and who is refused causes no
// traffic at all, not even a question to a name server.
//
// Its invariants:
//
//   - what goes out is written anew from what was judged; nothing of how the agent
//     framed its request goes along, nor any credential it sent;
//   - a credential is put in here, for the host it is pinned to, and comes back to
//     the agent by no way: neither in headers nor in a body that repeats it;
//   - a name is looked up once, all its addresses are checked, and a checked one is
//     dialled;
//   - no redirect is followed: where one leads is another attempt;
//   - every byte of heads and bodies counts, in both directions, and what is over the
//     budget ends the exchange in a way nobody takes for its end. What is not counted
//     (the frames of chunks, trailers, answers with 1xx) does not pass.
package egress
