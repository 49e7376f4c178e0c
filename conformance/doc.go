// Package conformance checks receipts and their log with programs that others wrote: what
// an auditor may use in place of writ. It is a module of its own, so that none of them
// becomes part of writ, and takes part in nothing but its own tests.
//
//	make conformance
//
// builds stock cosign once, installs @sigstore/verify and a browser, and runs them.
package conformance
