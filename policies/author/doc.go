// Package author is the workbench of the people who write policies: it makes
// a source from an example, checks, formats, lints, tests and compares it, and
// ships it as a signed OPA bundle. All of it works on files, without a gateway.
//
// It judges by the same compiler, contract and queries as the gateway: what
// Check and Test accept, a gateway of this version loads. It decides nothing,
// runs no pack with a clock, chance or the network, and keeps no state.
package author
