// Package e2e drives the real program from outside: it builds the writ binary,
// starts gateways on the embedded store and on a private redis-server, calls
// them over HTTP, kills them, and checks what is left with the program's own
// commands.
//
// It is tests only, and they know nothing a caller could not know: no test
// opens a store or calls a room. What it holds the program to is that every
// answer of success is found again with its receipt, on both hosts, whatever
// was killed in between.
package e2e
