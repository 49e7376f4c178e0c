package queue

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// ArtifactGetArgs name an artifact by its digest, and the task one knows it from.
type ArtifactGetArgs struct {
	Digest string      `json:"digest" doc:"SHA-256 of its bytes." pattern:"^sha256:[0-9a-f]{64}$"`
	Task   writ.TaskID `json:"task_id" doc:"A task that made it or is given it." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

const opArtifactGet = "queue.ArtifactGet"

func artifactGetCapability() *writ.Capability {
	return artifactRead("artifact.get", "Show an artifact without its bytes.")
}

// artifactContentCapability is who may have the bytes. It answers with what
// artifact.get does; the edge sends the bytes then.
func artifactContentCapability() *writ.Capability {
	k := artifactRead("artifact.content", "Read the bytes of an artifact.")
	k.Bytes = true
	return k
}

func artifactRead(id writ.CapabilityID, summary string) *writ.Capability {
	return writ.Define[ArtifactGetArgs, TaskInput](writ.Capability{
		ID: id, Summary: summary, Safety: writ.SafetyReadOnly,
		Example: `{"digest":"sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f","task_id":"tsk_01M89R8776FSMT3FKAH3617HBC"}`,
	}, writ.Verb[ArtifactGetArgs]{
		Reads: func(c *writ.Call, a *ArtifactGetArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := taskReads(opArtifactGet, s, a.Task)
			rs.Docs = append(rs.Docs, callerAgent(c)...)
			if err != nil {
				return rs, err
			}
			t, _, err := peek[writ.Task](s, writ.TaskKey(a.Task))
			rs.Docs = append(append(rs.Docs, makers(t)...), handersOf(s, t)...)
			rs.Counters = append(rs.Counters, leaseEnd(a.Task))
			return rs, err
		},
		Describe: func(c *writ.Call, a *ArtifactGetArgs, s writ.Snapshot) (writ.Subject, error) {
			t, found, err := artifactOf(c, a, s)
			if err != nil {
				return writ.Subject{}, err
			}
			sub, err := subjectOf(opArtifactGet, c, s, t)
			sub.Labels = writ.JoinLabels(sub.Labels, found.Labels)
			return sub, err
		},
		Plan: func(c *writ.Call, a *ArtifactGetArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			_, found, err := artifactOf(c, a, s)
			if err != nil {
				return writ.Tx{}, writ.Reply{}, err
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: found}, nil
		},
	})
}

// artifactOf finds an artifact for who may know of it: who reads all there is to
// the run or may have to judge it, and who holds the task under a lease that has
// not run out. To everybody else there is no such artifact, whatever is stored
// under the digest.
func artifactOf(c *writ.Call, a *ArtifactGetArgs, s writ.Snapshot) (t writ.Task, found TaskInput, err error) {
	t, _, r, err := loadBoth(opArtifactGet, s, a.Task)
	if err != nil {
		return t, found, noArtifact(err)
	}
	agent, bound, err := loadAgent(s, c.Caller.Agent)
	if err != nil {
		return t, found, err
	}
	holds := t.State == writ.TaskRunning && t.Lease != nil && t.Lease.Session == c.Caller.Session && s.Now <= s.Counters[leaseEnd(t.ID)]
	if !holds && !reads(c.Caller, r) && !judges(c.Caller, agent, bound, r, t) {
		return t, found, notFound(opArtifactGet, "artifact")
	}
	for _, x := range t.Artifacts {
		if x.Digest == a.Digest {
			return t, TaskInput{shownArtifact(t, x), t.ID}, nil
		}
	}
	given, err := inputs(s, t)
	if err != nil {
		return t, found, noArtifact(err)
	}
	for _, in := range given {
		if in.Digest == a.Digest {
			return t, in, nil
		}
	}
	found, ok, err := passedOn(s, t, a.Digest)
	if err == nil && !ok {
		err = notFound(opArtifactGet, "artifact")
	}
	return t, found, noArtifact(err)
}

// handersOf names what tells which artifacts were handed to a task.
func handersOf(s writ.Snapshot, t writ.Task) (out []writ.Key) {
	for _, from := range t.HandedBy {
		out = append(out, writ.HandoffKey(from), writ.TaskKey(from))
		if before, ok, err := peek[writ.Task](s, writ.TaskKey(from)); err == nil && ok {
			out = append(out, makers(before)...)
		}
	}
	return out
}

// passedOn finds an artifact that a task was handed by reference, once the task it
// comes from is done: one of its own, or one it was given.
func passedOn(s writ.Snapshot, t writ.Task, digest string) (found TaskInput, ok bool, err error) {
	for _, from := range t.HandedBy {
		h, _, _, err := writ.Get[handoff](s, writ.HandoffKey(from))
		if err != nil {
			return found, false, err
		}
		before, _, err := loadTask(opArtifactGet, s, from)
		if err != nil {
			return found, false, err
		}
		named := slices.ContainsFunc(h.Refs, func(r HandoffRef) bool { return r.Kind == writ.RefArtifact && r.Ref == digest })
		if !named || before.State != writ.TaskDone {
			continue
		}
		has, err := inputs(s, before)
		if err != nil {
			return found, false, err
		}
		for _, x := range before.Artifacts {
			has = append(has, TaskInput{shownArtifact(before, x), before.ID})
		}
		for _, in := range has {
			if in.Digest == digest && carries(t, writ.Artifact{Labels: in.Labels}) {
				return in, true, nil
			}
		}
	}
	return found, false, nil
}

// noArtifact answers for a task nobody knows as for an artifact nobody knows.
func noArtifact(err error) error {
	if writ.CodeOf(err) == writ.CodeNotFound {
		return notFound(opArtifactGet, "artifact")
	}
	return err
}

// ArtifactListArgs ask for the artifacts of a run.
type ArtifactListArgs struct {
	Run   writ.RunID  `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	After writ.TaskID `json:"after,omitempty" doc:"Only those of tasks after this one: next of the page before." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Limit int64       `json:"limit,omitempty" doc:"Tasks per page. Default 50." minimum:"1" maximum:"100"`
}

// ArtifactPage is a page of artifacts, by task.
type ArtifactPage struct {
	Artifacts []TaskInput `json:"artifacts" doc:"The artifacts, in the order their tasks were enqueued."`
	Next      writ.TaskID `json:"next,omitempty" doc:"Pass as after to get the next page; absent on the last one."`
}

func artifactListCapability() *writ.Capability {
	const op = "queue.ArtifactList"
	tasks := func(a *ArtifactListArgs) *TaskListArgs {
		return &TaskListArgs{Run: a.Run, After: a.After, Limit: a.Limit}
	}
	return writ.Define[ArtifactListArgs, ArtifactPage](writ.Capability{
		ID: "artifact.list", Summary: "List the artifacts of a run.", Safety: writ.SafetyReadOnly,
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","limit":20}`,
	}, writ.Verb[ArtifactListArgs]{
		Reads: func(c *writ.Call, a *ArtifactListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			if !a.Run.Valid() {
				return writ.ReadSet{}, notFound(op, "run")
			}
			rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}, Ranges: []writ.Range{page(tasks(a))}}
			for _, m := range s.Ranges[page(tasks(a))].Members {
				rs.Docs = append(rs.Docs, writ.TaskKey(writ.TaskID(m.Name)))
			}
			return rs, nil
		},
		Describe: func(c *writ.Call, a *ArtifactListArgs, s writ.Snapshot) (writ.Subject, error) {
			return describeListed(c, tasks(a), s)
		},
		Plan: func(c *writ.Call, a *ArtifactListArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			if _, err := listed(c, tasks(a), s); err != nil {
				return writ.Tx{}, writ.Reply{}, err
			}
			out := ArtifactPage{Artifacts: []TaskInput{}}
			r := page(tasks(a))
			members := s.Ranges[r].Members
			for _, m := range members {
				t, _, err := loadTask(op, s, writ.TaskID(m.Name))
				if err != nil {
					return writ.Tx{}, writ.Reply{}, err
				}
				for _, x := range t.Artifacts {
					out.Artifacts = append(out.Artifacts, TaskInput{shownArtifact(t, x), t.ID})
				}
			}
			if len(members) == r.Limit {
				out.Next = writ.TaskID(members[len(members)-1].Name)
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
