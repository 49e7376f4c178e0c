// Package receipts turns facts into signed receipts and proves them again: it
// renders statements, keeps the receipt key, seals, verifies single receipts
// and whole exports offline. It never decides and never writes to the store.
//
// A receipt is an in-toto Statement v1 in a DSSE envelope signed with ECDSA
// P-256/SHA-256, deterministically (RFC 6979), so that every replica that holds
// the key produces the same bytes.
package receipts
