package queue

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// ArtifactPutArgs come with the bytes of an artifact.
type ArtifactPutArgs struct {
	Task   writ.TaskID  `json:"task_id" doc:"The task it is of." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Name   string       `json:"name" doc:"Its name, as the task declares it." pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	Lease  writ.LeaseID `json:"lease_id" doc:"Lease the claim gave." pattern:"^lse_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Fence  int64        `json:"fence" doc:"Fence the claim gave." minimum:"1" maximum:"9007199254740991"`
	Media  string       `json:"media_type,omitempty" doc:"What it is. Default: what the task declares." maxLength:"127"`
	Label  writ.Label   `json:"label,omitempty" doc:"Kind of data it carries; unknown labels count as pii.chat.message. It carries those of the task besides. Default: those the task declares for it."`
	Digest string       `json:"digest,omitempty" doc:"SHA-256 its bytes must have. Default: any." pattern:"^sha256:[0-9a-f]{64}$"`
	Size   int64        `json:"size,omitempty" doc:"How many bytes there are. Default: Content-Length, if it is sent." minimum:"0" maximum:"67108864"`
}

// FenceCarried is what the receipt states.
func (a *ArtifactPutArgs) FenceCarried() int64 { return a.Fence }

// Received implements [writ.Receiver].
func (a *ArtifactPutArgs) Received(r writ.Received) (blind bool, err error) {
	switch {
	case a.Digest != "" && a.Digest != r.Digest:
		return false, invalid(opArtifactPut, "/digest", "is not that of the bytes that came")
	case a.Size != 0 && a.Size != r.Size:
		return false, invalid(opArtifactPut, "/size", "is not how many bytes came")
	}
	blind = a.Digest == ""
	a.Digest, a.Size = r.Digest, r.Size
	return blind, nil
}

const opArtifactPut = "queue.ArtifactPut"

// artifactPutCapability is artifact.put: the holder of a task stores what the task
// makes. The same name again replaces what was put before; nothing of it is the
// task's before the task is completed with it.
func artifactPutCapability(cfg Config) *writ.Capability {
	return writ.Define[ArtifactPutArgs, TaskArtifact](writ.Capability{
		ID: "artifact.put", Summary: "Store an artifact of a task one holds.", Safety: writ.SafetyMutating, Steps: 1,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","lease_id":"lse_01M89R87A1XW9VX2J6QY4SBD3M","fence":9,"name":"site","media_type":"application/zip"}`,
	}, writ.Verb[ArtifactPutArgs]{
		Locks: func(_ *writ.Call, a *ArtifactPutArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *ArtifactPutArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := taskReads(opArtifactPut, s, a.Task)
			rs.Docs = append(append(rs.Docs, callerAgent(c)...), writ.GivenKey(c.Caller.Session))
			if err == nil {
				rs.Counters = append(rs.Counters, leaseEnd(a.Task))
			}
			return rs, err
		},
		Describe: func(c *writ.Call, a *ArtifactPutArgs, s writ.Snapshot) (writ.Subject, error) {
			t, _, err := loadTask(opArtifactPut, s, a.Task)
			if err != nil {
				return writ.Subject{}, err
			}
			sub, err := subjectOf(opArtifactPut, c, s, t)
			if p, ok := t.Produced(a.Name); ok {
				sub.Labels = writ.JoinLabels(sub.Labels, carried(t, p, a))
			}
			if !repeated(c, t, a) {
				sub.Charge = writ.Charge{writ.BudgetStorage: a.Size}
				if old, ok := t.Artifact(a.Name); ok {
					sub.Gives = old.Size
				}
			}
			return sub, err
		},
		Plan: func(c *writ.Call, a *ArtifactPutArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return putPlan(cfg, c, a, s)
		},
	})
}

// carried are the labels an artifact is put with: those of the task, since it may
// be made of anything the task was given, and what its holder says or else the
// task declares.
func carried(t writ.Task, p writ.Produce, a *ArtifactPutArgs) []writ.Label {
	if a.Label == "" {
		return writ.JoinLabels(t.Labels, p.Labels)
	}
	return writ.JoinLabels(t.Labels, []writ.Label{a.Label})
}

// repeated says whether the task has this very artifact already.
func repeated(c *writ.Call, t writ.Task, a *ArtifactPutArgs) bool {
	p, _ := t.Produced(a.Name)
	old, ok := t.Artifact(a.Name)
	return ok && c.Received != nil && old.Digest == c.Received.Digest && slices.Equal(old.Labels, carried(t, p, a))
}

func putPlan(cfg Config, c *writ.Call, a *ArtifactPutArgs, s writ.Snapshot) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(opArtifactPut, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	if err := holder(opArtifactPut, c, t, version, TaskHold{a.Task, a.Lease, a.Fence}); err != nil {
		return refuse(err)
	}
	d := begin(opArtifactPut, c, s)
	if err := d.inTime(t.ID); err != nil {
		return refuse(err)
	}
	if err := c.Match(opArtifactPut, version); err != nil {
		return refuse(err)
	}
	if r.State != writ.RunActive && r.State != writ.RunPausedApproval { // what has begun may end while the run waits
		return refuse(runEnded(opArtifactPut, r))
	}
	if c.Body == nil {
		return refuse(writ.Refuse(writ.CodeMalformed, opArtifactPut, "the call came without the bytes", "PUT /v1/artifacts takes them as its body, and the arguments in the query"))
	}
	p, err := a.fits(t)
	if err != nil {
		return refuse(err)
	}
	made := writ.Artifact{Name: a.Name, Digest: a.Digest, Size: a.Size, Labels: carried(t, p, a)}
	reply := writ.Reply{Outcome: writ.OutcomeCreated, Body: shownArtifact(t, made), Accept: p.MaxBytes}
	if a.Size > 0 {
		reply.Accept = a.Size
	}
	if got := c.Received; got != nil {
		if got.Size != a.Size { // policy has made it smaller
			return refuse(writ.Refuse(writ.CodeTooLarge, opArtifactPut, "it has more bytes than policy allows", "make it smaller"))
		}
		if len(p.Schema) > 0 {
			if err := cfg.meets(p.Schema, got.Small); err != nil {
				return refuse(err)
			}
		}
		if repeated(c, t, a) {
			reply.Outcome = writ.OutcomeDone
			return writ.Tx{}, reply, nil
		}
	}
	now := slices.DeleteFunc(slices.Clone(t.Artifacts), func(x writ.Artifact) bool { return x.Name == a.Name })
	now = append(now, made)
	slices.SortFunc(now, func(x, y writ.Artifact) int {
		if x.Name < y.Name {
			return -1
		}
		return 1
	})
	if c.Received == nil {
		now = t.Artifacts // what comes has no digest yet, and this is not committed
	} else if err := d.tx.Give(s, t.Lease.Session, made.Labels); err != nil {
		return refuse(err)
	}
	tags, err := writ.QuotaTags(s, writ.QuotaArtifacts, writ.QuotaCaller(c.Caller, t.Capability))
	if err != nil {
		return refuse(err)
	}
	d.attach(&t, now, tags)
	t.Lease.Fence = t.FenceOf(version) // the version changes, the holder's fence does not
	d.tx.Index(writ.IndexTodo, todo(todoPurge, string(t.ID)), s.Now+cfg.KeepArtifactsMs)
	if err := d.put(&t, writ.TaskRunning); err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	return tx, reply, err
}

// fits checks an artifact against what the task declares, as far as is known
// without its bytes.
func (a *ArtifactPutArgs) fits(t writ.Task) (writ.Produce, error) {
	p, ok := t.Produced(a.Name)
	switch {
	case !ok:
		return p, invalid(opArtifactPut, "/name", "is nothing the task is to make")
	case a.Media != "" && a.Media != p.MediaType:
		return p, invalid(opArtifactPut, "/media_type", "is not what the task declares")
	case a.Size > p.MaxBytes:
		return p, invalid(opArtifactPut, "/size", "is more than the task declares")
	}
	for _, l := range carried(t, p, a) {
		switch {
		case slices.Contains(most(t, p), l):
		case slices.Contains(t.Labels, l):
			return p, invalid(opArtifactPut, "/name", "may not carry all the task carries by now, which was given more than it declares")
		default:
			return p, invalid(opArtifactPut, "/label", "is more than the task declares")
		}
	}
	return p, nil
}

// meets holds JSON to a schema.
func (c Config) meets(schema writ.RawObject, b []byte) error {
	value := writ.RawObject(b)
	if !isObject(value) {
		return invalid(opArtifactPut, "/name", "must be a JSON object")
	}
	if err := c.Validate(schema, value); err != nil {
		return moved(err, "")
	}
	return nil
}

const todoPurge = "artifacts"

// purged says, with 1, that the bytes of a task's artifacts count in no quota any more.
func purged(id writ.TaskID) writ.Counter { return writ.TaskProgress(id, "purged") }

// artifactPurgeCapability lets go of the bytes of a task's artifacts once they
// were kept for as long as was said and the run has ended. The task says still
// which they were.
func artifactPurgeCapability(cfg Config) *writ.Capability {
	const op = "queue.ArtifactPurge"
	return writ.Define[ArtifactPurgeArgs, Swept](mandate("artifact.purge", "Let go of artifacts that were kept for long enough."), writ.Verb[ArtifactPurgeArgs]{
		Reads: func(_ *writ.Call, a *ArtifactPurgeArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := taskReads(op, s, a.Task)
			rs.Counters = append(rs.Counters, purged(a.Task))
			return rs, err
		},
		Plan: func(c *writ.Call, a *ArtifactPurgeArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			t, _, r, err := loadBoth(op, s, a.Task)
			if err != nil {
				return writ.Tx{}, writ.Reply{}, err
			}
			d, out := begin(op, c, s), Swept{}
			if !writ.RunMoves.Terminal(r.State) {
				d.tx.Index(writ.IndexTodo, todo(todoPurge, string(t.ID)), s.Now+cfg.KeepArtifactsMs)
				return d.swept(out, nil)
			}
			for _, hex := range hexes(t.Artifacts) {
				d.tx.Unindex(writ.BlobHolders(hex), string(t.ID))
				out.Changed++
			}
			if len(t.BytesCounted) > 0 && s.Counters[purged(t.ID)] == 0 { // once, whoever else does it
				d.exactly(purged(t.ID))
				d.set(purged(t.ID), 1)
				d.tx.Recount(t.BytesCounted, bytesOf(t.Artifacts), nil, 0)
			}
			d.tx.Unindex(writ.IndexTodo, todo(todoPurge, string(t.ID)))
			return d.swept(out, nil)
		},
	})
}

// ArtifactPurgeArgs name a task.
type ArtifactPurgeArgs struct {
	Task writ.TaskID `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}
