// Package webhooks delivers notices to the addresses an operator configured,
// signed as Standard Webhooks (https://www.standardwebhooks.com) says.
//
// It decides nothing and keeps nothing: what is to be told lies in the store,
// put there by the transaction it tells of, until the endpoint has taken it or
// it is given up. Its invariants:
//
//   - a notice is delivered at least once, each time under the same id and with
//     the same body; it may come twice, late, or out of order;
//   - a body holds ids, enums, numbers and times: no argument, no text of a
//     caller, no secret;
//   - an endpoint that fails, hangs or floods costs the gateway a bounded number
//     of connections, bytes and seconds, and holds up no other endpoint;
//   - no log line, error or metric holds a secret or more of an address than its
//     host.
package webhooks
