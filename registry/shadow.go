package registry

import "github.com/writ-gateway/writ"

// PolicyShadowArgs are empty.
type PolicyShadowArgs struct{}

// PolicyShadow is what packs in shadow would have done.
type PolicyShadow struct {
	Packs []ShadowedPack `json:"packs" doc:"Packs in shadow, by id."`
}

// ShadowedPack is one pack in shadow.
type ShadowedPack struct {
	ID        string           `json:"id" doc:"Id of the pack."`
	Version   string           `json:"version" doc:"Its version."`
	Digest    string           `json:"digest" doc:"sha256 over the files a decision depends on; a pack of another digest begins to count anew."`
	Since     string           `json:"since,omitempty" doc:"When it was first asked (RFC 3339, UTC). Absent: not yet."`
	Evaluated int64            `json:"evaluated" doc:"Decisions it had an answer to: those in the store, and those counted by the replica that answers since."`
	Failed    int64            `json:"failed" doc:"Decisions it had no answer to; enforced, it would have refused these calls."`
	Changed   int64            `json:"would_change" doc:"Decisions it would have made stronger."`
	Changes   []ShadowedChange `json:"changes" doc:"By rule, and by what was enforced."`
}

// ShadowedChange is what one rule of a pack in shadow would have changed.
type ShadowedChange struct {
	Rule    string      `json:"rule" doc:"Id of the rule."`
	From    writ.Effect `json:"from" doc:"What was enforced." enum:"allow,redact,require_approval,deny"`
	To      writ.Effect `json:"to" doc:"What the rule asks for." enum:"allow,redact,require_approval,deny"`
	Count   int64       `json:"count" doc:"How often."`
	Samples []string    `json:"samples" doc:"The newest of these decisions: ids of receipts, or of calls that left none."`
}

// policyShadow lists the packs in shadow with what they would have changed.
func policyShadow(cfg Config) *writ.Capability {
	return writ.Define[PolicyShadowArgs, PolicyShadow](writ.Capability{
		ID: "policy.shadow", Safety: writ.SafetyReadOnly,
		Example: `{}`,
		Summary: "List the packs in shadow and which decisions they would have changed.",
	}, writ.Verb[PolicyShadowArgs]{
		Reads: func(*writ.Call, *PolicyShadowArgs, writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.ShadowKey}}, nil
		},
		Plan: func(c *writ.Call, _ *PolicyShadowArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if cfg.Shadow == nil {
				return tx, r, notReady("registry.PolicyShadow")
			}
			doc, _, _, err := writ.Get[writ.Shadow](s, writ.ShadowKey)
			if err != nil {
				return tx, r, err
			}
			now, pending := cfg.Shadow(c.Caller.Tenant)
			counted := map[string]writ.ShadowPack{}
			for _, p := range doc.With(now, pending).Packs {
				counted[p.ID] = p
			}
			out := PolicyShadow{Packs: []ShadowedPack{}}
			for _, v := range now {
				out.Packs = append(out.Packs, shadowed(v, counted[v.ID]))
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

func shadowed(v writ.PackVer, p writ.ShadowPack) ShadowedPack {
	out := ShadowedPack{
		ID: v.ID, Version: v.Version, Digest: v.Digest, Evaluated: p.Evaluated, Failed: p.Failed, Changed: p.Changed, Changes: []ShadowedChange{},
	}
	if p.Since > 0 {
		out.Since = writ.FormatTime(p.Since)
	}
	for _, c := range p.Changes {
		out.Changes = append(out.Changes, ShadowedChange{Rule: c.Rule, From: c.From, To: c.To, Count: c.Count, Samples: c.Samples})
	}
	return out
}
