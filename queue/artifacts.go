package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// What a task makes and is given. What it declares is fixed when it is enqueued,
// and checked against what it depends on then; so a claim never finds that
// something it must be given will not come.

// TaskProduce declares an artifact a task is to make.
type TaskProduce struct {
	Name      string         `json:"name" doc:"Its name in the task." pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	MediaType string         `json:"media_type" doc:"What it is, in small letters and without parameters, for example application/json." maxLength:"127"`
	Schema    writ.RawObject `json:"schema,omitempty" doc:"JSON Schema it must meet: at most 4 KiB, for JSON objects of at most 48 KiB."`
	Labels    []writ.Label   `json:"labels,omitempty" doc:"The most it may carry, besides the labels the task is enqueued with. Default: the labels of the task." maxItems:"9"`
	MaxBytes  int64          `json:"max_bytes,omitempty" doc:"Most bytes it may have. Default 64 MiB, or 48 KiB with a schema." minimum:"1" maximum:"67108864"`
	Required  bool           `json:"required,omitempty" doc:"Whether the task can be completed without it."`
}

// TaskConsume declares an artifact a task is given.
type TaskConsume struct {
	Name      string `json:"name" doc:"Its name in the task that makes it." pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	From      string `json:"from" doc:"Key of that task; this one must depend on it." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	MediaType string `json:"media_type,omitempty" doc:"What it must be. Default: what that task declares." maxLength:"127"`
	Optional  bool   `json:"optional,omitempty" doc:"Whether this task can begin without it."`
}

// TaskMade says which artifact is of the result of a task.
type TaskMade struct {
	Name   string `json:"name" doc:"Its name, as declared." pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	Digest string `json:"digest" doc:"Its digest, as artifact.put gave it." pattern:"^sha256:[0-9a-f]{64}$"`
}

// TaskArtifact is an artifact as callers see it.
type TaskArtifact struct {
	Name      string       `json:"name" doc:"Its name in the task."`
	Digest    string       `json:"digest" doc:"SHA-256 of its bytes."`
	MediaType string       `json:"media_type" doc:"What it is."`
	Size      int64        `json:"size" doc:"How many bytes it has."`
	Labels    []writ.Label `json:"labels" doc:"What kinds of data it carries."`
}

// TaskInput is an artifact a task is given.
type TaskInput struct {
	TaskArtifact
	From writ.TaskID `json:"from_task_id" doc:"Task that made it."`
}

// produces brings the declarations of a request, of a task with these labels, into
// their stored form.
func (e enqueuer) produces(in []TaskProduce, of []writ.Label) ([]writ.Produce, error) {
	if len(in) > writ.MaxArtifacts {
		return nil, invalid(opEnqueue, "/produces", "are too many")
	}
	var out []writ.Produce
	for i, p := range in {
		at := "/produces/" + strconv.Itoa(i)
		most := int64(writ.MaxArtifactBytes)
		if len(p.Schema) > 0 {
			most = writ.MaxCheckedBytes
		}
		if p.MaxBytes == 0 {
			p.MaxBytes = most
		}
		switch {
		case !writ.ValidArtifactName(p.Name):
			return nil, invalid(opEnqueue, at+"/name", "must begin with a letter and hold small letters, digits, dots, dashes and underscores")
		case slices.ContainsFunc(out, func(o writ.Produce) bool { return o.Name == p.Name }):
			return nil, invalid(opEnqueue, at+"/name", "is declared twice")
		case !writ.ValidMediaType(p.MediaType):
			return nil, invalid(opEnqueue, at+"/media_type", "must be a media type in small letters, without parameters")
		case p.MaxBytes < 1 || p.MaxBytes > most:
			return nil, invalid(opEnqueue, at+"/max_bytes", "must be 1 to "+strconv.FormatInt(most, 10))
		}
		if len(p.Schema) > 0 {
			if !isJSON(p.MediaType) {
				return nil, invalid(opEnqueue, at+"/schema", "is for JSON only")
			}
			schema, err := canonicalObject(opEnqueue, at+"/schema", p.Schema)
			if err != nil {
				return nil, err
			}
			if len(schema) > writ.MaxArtifactSchema {
				return nil, invalid(opEnqueue, at+"/schema", "is over 4 KiB")
			}
			if err := e.cfg.CheckSchema(schema); err != nil {
				return nil, moved(err, at+"/schema")
			}
			p.Schema = schema
		}
		labels := writ.JoinLabels(p.Labels)
		if len(labels) > 0 { // else whatever the task carries by then
			labels = writ.JoinLabels(labels, of)
		}
		out = append(out, writ.Produce{Name: p.Name, MediaType: p.MediaType, Schema: p.Schema, Labels: labels, MaxBytes: p.MaxBytes, Required: p.Required})
	}
	return out, nil
}

func isJSON(mediaType string) bool {
	return mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")
}

// consumes is produces for what a task is given.
func consumes(in []TaskConsume, on []writ.Dependency) ([]writ.Consume, error) {
	if len(in) > writ.MaxArtifacts {
		return nil, invalid(opEnqueue, "/consumes", "are too many")
	}
	var out []writ.Consume
	for i, c := range in {
		at := "/consumes/" + strconv.Itoa(i)
		switch {
		case !writ.ValidArtifactName(c.Name):
			return nil, invalid(opEnqueue, at+"/name", "must begin with a letter and hold small letters, digits, dots, dashes and underscores")
		case !slices.ContainsFunc(on, func(d writ.Dependency) bool { return d.Key == c.From }):
			return nil, invalid(opEnqueue, at+"/from", "must be a task this one depends on")
		case c.MediaType != "" && !writ.ValidMediaType(c.MediaType):
			return nil, invalid(opEnqueue, at+"/media_type", "must be a media type in small letters, without parameters")
		case slices.ContainsFunc(out, func(o writ.Consume) bool { return o.Name == c.Name && o.From == c.From }):
			return nil, invalid(opEnqueue, at, "is declared twice")
		}
		out = append(out, writ.Consume{Name: c.Name, From: c.From, MediaType: c.MediaType, Optional: c.Optional})
	}
	return out, nil
}

// fed checks what a new task is given against what the tasks it depends on make.
func fed(s writ.Snapshot, t writ.Task) error {
	for i, c := range t.Consumes {
		at := "/consumes/" + strconv.Itoa(i)
		j := slices.IndexFunc(t.DependsOn, func(d writ.Dependency) bool { return d.Key == c.From })
		dep := t.DependsOn[j] // consumes has looked
		maker, _, err := loadTask(opEnqueue, s, dep.Task)
		if err != nil {
			return err
		}
		p, ok := maker.Produced(c.Name)
		switch {
		case !ok:
			return invalid(opEnqueue, at+"/name", "is nothing that task makes")
		case c.MediaType != "" && c.MediaType != p.MediaType:
			return invalid(opEnqueue, at+"/media_type", "is not what that task makes")
		case c.Optional:
		case !p.Required:
			return invalid(opEnqueue, at+"/optional", "must be true: that task can be completed without it")
		case dep.OnFailure == writ.DependencyContinue, dep.When == writ.EndFailed:
			return invalid(opEnqueue, at+"/optional", "must be true: this task goes on when that one fails")
		case t.Join.Any():
			return invalid(opEnqueue, at+"/optional", "must be true: this task begins when another one it depends on has ended")
		}
	}
	return nil
}

// makers names the tasks whose artifacts a task is given.
func makers(t writ.Task) (out []writ.Key) {
	for _, c := range t.Consumes {
		for _, d := range t.DependsOn {
			if k := writ.TaskKey(d.Task); d.Key == c.From && !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	return out
}

// inputs are the artifacts a task is given, of what its makers were completed
// with. It wants makers.
func inputs(s writ.Snapshot, t writ.Task) (out []TaskInput, err error) {
	for _, c := range t.Consumes {
		i := slices.IndexFunc(t.DependsOn, func(d writ.Dependency) bool { return d.Key == c.From })
		if i < 0 {
			continue
		}
		maker, _, err := loadTask(opClaim, s, t.DependsOn[i].Task)
		if err != nil {
			return nil, err
		}
		if a, ok := maker.Artifact(c.Name); ok && t.DependsOn[i].CameAbout(maker) && maker.Gave() && carries(t, a) {
			out = append(out, TaskInput{shownArtifact(maker, a), maker.ID})
		}
	}
	return out, nil
}

// carries says whether a task was given an artifact, or will be: where one of those
// it depends on was enough for it to begin, others end while it runs. What they made
// it has not taken the labels of.
func carries(t writ.Task, a writ.Artifact) bool {
	waits := t.State == writ.TaskBlocked || t.State == writ.TaskQueued
	return waits || !slices.ContainsFunc(a.Labels, func(l writ.Label) bool { return !slices.Contains(t.Labels, l) })
}

// carry gives a task about to be claimed the labels of what it is given: what it
// makes of that is no less delicate.
func carry(s writ.Snapshot, t *writ.Task) error {
	if len(t.Consumes) == 0 || t.State != writ.TaskQueued {
		return nil
	}
	given, err := inputs(s, *t)
	for _, in := range given {
		t.Labels = writ.JoinLabels(t.Labels, in.Labels)
	}
	return err
}

// most are the labels an artifact may carry: those declared, or else the task's.
func most(t writ.Task, p writ.Produce) []writ.Label {
	if len(p.Labels) > 0 {
		return p.Labels
	}
	return t.Labels
}

// madeInRun lists what the tasks of a run were completed with.
func madeInRun(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunArtifacts(id), Limit: writ.MaxRunArtifacts}
}

// made makes artifacts that were put in this attempt those of the task. What was
// put and is not named is let go.
func (d *draft) made(t *writ.Task, r writ.Run, named []TaskMade) error {
	var kept []writ.Artifact
	for i, m := range named {
		at := "/artifacts/" + strconv.Itoa(i)
		a, ok := t.Artifact(m.Name)
		switch {
		case !ok:
			return invalid(d.op, at+"/name", "was not put for this attempt; put it first")
		case a.Digest != m.Digest:
			return invalid(d.op, at+"/digest", "is not what was put last under this name")
		case slices.ContainsFunc(kept, func(k writ.Artifact) bool { return k.Name == m.Name }):
			return invalid(d.op, at+"/name", "is named twice")
		}
		kept = append(kept, a)
		t.Labels = writ.JoinLabels(t.Labels, a.Labels)
	}
	var missing []string
	for _, p := range t.Produces {
		if p.Required && !slices.ContainsFunc(kept, func(k writ.Artifact) bool { return k.Name == p.Name }) {
			missing = append(missing, p.Name)
		}
	}
	if len(missing) > 0 {
		e := writ.Refuse(writ.CodeInputInvalid, d.op, "artifacts are missing that the task must make", "put those named in details, and name them in artifacts")
		e.Fields = []writ.FieldError{{Pointer: "/artifacts", Msg: "does not name all the task must make"}}
		return e.With("missing", strings.Join(missing, ","))
	}
	d.attach(t, kept, t.BytesCounted)
	if r.ClosePolicy != writ.CloseVerifier {
		return nil
	}
	if len(d.s.Ranges[madeInRun(r.ID)].Members)+len(kept) > writ.MaxRunArtifacts {
		return writ.Refuse(writ.CodeQuota, d.op, "the run has as many artifacts as somebody can accept with it", "complete the task with fewer, or divide the work among runs")
	}
	for _, a := range kept {
		d.tx.Index(writ.RunArtifacts(r.ID), hexOf(a.Digest)+" "+string(t.ID), 0)
	}
	return nil
}

// labelsMade are those of artifacts that were put and are named.
func labelsMade(t writ.Task, named []TaskMade) (out []writ.Label) {
	for _, m := range named {
		made, _ := t.Artifact(m.Name)
		out = writ.JoinLabels(out, made.Labels)
	}
	return out
}

// attach makes artifacts those of a task, keeps the lists of who wants which bytes, and
// counts these in the quotas of tags instead of those they counted in.
func (d *draft) attach(t *writ.Task, now []writ.Artifact, tags []string) {
	if len(now) == 0 {
		tags = nil
	}
	d.tx.Recount(t.BytesCounted, bytesOf(t.Artifacts), tags, bytesOf(now))
	t.BytesCounted = tags
	for _, hex := range hexes(t.Artifacts) {
		if !slices.Contains(hexes(now), hex) {
			d.tx.Unindex(writ.BlobHolders(hex), string(t.ID))
			d.tx.Unindex(writ.RunArtifacts(t.Run), hex+" "+string(t.ID))
		}
	}
	for _, hex := range hexes(now) {
		if !slices.Contains(hexes(t.Artifacts), hex) {
			d.tx.Index(writ.BlobHolders(hex), string(t.ID), 0)
		}
	}
	t.Artifacts = now
}

func bytesOf(all []writ.Artifact) (n int64) {
	for _, a := range all {
		n += a.Size
	}
	return n
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func hexes(all []writ.Artifact) (out []string) {
	for _, a := range all {
		if hex := hexOf(a.Digest); !slices.Contains(out, hex) {
			out = append(out, hex)
		}
	}
	return out
}

// digests are those of a task's artifacts, each once.
func digests(t writ.Task) (out []string) {
	for _, hex := range hexes(t.Artifacts) {
		out = append(out, "sha256:"+hex)
	}
	return out
}

// partsRead says whether all that tells the part somebody had is read by now.
func partsRead(s writ.Snapshot, rs writ.ReadSet) bool {
	return !slices.ContainsFunc(rs.Ranges, func(r writ.Range) bool { _, read := s.Ranges[r]; return !read })
}

// sound refuses when the bytes of an artifact are not what was judged.
func sound(op string, s writ.Snapshot, digests []string) error {
	for _, d := range digests {
		if s.Blobs[d] != writ.BlobIntact {
			return writ.Unsound(op, d, s.Blobs[d])
		}
	}
	return nil
}

func shownArtifact(t writ.Task, a writ.Artifact) TaskArtifact {
	p, _ := t.Produced(a.Name)
	return TaskArtifact{Name: a.Name, Digest: a.Digest, MediaType: p.MediaType, Size: a.Size, Labels: a.Labels}
}

func shownArtifacts(t writ.Task) (out []TaskArtifact) {
	for _, a := range t.Artifacts {
		out = append(out, shownArtifact(t, a))
	}
	return out
}

func shownProduces(t writ.Task) (out []TaskProduce) {
	for _, p := range t.Produces {
		out = append(out, TaskProduce{p.Name, p.MediaType, p.Schema, p.Labels, p.MaxBytes, p.Required})
	}
	return out
}

func shownConsumes(t writ.Task) (out []TaskConsume) {
	for _, c := range t.Consumes {
		out = append(out, TaskConsume(c))
	}
	return out
}
