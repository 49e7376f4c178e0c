package queue

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// ArtifactAttachArgs name the directory of artifacts a replica uses.
type ArtifactAttachArgs struct {
	Store string `json:"store" doc:"Name of the directory: 32 hex digits." pattern:"^[0-9a-f]{32}$"`
}

// artifactAttachCapability says once and for all which directory of artifacts goes
// with this store. A replica that uses another one is refused, and does not start:
// it would not see what the others keep.
func artifactAttachCapability() *writ.Capability {
	const op = "queue.ArtifactAttach"
	mine := writ.Range{Index: writ.IndexBlobStore, Limit: 2}
	return writ.Define[ArtifactAttachArgs, Swept](mandate("artifact.attach", "Use a directory of artifacts."), writ.Verb[ArtifactAttachArgs]{
		Reads: func(*writ.Call, *ArtifactAttachArgs, writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Ranges: []writ.Range{mine}}, nil
		},
		Plan: func(c *writ.Call, a *ArtifactAttachArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			if len(a.Store) != 32 || strings.Trim(a.Store, "0123456789abcdef") != "" {
				return writ.Tx{}, writ.Reply{}, notFound(op, "directory of artifacts")
			}
			d := begin(op, c, s)
			switch members := s.Ranges[mine].Members; {
			case len(members) == 0:
				d.tx.Index(writ.IndexBlobStore, a.Store, 0)
				return d.swept(Swept{Changed: 1}, nil)
			case len(members) == 1 && members[0].Name == a.Store:
				return d.swept(Swept{}, nil)
			}
			return d.swept(Swept{}, writ.Refuse(writ.CodeExists, op, "another directory of artifacts goes with this store", "use that one"))
		},
	})
}
