// Package gateway is the HTTP face of the one door: it turns requests into
// calls and replies into responses, publishes the OpenAPI 3.1 description of
// both, and owns the one schema each argument type has.
//
// It is not a place for rules. A handler parses the credential, builds a
// [writ.Call], hands it to the [Door] and encodes what comes back; who may do
// what is decided behind the door.
//
// Its invariants: every operation under /v1 is a registered capability and
// goes through the Door; nothing a caller sent comes back in an error; each
// failure is one problem document (RFC 9457) made from one table of codes.
package gateway
