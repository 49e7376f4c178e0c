package policies

import _ "embed"

// schemaJSON is the JSON Schema (draft 7) of the input. The compiler checks
// every reference of every pack against it: a misspelt field is a compile
// error instead of a rule that never holds.
//
//go:embed schema/input.json
var schemaJSON []byte
