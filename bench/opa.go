package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

// opaServer is `opa run --server` with the shipped packs.
type opaServer struct {
	*process
	url string
}

// opaRule asks for what the gateway's own query asks for: the findings of every
// pack routed to a task's call, as one array.
const opaRule = `package bench

findings := [
	data.packs.approvals.findings,
	data.packs.budgets.findings,
	data.packs.classification.findings,
	data.packs.lifecycle.findings,
	data.packs.sod.findings,
	data.packs.write_scopes.findings,
]
`

// startOPA starts the version of OPA that go.mod names.
func (b *bench) startOPA(ctx context.Context, env []string, flags ...string) (opaServer, error) {
	binary, err := output(ctx, b.root, "go", "tool", "-modfile=tools.mod", "-n", "opa")
	if err != nil {
		return opaServer{}, err
	}
	dir, err := b.scratch()
	if err != nil {
		return opaServer{}, err
	}
	rule := filepath.Join(dir, "bench.rego")
	if err := os.WriteFile(rule, []byte(opaRule), 0o600); err != nil {
		return opaServer{}, err
	}
	addr, err := freeAddr()
	if err != nil {
		return opaServer{}, err
	}
	s := opaServer{url: "http://" + addr}
	args := append([]string{"run", "--server", "--addr", addr}, flags...)
	args = append(args, filepath.Join(b.root, "policies", "packs"), rule)
	s.process, err = spawn(ctx, dir, nil, func() bool { return get(ctx, s.url+"/health") == nil }, env, binary, args...)
	return s, err
}

// policyInput is the document the gateway judged a planner's task.enqueue by.
// OPA cannot look anything up, so it is sent all of it. That it is the same
// document is proven by the receipt, which names its digest.
func policyInput(ctx context.Context, g *gateway) ([]byte, error) {
	p := newPoster(1, g.planner.Token)
	defer p.close()
	answer, header, err := p.post(ctx, g.url+"/v1/tasks", g.task("input"))
	if err != nil {
		return nil, err
	}
	task, err := decode[struct {
		ID writ.TaskID `json:"task_id"`
	}](answer)
	if err != nil {
		return nil, err
	}
	receipt, err := g.planner.GetReceipt(ctx, writ.ReceiptID(header.Get("Receipt-Id")))
	if err != nil {
		return nil, err
	}
	signed, err := decode[struct {
		Predicate struct {
			Commit   struct{ At time.Time }
			Decision struct{ Input string }
		}
	}](receipt.Statement)
	if err != nil {
		return nil, err
	}
	at := signed.Predicate.Commit.At.Truncate(time.Second)
	for range 3 { // judged at most a moment before the commit
		input, err := json.Marshal(inputAt(g, task.ID, at.UnixMilli()))
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(input)
		if strings.TrimPrefix(signed.Predicate.Decision.Input, "sha256:") == hex.EncodeToString(sum[:]) {
			return json.Marshal(map[string]json.RawMessage{"input": input})
		}
		at = at.Add(-time.Second)
	}
	return nil, errors.New("the input for OPA is not the one the gateway judged: policies/schema/input.json has changed")
}

// inputAt writes the input out. Keys sorted and everything ASCII, encoding/json
// makes canonical JSON of it.
func inputAt(g *gateway, task writ.TaskID, nowMs int64) map[string]any {
	type m = map[string]any
	return m{
		"agent": m{"id": plannerAgent, "domain": domain, "status": writ.AgentActive, "write_scope": []string{}},
		"budget": m{
			writ.BudgetSteps: m{"band": 0, "cost": 0, "fits": true, "limit": runSteps, "on_exceed": "hard_stop"},
			writ.BudgetWall:  m{"band": 0, "cost": 0, "fits": true, "limit": writ.MaxRunMs, "on_exceed": "hard_stop"},
		},
		"call":      m{"capability": "task.enqueue", "class": writ.Ordinary, "safety": writ.SafetyMutating},
		"env":       m{"now_ms": nowMs},
		"labels":    []writ.Label{writ.LabelInternalSystem},
		"principal": m{"kind": writ.KindAgent},
		"quotas":    []string{},
		"run":       m{"id": g.run, "state": writ.RunActive},
		"scopes":    m{"requested": []string{taskScope}},
		"session":   m{"id": g.planner.ID, "role": writ.RoleOrchestrator, "state": writ.SessionActive},
		"sinks":     []string{},
		"task": m{
			"approval": writ.ApprovalAuto, "capability": capability, "deferred": false, "domain": domain, "id": task,
			"owned_elsewhere": false, "raised": false, "safety": writ.SafetyMutating, "state": writ.TaskQueued,
		},
	}
}

// allowed is OPA's answer when no pack finds anything.
var allowed = []byte(`{"result":[[],[],[],[],[],[]]}`)

// ask makes one query and checks that it says what the gateway said.
func (s opaServer) ask(ctx context.Context, p *poster, input []byte) error {
	answer, _, err := p.post(ctx, s.url+"/v1/data/bench/findings", input)
	if err == nil && !bytes.Equal(bytes.TrimSpace(answer), allowed) {
		err = fmt.Errorf("OPA decides otherwise than the gateway: %s", answer)
	}
	return err
}
