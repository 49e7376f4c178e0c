// Package target reads where a request wants to go: host, port and path, each in
// the one spelling this gateway knows.
//
// A text that others might read differently is refused and not repaired. Who
// grants, who looks up a name, who connects and who checks a certificate then all
// compare the same bytes, so there is no second reading for an agent to aim at.
//
// Its invariants:
//
//   - what is accepted is written exactly as it is shown again;
//   - a host is a lower-case DNS name, or an address as package netip writes it;
//   - no name ends in a number, since some programs read such a name as an address;
//   - a path has no part that a server might take out, join or decode into another.
//
// It is pure: it asks nobody for anything.
package target
