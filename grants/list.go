package grants

import "github.com/writ-gateway/writ"

// EgressGrantsArgs say which page.
type EgressGrantsArgs struct {
	After string `json:"after,omitempty" doc:"Where the last page ended." maxLength:"63" pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Limit int64  `json:"limit,omitempty" doc:"How many at most." default:"50" minimum:"1" maximum:"200"`
}

// EgressGrants is a page of grants.
type EgressGrants struct {
	Grants []EgressGrantView `json:"grants" doc:"Grants that are not revoked, by id. Agents see theirs."`
	Next   string            `json:"next,omitempty" doc:"after of the next page; absent on the last."`
}

func list() *writ.Capability {
	page := func(a *EgressGrantsArgs) writ.Page {
		return writ.Page{Index: writ.IndexEgress, After: a.After, Limit: a.Limit}
	}
	return writ.Define[EgressGrantsArgs, EgressGrants](writ.Capability{
		ID: "egress.grants", Safety: writ.SafetyReadOnly, Summary: "List who may reach what outside.",
		Example: `{"limit":20}`,
	}, writ.Verb[EgressGrantsArgs]{
		Reads: func(_ *writ.Call, a *EgressGrantsArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Ranges: []writ.Range{page(a).Range()}}
			ids, _ := page(a).Of(s)
			for _, id := range ids {
				rs.Docs = append(rs.Docs, writ.EgressGrantKey(writ.EgressID(id)))
			}
			return rs, nil
		},
		Plan: func(c *writ.Call, a *EgressGrantsArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			ids, next := page(a).Of(s)
			out := EgressGrants{Grants: []EgressGrantView{}, Next: next}
			for _, id := range ids {
				g, version, ok, err := writ.Get[writ.EgressGrant](s, writ.EgressGrantKey(writ.EgressID(id)))
				if err != nil {
					return writ.Tx{}, writ.Reply{}, err
				}
				if ok && g.State == writ.EgressActive && sees(c.Caller, g) {
					out.Grants = append(out.Grants, viewOf(g, version))
				}
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
