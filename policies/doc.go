// Package policies decides: Casbin says whether a role may invoke a capability
// at all, Rego packs say whether this very call is acceptable now. Both live in
// one immutable snapshot behind an atomic pointer. Every error denies.
//
// It is the only package that imports Casbin, and with its authors' workbench
// the only one that imports OPA. It holds no store: what it may see comes as a
// typed input built from the call and its subject.
package policies
