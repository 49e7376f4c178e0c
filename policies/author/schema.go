package author

import (
	"context"
	"sync"

	"github.com/open-policy-agent/opa/v1/rego"
)

// schemaQuery holds documents against JSON Schemas, with OPA's own validator.
var schemaQuery = sync.OnceValue(func() rego.PreparedEvalQuery {
	q, err := rego.New(rego.Query(`x := json.match_schema(input.doc, input.schema)`)).PrepareForEval(context.Background())
	if err != nil {
		panic(err) // a constant query
	}
	return q
})
