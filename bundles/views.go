package bundles

import "github.com/writ-gateway/writ"

// BundleView is a bundle as people see it.
type BundleView struct {
	Digest   string           `json:"digest" doc:"Names the bundle: SHA-256 of its canonical, uncompressed form."`
	State    writ.BundleState `json:"state" doc:"Where it stands." enum:"staged,active,retired,refused,withdrawn"`
	Packs    []writ.PackVer   `json:"packs" doc:"What is in it, by id."`
	Policy   string           `json:"policy_revision,omitempty" doc:"Policy revision it has or would have in force."`
	Bindings string           `json:"bindings_revision" doc:"Revision of its roles' file; with bindings by capability on top, the one in force is another."`
	Bytes    int64            `json:"bytes" doc:"Its size, uncompressed."`
	Note     string           `json:"note,omitempty" doc:"What it is for."`
	Source   string           `json:"source" doc:"call: somebody staged it; folder: a replica was started with it." enum:"call,folder"`
	Signer   string           `json:"signer,omitempty" doc:"Id of the key that signed it."`
	Reason   string           `json:"reason,omitempty" doc:"Why it was refused: what the compiler said, with file and line."`
	Replica  string           `json:"replica,omitempty" doc:"The replica that refused it."`
	Replaced string           `json:"replaced,omitempty" doc:"Digest of the bundle that was in force before it."`
	Ready    []string         `json:"ready" doc:"Replicas that are alive and hold it compiled."`
	Waiting  []string         `json:"waiting" doc:"Replicas that are alive and do not."`
	StagedBy writ.PrincipalID `json:"staged_by" doc:"Who staged it last."`
	Created  string           `json:"created_at" doc:"When it was first staged."`
	Updated  string           `json:"updated_at" doc:"When it last changed."`
	Receipt  writ.ReceiptID   `json:"receipt" doc:"Receipt of the last change."`
	Version  int64            `json:"version" doc:"Version of the bundle's document."`
	Content  []byte           `json:"content,omitempty" doc:"The bundle itself, gzip, base64: uncompressed it has the digest. Where content was asked for and the gateway still has it."`
}

func view(s writ.Snapshot, b writ.Bundle) BundleView {
	v := BundleView{
		Digest: b.ID.Digest(), State: b.State, Packs: b.Packs, Policy: b.Policy, Bindings: b.Bindings, Bytes: b.Bytes, Note: b.Note,
		Source: b.Source, Signer: b.Signer, Reason: b.Reason, Replica: b.Replica, Replaced: b.Replaced.Digest(), StagedBy: b.StagedBy,
		Created: writ.FormatTime(b.CreatedAt), Updated: writ.FormatTime(b.UpdatedAt), Receipt: b.Receipt,
		Ready: []string{}, Waiting: []string{}, Version: s.Docs[writ.BundleKey(b.ID)].Version,
	}
	if wanted(b) {
		v.Ready, v.Waiting = readiness(s, b.ID)
	}
	return v
}

// PolicyListArgs say which bundles.
type PolicyListArgs struct {
	Digest string           `json:"digest,omitempty" doc:"Only this bundle." pattern:"^sha256:[0-9a-f]{64}$"`
	State  writ.BundleState `json:"state,omitempty" doc:"Only bundles in this state." enum:"staged,active,retired,refused,withdrawn"`
	Limit  int64            `json:"limit,omitempty" doc:"Bundles looked at." default:"20" minimum:"1" maximum:"100"`

	Content bool `json:"content,omitempty" doc:"Show the bundle itself. Only with digest."`
}

// PolicyList is the newest bundles.
type PolicyList struct {
	Bundles  []BundleView `json:"bundles" doc:"Bundles, the one first staged last comes first."`
	Replicas []string     `json:"replicas" doc:"Replicas that are alive."`
	More     bool         `json:"more,omitempty" doc:"Whether there are older ones."`
}

func pageOf(a *PolicyListArgs) (writ.Range, int) {
	limit := 20
	if a.Limit > 0 {
		limit = int(min(a.Limit, 100))
	}
	return writ.Range{Index: writ.IndexBundles, ByScore: true, Max: writ.MaxAmount, Desc: true, Limit: limit + 1}, limit
}

func (r Room) list() *writ.Capability {
	ids := func(a *PolicyListArgs, s writ.Snapshot) (ids []writ.BundleID, more bool) {
		if a.Digest != "" {
			return []writ.BundleID{writ.BundleOf(a.Digest)}, false
		}
		page, limit := pageOf(a)
		for i, m := range s.Ranges[page].Members {
			if i == limit {
				return ids, true
			}
			ids = append(ids, writ.BundleID(m.Name))
		}
		return ids, false
	}
	return writ.Define[PolicyListArgs, PolicyList](writ.Capability{
		ID: "policy.list", Safety: writ.SafetyReadOnly, Summary: "List policy bundles, newest first, and which replicas are ready for them.",
		Example: `{"limit":5}`,
	}, writ.Verb[PolicyListArgs]{
		Reads: func(_ *writ.Call, a *PolicyListArgs, s writ.Snapshot) (rs writ.ReadSet, err error) {
			page, _ := pageOf(a)
			rs.Ranges = []writ.Range{replicas, page}
			found, _ := ids(a, s)
			for _, id := range found {
				rs.Docs = append(rs.Docs, writ.BundleKey(id))
				if a.Content && a.Digest != "" {
					rs.Docs = append(rs.Docs, writ.ChunkKeys(id)...)
				}
				rs.Ranges = append(rs.Ranges, ready(id))
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *PolicyListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			out := PolicyList{Bundles: []BundleView{}, Replicas: alive(s)}
			if out.Replicas == nil {
				out.Replicas = []string{}
			}
			found, more := ids(a, s)
			out.More = more
			for _, id := range found {
				b, _, ok, err := writ.Get[writ.Bundle](s, writ.BundleKey(id))
				if err != nil {
					return tx, reply, err
				}
				if ok && (a.State == "" || a.State == b.State) {
					v := view(s, b)
					if a.Content && a.Digest != "" && b.Chunks > 0 {
						if v.Content, err = Packed(s, b.ID); err != nil {
							return tx, reply, err
						}
					}
					out.Bundles = append(out.Bundles, v)
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
