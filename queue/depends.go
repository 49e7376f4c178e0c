package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// TaskDependency names a task that must end first.
type TaskDependency struct {
	Key       string                `json:"key" doc:"Key of a task of the same run." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	When      writ.DependencyEnd    `json:"when,omitempty" doc:"Which end of that task this one waits for: done; given, its result, which may still wait for a verdict, to look at that; or failed, to make good what it left. If that one ends another way there is nothing to make good, and this one is cancelled." enum:"done,given,failed" default:"done"`
	OnFailure writ.DependencyPolicy `json:"on_failure,omitempty" doc:"What becomes of this task when that one ends without a result: it fails, it is cancelled (skip), or it goes on." enum:"fail,skip,continue" default:"fail"`
}

// dependencies brings those of a request into their stored form, by key. Which
// tasks they are is known once the run is read.
func dependencies(op, own string, in []TaskDependency) ([]writ.Dependency, error) {
	if len(in) > writ.MaxDependencies {
		return nil, invalid(op, "/depends_on", "are too many")
	}
	var out []writ.Dependency
	for i, d := range in {
		at := "/depends_on/" + strconv.Itoa(i)
		if d.OnFailure == writ.DependencyFail {
			d.OnFailure = ""
		}
		if d.When == writ.EndDone {
			d.When = ""
		}
		switch {
		case !writ.ValidSlug(d.Key):
			return nil, invalid(op, at+"/key", "must be a slug")
		case d.Key == own:
			return nil, invalid(op, at+"/key", "is the task itself")
		case d.OnFailure != "" && d.OnFailure != writ.DependencySkip && d.OnFailure != writ.DependencyContinue:
			return nil, invalid(op, at+"/on_failure", "must be fail, skip or continue")
		case d.When != "" && d.When != writ.EndFailed && d.When != writ.EndGiven:
			return nil, invalid(op, at+"/when", "must be done, given or failed")
		case d.When == writ.EndFailed && d.OnFailure != "":
			return nil, invalid(op, at+"/on_failure", "means nothing for a task that waits for a failure")
		case slices.ContainsFunc(out, func(o writ.Dependency) bool { return o.Key == d.Key }):
			return nil, invalid(op, at+"/key", "is named twice")
		}
		out = append(out, writ.Dependency{Key: d.Key, When: d.When, OnFailure: d.OnFailure})
	}
	slices.SortFunc(out, func(a, b writ.Dependency) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// dependencyReads names what tells which tasks a new one depends on, and where
// those stand.
func dependencyReads(s writ.Snapshot, t writ.Task) ([]writ.Key, error) {
	var out []writ.Key
	for _, d := range t.DependsOn {
		name := writ.TaskNameKey(t.Run, d.Key)
		out = append(out, name)
		taken, ok, err := peek[taskName](s, name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, writ.TaskKey(taken.Task))
		}
	}
	return out, nil
}

// resolve finds the tasks a new one depends on. They are there already, so no
// circle can close.
func resolve(s writ.Snapshot, t writ.Task, asked []TaskDependency) ([]writ.Dependency, error) {
	out := slices.Clone(t.DependsOn)
	for i := range out {
		name, _, ok, err := writ.Get[taskName](s, writ.TaskNameKey(t.Run, out[i].Key))
		if err != nil {
			return nil, err
		}
		if !ok {
			at := slices.IndexFunc(asked, func(a TaskDependency) bool { return a.Key == out[i].Key })
			return nil, invalid(opEnqueue, "/depends_on/"+strconv.Itoa(at)+"/key", "names no task of the run; enqueue that one first")
		}
		out[i].Task = name.Task
	}
	return out, nil
}

// waitedFor names the tasks a task depends on.
func waitedFor(t writ.Task) (out []writ.Key) {
	for _, d := range t.DependsOn {
		out = append(out, writ.TaskKey(d.Task))
	}
	return out
}

// waiting are those of them, as far as read, that a blocked task still waits for.
func waiting(s writ.Snapshot, t writ.Task) (out []writ.TaskID, err error) {
	if t.State != writ.TaskBlocked {
		return nil, nil
	}
	for _, d := range t.DependsOn {
		on, ok, err := peek[writ.Task](s, writ.TaskKey(d.Task))
		if err != nil {
			return nil, err
		}
		if ok && !writ.TaskMoves.Terminal(on.State) && !d.CameAbout(on) {
			out = append(out, d.Task)
		}
	}
	return out, nil
}
