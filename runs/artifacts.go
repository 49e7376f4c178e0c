package runs

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// artifacts lists what the tasks of a run were completed with. While the run waits
// for its verdict nothing is added.
func artifacts(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunArtifacts(id), Limit: 1000}
}

// digests are those of the artifacts, each once.
func digests(members []writ.Member) (out []string) {
	for _, m := range members {
		hex, _, _ := strings.Cut(m.Name, " ")
		if d := "sha256:" + hex; !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// judges says whether a caller may judge a run, as far as the parts it had are
// read.
func judges(s writ.Snapshot, run writ.Run, c writ.Caller, keys []writ.PublicKey) bool {
	if c.Role != writ.RoleVerifier {
		return false
	}
	for _, r := range writ.DutyReads(run.Tree(), c, keys) {
		if _, read := s.Ranges[r]; !read {
			return false
		}
	}
	return writ.DutyIn(s, run.Tree(), c, keys).Independent()
}

// owed lists which gates the results of a run have not passed that they must.
func owed(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunOwed(id), Limit: 16}
}

// passed refuses when a result of a run has not passed a gate that it must: one that
// the task names, or the agent that did it.
func passed(op string, s writ.Snapshot, run writ.RunID) error {
	var missing []string
	for _, m := range s.Ranges[owed(run)].Members {
		gate, task, _ := strings.Cut(m.Name, " ")
		missing = append(missing, "gates/"+gate+"/"+task)
	}
	if len(missing) == 0 {
		return nil
	}
	return writ.Refuse(writ.CodePredicate, op, "results of the run have not passed gates that they must", "reject the run, so that its owner enqueues them: each a task that depends on the one named").
		With("missing", strings.Join(missing, ","))
}

// sound refuses when the bytes of an artifact are not what was judged, or are more
// than was read.
func sound(op string, s writ.Snapshot, run writ.RunID) error {
	made := s.Ranges[artifacts(run)].Members
	if len(made) == artifacts(run).Limit {
		return writ.Refuse(writ.CodePredicate, op, "the run has more artifacts than can be looked at", "reject the run")
	}
	for _, d := range digests(made) {
		if s.Blobs[d] != writ.BlobIntact {
			return writ.Unsound(op, d, s.Blobs[d])
		}
	}
	return nil
}
