package daemon

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store/blobs"
	"github.com/writ-gateway/writ/workflow"
)

// mostWrong bounds how many places of a workflow one refusal names.
const mostWrong = 1000

// checkWorkflow is package workflow as the runs want it: what is wrong stands where it
// does in the arguments of run.create, and nothing of them is repeated that has not the
// form of a key.
func checkWorkflow(graph writ.RawObject, budget map[string]int64) (steps int64, gives []writ.RunOutput, wrong []writ.FieldError) {
	w, all := workflow.ParseGraph(graph, budget)
	for _, p := range all[:min(len(all), mostWrong)] {
		at := p.Pointer
		if !strings.HasPrefix(at, "/budget") {
			at = "/workflow" + known(at)
		}
		wrong = append(wrong, writ.FieldError{Pointer: at, Msg: p.Msg})
	}
	return int64(len(w.Steps)), w.Gives(), wrong
}

// known is a pointer into a workflow as far as it has words that are ours, keys of steps
// and places in lists.
func known(pointer string) string {
	parts := strings.Split(pointer, "/")
	if len(parts) > 2 && (parts[1] == "steps" && !writ.ValidSlug(parts[2]) || parts[1] == "outputs" && !writ.ValidArtifactName(parts[2])) {
		return "/" + parts[1]
	}
	return pointer
}

// stepsOf are the steps of a workflow as calls, each after all it waits for.
func stepsOf(w workflow.Workflow, run writ.RunID) (out []guard.Step) {
	for n, level := range w.Levels() {
		for _, key := range level {
			id, args := w.Call(run, key)
			out = append(out, guard.Step{Key: key, Level: n, Capability: id, Args: args})
		}
	}
	return out
}

// readSteps reads what a run was created with.
func (d *Daemon) readSteps(ctx context.Context, digest string, run writ.RunID) ([]guard.Step, error) {
	r, err := d.artifacts.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(io.LimitReader(r, writ.MaxWorkflowBytes+1))
	if errors.Is(err, blobs.ErrDamaged) {
		return nil, writ.Unsound("daemon.readSteps", digest, writ.BlobDamaged)
	}
	if err != nil {
		return nil, err
	}
	// What it may use was looked at when it was accepted.
	w, wrong := workflow.ParseGraph(b, map[string]int64{writ.BudgetSteps: writ.MaxAmount})
	if len(wrong) > 0 {
		return nil, writ.Refuse(writ.CodeInputInvalid, "daemon.readSteps", "what is stored is no sound workflow", "create the run again")
	}
	return stepsOf(w, run), nil
}
