package grants

import (
	"github.com/writ-gateway/writ"
)

// What lists hold about grants follows from their documents. This file says how, for who
// looks whether it still does; no verb uses it.

// Follower says what follows from the documents of grants.
func Follower() writ.Follower {
	return writ.Follower{Kind: writ.ObjectEgress, Reads: noReads, Sound: coherent, Implies: implies, Counts: noCounts}
}

func noReads(string, writ.Snapshot) (writ.ReadSet, error) { return writ.ReadSet{}, nil }

func noCounts(string, writ.Snapshot) ([]writ.Count, error) { return nil, nil }

func coherent(id string, s writ.Snapshot) (string, error) {
	g, _, _, err := writ.Get[writ.EgressGrant](s, writ.EgressGrantKey(writ.EgressID(id)))
	if err != nil {
		return "", err
	}
	return writ.Incoherent(writ.ObjectEgress, id, string(g.ID), writ.EgressMoves, g.State), nil
}

func implies(id string, s writ.Snapshot) ([]writ.Implied, error) {
	g, _, _, err := writ.Get[writ.EgressGrant](s, writ.EgressGrantKey(writ.EgressID(id)))
	if err != nil {
		return nil, err
	}
	is, why := g.State == writ.EgressActive, "the grant is "+string(g.State)
	return []writ.Implied{
		writ.InIf(is, writ.IndexEgress, id, why),
		writ.InIf(is, writ.IndexEgressHosts, writ.EgressHost(g.Host, g.Port, g.ID), why),
	}, nil
}
