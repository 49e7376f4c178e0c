package author

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
)

// fromOPA turns an error of OPA's parser or compiler into findings.
func fromOPA(err error) []Finding {
	list, ok := errors.AsType[ast.Errors](err)
	if !ok {
		if one, isOne := errors.AsType[*ast.Error](err); isOne {
			list, ok = ast.Errors{one}, true
		}
	}
	if !ok {
		return []Finding{{ID: "check", Severity: Error, Message: err.Error()}}
	}
	var out []Finding
	for _, e := range list {
		f := Finding{ID: "check", Severity: Error, Message: e.Code + ": " + e.Message}
		if e.Location != nil {
			f.File, f.Line, f.Col = e.Location.File, e.Location.Row, e.Location.Col
		}
		out = append(out, f)
	}
	return out
}
