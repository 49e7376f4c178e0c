package guard

import "github.com/writ-gateway/writ"

// scopesMoved is what a commit did to write scopes, for its evidence: which it took,
// and which it gave back. A member is "<scope> <holder>", and " shared" behind it
// where a claim is shared.
type scopesMoved struct {
	Taken     []string `json:"taken,omitempty"`
	GivenBack []string `json:"given_back,omitempty"`
	More      int      `json:"more,omitempty"` // how many are not listed
}

// maxScopesMoved bounds the bytes of what is listed, so that whatever ends holders by
// the dozen makes a receipt.
const maxScopesMoved = 8 << 10

// moved lists what writes do to write scopes; nil when they do nothing.
func moved(ops []writ.Op) *scopesMoved {
	var out scopesMoved
	size := 0
	for _, o := range ops {
		if o.Index != writ.IndexScopes {
			continue
		}
		switch size += len(o.Member); {
		case size > maxScopesMoved:
			out.More++
		case o.Kind == writ.OpIndex:
			out.Taken = append(out.Taken, o.Member)
		default:
			out.GivenBack = append(out.GivenBack, o.Member)
		}
	}
	if size == 0 {
		return nil
	}
	return &out
}
