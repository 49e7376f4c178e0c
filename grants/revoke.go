package grants

import "github.com/writ-gateway/writ"

// EgressRevoked says that a grant is over.
type EgressRevoked struct {
	ID      writ.EgressID    `json:"grant_id" doc:"The grant."`
	State   writ.EgressState `json:"state" doc:"Where it stands." enum:"revoked"`
	Receipt writ.ReceiptID   `json:"receipt" doc:"Receipt of the change."`
}

func revoke() *writ.Capability {
	const op = "grants.Revoke"
	return writ.Define[GrantArgs, EgressRevoked](writ.Capability{
		ID: "egress.revoke", Safety: writ.SafetyMutating, Summary: "Take a grant to act outside back, and stop what is under way with it.",
		Example: `{"grant_id":"github-api"}`,
	}, writ.Verb[GrantArgs]{
		Locks: func(_ *writ.Call, a *GrantArgs) []writ.Key { return []writ.Key{writ.EgressGrantKey(a.ID)} },
		Reads: func(_ *writ.Call, a *GrantArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.EgressGrantKey(a.ID)}, Counters: []writ.Counter{writ.EgressSecond(a.ID), writ.EgressBegun(a.ID)}}, nil
		},
		Plan: func(c *writ.Call, a *GrantArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			if err := byPeople(op, c); err != nil {
				return tx, reply, err
			}
			key := writ.EgressGrantKey(a.ID)
			g, version, ok, err := writ.Get[writ.EgressGrant](s, key)
			if err != nil {
				return tx, reply, err
			}
			if !ok {
				return tx, reply, writ.Refuse(writ.CodeNotFound, op, "there is no such grant", "egress.grants shows all")
			}
			if err := c.Match(op, version); err != nil {
				return tx, reply, err
			}
			if !writ.EgressMoves.May(g.State, writ.EgressRevoked) {
				return tx, reply, writ.IllegalMove(op, "grant", string(g.State), string(writ.EgressRevoked))
			}
			tx.Unindex(writ.IndexEgress, string(g.ID))
			tx.Unindex(writ.IndexEgressHosts, writ.EgressHost(g.Host, g.Port, g.ID))
			tx.Move(writ.ObjectEgress, string(g.ID), string(g.State), string(writ.EgressRevoked))
			g.State, g.UpdatedAt, g.Receipt = writ.EgressRevoked, s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			for _, n := range []writ.Counter{writ.EgressSecond(a.ID), writ.EgressBegun(a.ID)} {
				v := s.Counters[n]
				tx.Within(n, v, v)
				tx.Add(n, -v)
			}
			tx.Mandate = true // taking back must work in a full store
			reply = writ.Reply{Outcome: writ.OutcomeDone, Body: EgressRevoked{ID: g.ID, State: g.State, Receipt: g.Receipt}, ETag: -1}
			return tx, reply, tx.PutDoc(s, key, writ.ObjectEgress, g)
		},
	})
}
