package queue

import "github.com/writ-gateway/writ"

// Who wants the bytes of artifacts follows from the documents of tasks. What nobody
// wants is removed, so that a task stays on the lists matters; and what is kept is let
// go by a follow-up, so that this one stays matters too.

// keptLost is for how long artifacts are kept of which nothing says any more until
// when: as long as a gateway can be told to, so that nothing goes too early.
const keptLost = 3660 * 24 * 3600 * 1000

func artifactFollowReads(t writ.Task) (rs writ.ReadSet) {
	if len(t.BytesCounted) > 0 {
		rs.Counters = append(rs.Counters, purged(t.ID))
	}
	for _, hex := range hexes(t.Artifacts) {
		rs.Ranges = append(rs.Ranges, writ.Entry{Index: writ.BlobHolders(hex), Member: string(t.ID)}.Range())
	}
	return rs
}

// impliedArtifacts: the bytes of a task's artifacts are kept, and found by who judges
// its run. Once the run has ended they may go.
func impliedArtifacts(t writ.Task, s writ.Snapshot) (out []writ.Implied, err error) {
	r, ok, err := peek[writ.Run](s, writ.RunKey(t.Run))
	if err != nil || !ok {
		return nil, err
	}
	over, kept := writ.RunMoves.Terminal(r.State), false
	made := t.State == writ.TaskDone || t.State == writ.TaskVerifying
	for _, hex := range hexes(t.Artifacts) {
		wants := writ.InIf(true, writ.BlobHolders(hex), string(t.ID), "the task has the artifact")
		wants.May = over
		judged := writ.InIf(true, writ.RunArtifacts(r.ID), hex+" "+string(t.ID), "the task was completed with the artifact, and somebody must accept its run")
		judged.May = over || !made || r.ClosePolicy != writ.CloseVerifier
		out = append(out, wants, judged)
		_, in := wants.In(s)
		kept = kept || in || !over
	}
	if kept {
		out = append(out, promised(todo(todoPurge, string(t.ID)), s.Now+keptLost, "the task has artifacts"))
	}
	return out, nil
}
