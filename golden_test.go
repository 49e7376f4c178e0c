package writ_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file of testdata/vectors/stored. What is in these
// files lies in the stores of users: a difference is a migration, not an edit.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	writtest.GoldenFile(t, *update, filepath.Join("testdata", "vectors", "stored", name), got)
}

const (
	gRun      writ.RunID      = "run_01ARYZ6S410000000000000000"
	gTask     writ.TaskID     = "tsk_01ARYZ6S410000000000000000"
	gSession  writ.SessionID  = "ses_01ARYZ6S410000000000000000"
	gReceipt  writ.ReceiptID  = "rcp_01ARYZ6S410000000000000000"
	gApproval writ.ApprovalID = "apr_01ARYZ6S410000000000000000"
	gQuota    writ.QuotaID    = "quo_01ARYZ6S410000000000000000"
	gEffect   writ.EffectID   = "eff_01ARYZ6S410000000000000000"
	gSecret   writ.SecretID   = "sec_01ARYZ6S410000000000000000"
	gCall     writ.CallID     = "cll_01ARYZ6S410000000000000000"
	gBundle   writ.BundleID   = "00000000000000000000000000000000000000000000000000000000000000ff"
)

func TestStoredDocuments(t *testing.T) {
	for kind, doc := range map[string]any{
		"agent": writ.Agent{
			ID: "site-builder", Name: "Builder", Description: "Builds.", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web",
			State: writ.AgentActive, Tools: []writ.Tool{{
				Name: "site.build", Description: "Build.", Safety: writ.SafetyMutating, Sinks: []writ.Sink{writ.SinkEgress},
				Costs: &writ.ToolCosts{Money: ptr(2000), Tokens: ptr(500)}, InputSchema: writ.RawObject(`{"type":"object"}`),
			}},
			WriteScope: []string{"fs:site/"}, MaxConcurrent: 4, Routing: &writ.Routing{Keywords: []string{"web site"}, Priority: 3}, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"agent-bounded": writ.Agent{
			ID: "site-builder", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web", State: writ.AgentSuspended, MaxConcurrent: 4,
			Tools:      []writ.Tool{{Name: "site.build", Safety: writ.SafetyMutating, Concern: "pages"}},
			WriteScope: []string{"fs:site/"}, SharesScope: true, Owns: []string{"pages"}, Defers: []writ.Deferral{{Concern: "deployment", To: "spine"}},
			ContractRef: "https://example.com/contract", Gates: []string{"write_scopes"}, SupersededBy: "spine",
			Halt: &writ.Halt{At: 3, Receipt: gReceipt, Revoked: true, SweptAt: 4}, StoppedAt: 3,
			CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"verdict": writ.UsedVerdict{Receipt: gReceipt},
		"session-behind": writ.Session{
			ID: gSession, Principal: "judge", Kind: writ.KindHuman, Role: writ.RoleAuditor, State: writ.SessionRevoked, TokenHash: "00ff",
			Behind: []writ.AgentID{"site-builder"}, Cause: gReceipt, CreatedAt: 1, UpdatedAt: 2, Reason: "agent_revoked", Receipt: gReceipt,
		},
		"given": writ.Given{Labels: []writ.Label{writ.LabelInternalSystem, writ.LabelPIIChatMessage}},
		"session-claims": writ.Session{
			ID: gSession, Principal: "builder", Kind: writ.KindAgent, Role: writ.RoleExecutor, Agent: "site-builder", State: writ.SessionActive, TokenHash: "00ff",
			TTLSeconds: 30, ExpiresAt: 3, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
			WriteClaims: []writ.WriteClaim{{Resource: "fs:site/dist/", Mode: writ.ScopeExclusive}, {Resource: "mem:notes/", Mode: writ.ScopeShared}},
		},
		"agent-keys": writ.Agent{
			ID: "site-builder", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web", State: writ.AgentPlanned, MaxConcurrent: 4,
			Keys:      []writ.PublicKey{{ID: "SHA256:aa", PEM: "-----BEGIN PUBLIC KEY-----\n"}},
			CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"agent-health": writ.Agent{
			ID: "site-builder", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web", State: writ.AgentPlanned, MaxConcurrent: 4,
			Endpoints:   []writ.Endpoint{{Name: "api", URL: "https://agent.example.org/health?key=x", Host: "agent.example.org", Codes: []int64{200, 204}, TimeoutMs: 3000, IntervalSeconds: 10}},
			Health:      &writ.HealthPolicy{Mode: writ.HealthBoth, MaxAgeSeconds: 30, MinHealthy: 1, Failures: 5, CoolDownSeconds: 60},
			HealthSince: 1, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"health":  writ.Health{Agent: "site-builder", Status: writ.Degraded, Since: 1, UpdatedAt: 2, Receipt: gReceipt},
		"repairs": writ.Repairs{Mended: map[string]int64{"due.lease": 1, "list.tasks": 3}, At: 2, Receipt: gReceipt},
		"key": writ.SigningKey{
			SPKI: "00ff", KeyID: "SHA256:aa", Purpose: writ.KeyReceipt, PEM: "-----BEGIN PUBLIC KEY-----\n", State: writ.KeyRevoked,
			Introduced: gReceipt, Activated: gReceipt, Retired: gReceipt, Revoked: gReceipt, Since: 12, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"session": writ.Session{
			ID: gSession, Principal: "builder", Kind: writ.KindAgent, Role: writ.RoleExecutor, Agent: "site-builder",
			State: writ.SessionActive, TokenHash: "00ff", TTLSeconds: 30, ExpiresAt: 3, OpenedBy: gSession, Controller: "operator", Openers: []writ.PrincipalID{"operator"}, CreatedAt: 1, UpdatedAt: 2,
			Reason: "operator_request", Receipt: gReceipt,
		},
		"task": writ.Task{
			ID: gTask, Run: gRun, Key: "build", Summary: "Build.", Capability: "site.build", Concern: "pages", Behind: []writ.AgentID{"planner"}, Args: writ.RawObject(`{"ref":"main"}`),
			ArgsDigest: "aa", Labels: []writ.Label{writ.LabelPublic}, Domain: "web", Agents: []writ.AgentID{"site-builder"},
			Verify: &writ.Verification{Agents: []writ.AgentID{"site-judge"}, Gates: []string{"tests"}, MaxRework: 2}, Verified: true, Rework: 1,
			DependsOn: []writ.Dependency{{Key: "fetch", Task: gTask, OnFailure: writ.DependencySkip}},
			Safety:    writ.SafetyMutating, Approval: writ.ApprovalManual, WaitsFor: gApproval, ParkedAt: 8, Sinks: []writ.Sink{writ.SinkEgress}, WriteScopes: []string{"fs:site/dist/"}, Priority: 5,
			LeaseSeconds: 60, MaxAttempts: 3, Attempt: 1, BackoffMs: 1000, NotBefore: 4, State: writ.TaskRunning,
			Lease:    &writ.Lease{ID: "lse_01ARYZ6S410000000000000000", Session: gSession, Agent: "site-builder", Fence: 7, MaxUntil: 9, Prepaid: 1, Held: map[string]int64{writ.BudgetMoney: 2000}},
			CancelAt: 5, ResultDigest: "bb", DoneFence: 7,
			Failure: &writ.Failure{Class: writ.FailureExternal, Code: "lease_expired", Retryable: true}, EnqueuedBy: gSession, CreatedAt: 1, UpdatedAt: 2,
			Receipt: gReceipt,
		},
		"task-artifacts": writ.Task{
			ID: gTask, Run: gRun, Key: "build", Capability: "site.build", ArgsDigest: "aa", Labels: []writ.Label{writ.LabelPublic}, Domain: "web",
			Produces: []writ.Produce{{
				Name: "report", MediaType: "application/json", Schema: writ.RawObject(`{"type":"object"}`), Labels: []writ.Label{writ.LabelPublic}, MaxBytes: 1000, Required: true,
			}},
			Consumes:  []writ.Consume{{Name: "plan", From: "fetch", MediaType: "text/plain", Optional: true}},
			Artifacts: []writ.Artifact{{Name: "report", Digest: "sha256:aa", Size: 17, Labels: []writ.Label{writ.LabelPublic}}}, BytesCounted: []string{string(gQuota)},
			DependsOn: []writ.Dependency{{Key: "fetch", Task: gTask}},
			Safety:    writ.SafetyMutating, Priority: 5, LeaseSeconds: 60, MaxAttempts: 3, Attempt: 1, BackoffMs: 1000, State: writ.TaskDone, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"run": writ.Run{
			ID: gRun, Title: "First", Goal: "Ship.", State: writ.RunActive, ClosePolicy: writ.CloseAuto, Sealed: true, Rework: 1,
			Budget: map[string]int64{writ.BudgetSteps: 10}, WaitsFor: gApproval,
			Grants: []writ.Grant{{Approval: gApproval, Dimension: writ.BudgetSteps, Add: 5, At: 3}}, Owner: "planner", OwnerRole: writ.RoleOrchestrator, CreatedBy: gSession,
			PausedAt: 4, PausedMs: 5, Parent: gRun, Root: gRun, Depth: 1, Nests: true,
			Reason: "requested", CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"ballot": writ.Ballot{
			ID: string(gTask), State: writ.BallotOpen, About: gReceipt, Votes: []writ.Acceptance{{
				Receipt: gReceipt, Session: gSession, Principal: "judge", Controller: "vera", Openers: []writ.PrincipalID{"operator"}, Agent: "checker",
				Keys: []string{"aabb"}, SignedBy: "aabb",
			}}, UpdatedAt: 2, Receipt: gReceipt,
		},
		"agent-gates": writ.Agent{
			ID: "linter", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web", State: writ.AgentActive, MaxConcurrent: 1, WorkGates: []writ.CapabilityID{"site.style"},
			Tools: []writ.Tool{{Name: "site.lint", Safety: writ.SafetyReadOnly, Gate: true}}, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"gates": writ.GateResults{
			Of: 8, By: writ.Acceptance{Receipt: gReceipt, Session: gSession, Principal: "builder", Agent: "builder", Keys: []string{"aabb"}}, Since: 9, Owes: []writ.CapabilityID{"site.lint"},
			Results: []writ.GateResult{{Gate: "site.lint", Status: writ.GatePass, Task: gTask, Receipt: gReceipt}},
		},
		"run-quorum": writ.Run{
			ID: gRun, State: writ.RunVerifying, ClosePolicy: writ.CloseVerifier, CloseQuorum: 3, Sealed: true, Budget: map[string]int64{writ.BudgetSteps: 10},
			Owner: "planner", OwnerRole: writ.RoleOrchestrator, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"task-quorum": writ.Task{
			ID: gTask, Run: gRun, Key: "build", Capability: "site.build", ArgsDigest: "aa", Labels: []writ.Label{writ.LabelPublic}, Domain: "web",
			Verify: &writ.Verification{MaxRework: 2, Quorum: 2, Gates: []string{"site.lint"}}, Owes: []writ.CapabilityID{"site.lint"},
			DependsOn: []writ.Dependency{{Key: "fetch", Task: gTask, When: writ.EndGiven}},
			Safety:    writ.SafetyMutating, Priority: 5, LeaseSeconds: 60, MaxAttempts: 3, Attempt: 1, BackoffMs: 1000, State: writ.TaskVerifying, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"escrow": writ.Escrow{
			Child: gRun, Parent: "run_01ARYZ6S410000000000000001", State: writ.EscrowSettled, Amounts: map[string]int64{writ.BudgetSteps: 10},
			Returned: map[string]int64{writ.BudgetSteps: 3}, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"approval": writ.Approval{
			ID: gApproval, State: writ.ApprovalApproved, Needs: []writ.Need{{
				Rule: "approvals.manual", Kind: writ.ApproveEffect, Scope: writ.ScopeCall, Approvers: 1, Roles: []writ.Role{writ.RoleApprover},
				ExpiresS: 3600, MaxUses: 1, Remember: 5, Dimension: "steps", Add: 10, Schema: writ.RawObject(`{"type":"object"}`),
			}},
			Scope: writ.ScopeCall, Capability: "task.enqueue", Version: "1", Subject: "site.build", Request: "aa", Args: writ.RawObject(`{"key":"build"}`),
			Labels: []writ.Label{writ.LabelPublic}, Run: gRun, Task: gTask,
			Requester: writ.Requester{Session: gSession, Principal: "planner", Role: writ.RoleOrchestrator, Agent: "planner"},
			Excluded:  []writ.PrincipalID{"operator", "planner"},
			Votes: []writ.Vote{{
				Session: gSession, Principal: "alice", Controller: "alice", Role: writ.RoleApprover, Approve: true, Modify: true, Reason: "fine", At: 2, Receipt: gReceipt,
			}},
			MaxUses: 1, Uses: 0, Remembered: writ.ScopeRun, Response: writ.RawObject(`{"ok":true}`),
			Successor: gApproval, Modified: gApproval, Policy: "sha256:aa", ExpiresAt: 3, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"approval-modified": writ.Approval{
			ID: gApproval, State: writ.ApprovalPending, Behind: []writ.AgentID{"site-builder"}, Needs: []writ.Need{}, Excluded: []writ.PrincipalID{}, Modified: gApproval,
			Authors:   []writ.Vote{{Session: gSession, Principal: "alice", Controller: "alice", Role: writ.RoleApprover, Modify: true, At: 2, Receipt: gReceipt}},
			CreatedAt: 2, UpdatedAt: 2, RequestedAt: 1, Receipt: gReceipt,
		},
		"gate": writ.Gate{
			State: writ.GateOpen, PolicyRevision: "sha256:aa", BindingsRevision: "sha256:bb", ReceiptKeyID: "SHA256:cc", Bundle: gBundle, Schema: 1, Receipt: gReceipt,
		},
		"gate-quotas": writ.Gate{State: writ.GateOpen, PolicyRevision: "sha256:aa", BindingsRevision: "sha256:bb", ReceiptKeyID: "SHA256:cc", Quotas: 1, Schema: 1, Receipt: gReceipt},
		"quotas": writ.Quotas{Items: []writ.Quota{
			{ID: gQuota, Metric: writ.QuotaClaims, Subject: writ.QuotaOfAgent, Value: "site-builder", Limit: 60, Action: writ.QuotaQueue, SetBy: "operator", CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt},
			{ID: "quo_01ARYZ6S410000000000000001", Metric: writ.QuotaQueued, Subject: writ.QuotaOfTenant, Limit: 0, Action: writ.QuotaDeny, SetBy: "operator", CreatedAt: 1, UpdatedAt: 1, Receipt: gReceipt},
		}},
		"task-counted": writ.Task{
			ID: gTask, Run: gRun, Key: "build", Capability: "site.build", Labels: []writ.Label{writ.LabelPublic}, Domain: "web", State: writ.TaskRunning, Counted: []string{string(gQuota)},
			Lease:     &writ.Lease{ID: "lse_01ARYZ6S410000000000000000", Session: gSession, Agent: "site-builder", MaxUntil: 9, Counted: []string{string(gQuota) + "/site-builder"}},
			CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"task-awaits": writ.Task{
			ID: gTask, Run: gRun, Key: "build", Capability: "site.build", Labels: []writ.Label{writ.LabelPublic}, Domain: "web", State: writ.TaskRunning,
			Lease:     &writ.Lease{ID: "lse_01ARYZ6S410000000000000000", Session: gSession, Agent: "site-builder", MaxUntil: 9, Awaits: []string{string(gRun)}, AwaitsAt: 1},
			CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"run-stalled": writ.Run{
			ID: gRun, State: writ.RunActive, ClosePolicy: writ.CloseAuto, Budget: map[string]int64{writ.BudgetSteps: 1}, Owner: "boss", OwnerRole: writ.RoleOrchestrator,
			StallAfter: 60, OnStall: writ.StallFail, StalledAt: 2, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"approval-counted": writ.Approval{
			ID: gApproval, State: writ.ApprovalPending, Needs: []writ.Need{}, Excluded: []writ.PrincipalID{}, Counted: []string{string(gQuota)}, CreatedAt: 1, UpdatedAt: 1, Receipt: gReceipt,
		},
		"bundle": writ.Bundle{
			ID: gBundle, State: writ.BundleRefused, Packs: []writ.PackVer{{ID: "budgets", Version: "1.0.0", Digest: "sha256:aa"}, {ID: "change_freeze", Version: "1.0.0", Digest: "sha256:bb", Stage: writ.StageShadow}},
			Policy: "sha256:aa", Bindings: "sha256:bb", Chunks: 1, Bytes: 2, Note: "n", Source: writ.SourceCall, Reason: "r", Replica: "r-1",
			Replaced: gBundle, Signer: "k", StagedBy: "operator", StagedRole: writ.RoleOperator, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"effect": writ.Intent{
			ID: gEffect, Capability: "egress.fetch", State: writ.IntentUnknown, Idempotent: true, Repeat: true, Attempt: 2, Session: gSession, Principal: "builder", Agent: "site-builder",
			Run: gRun, Task: gTask, Held: map[string]int64{writ.BudgetEgress: 4096}, Quotas: []writ.QuotaHold{{Tag: "quo_1/site-builder", Window: 86400000, Amount: 4096}}, Settled: map[string]int64{writ.BudgetEgress: 17}, SettledAt: 3, SettledBy: gCall,
			Secrets: []writ.SecretUse{{ID: gSecret, Version: 2}}, Late: true, Code: writ.CodeEffectFailed, DecidedBy: gSession, CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"egress": writ.EgressGrant{
			ID: "site-api", State: writ.EgressActive, Host: "api.example.com", Port: 443, Scheme: "https", Mode: writ.EgressRequest, Methods: []string{"GET", "POST"}, PathPrefix: "/v1", Agents: []writ.AgentID{"site-builder"}, Run: gRun,
			UpBytes: 1, DownBytes: 2, Conns: 3, Rate: 4, TimeMs: 5000, ExpiresAt: 6, Admits: []writ.Label{writ.LabelPublic}, Private: []string{"10.1.0.0/16"}, Credential: "stripe",
			GrantedBy: "operator", CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"secret": writ.Secret{
			ID: gSecret, Name: "stripe", State: writ.SecretStored, Version: 2, Host: "api.example.com", Header: "Authorization", Template: "Bearer {{secret}}",
			Sealed: "sealed:00ff:AQID", SetBy: "operator", CreatedAt: 1, UpdatedAt: 2, Receipt: gReceipt,
		},
		"secretname": writ.SecretName{ID: gSecret},
		"chunk":      writ.Chunk{Data: "aGk="},
		"bindings": writ.Bindings{Role: writ.RoleApprover, Rows: []writ.Binding{
			{Principal: writ.Everybody, Removed: true, By: "operator", At: 1, Receipt: gReceipt},
			{Principal: "alice", By: "operator", At: 2, Receipt: gReceipt},
		}},
		"shadow": writ.Shadow{Packs: []writ.ShadowPack{{
			ID: "change_freeze", Digest: "sha256:aa", Since: 1, Evaluated: 10, Failed: 2, Changed: 3, Changes: []writ.ShadowChange{{
				Rule: "change_freeze.frozen", From: writ.EffectAllow, To: writ.EffectDeny, Count: 3, Samples: []string{string(gReceipt)},
			}},
		}}, Receipt: gReceipt},
	} {
		b, err := writ.EncodeDoc(writ.Snapshot{}, "x", kind, doc)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
		golden(t, kind+".json", out.Bytes())
	}
}

func TestStoredNames(t *testing.T) {
	var b strings.Builder
	line := func(what string, names ...any) {
		for _, n := range names {
			fmt.Fprintf(&b, "%-8s %v\n", what, n)
		}
	}
	line("document", writ.GateKey, writ.SessionKey(gSession), writ.AgentKey("site-builder"), writ.TaskKey(gTask), writ.RunKey(gRun),
		writ.ResultKey(gTask), writ.HandoffKey(gTask), writ.GatesKey(gTask), writ.BallotKey(gTask), writ.TaskNameKey(gRun, "build"), writ.IdempotencyDoc(writ.Caller{Principal: "planner", Role: writ.RoleOrchestrator, Agent: "planner"}, "key 1"))
	line("document", writ.ApprovalKey(gApproval), writ.AskKey(writ.Ask{Scope: writ.ScopeCall, Capability: "task.enqueue", Version: "1"}.Request()), writ.VerdictKey("00ff"))
	line("index", writ.IndexApprovals, writ.IndexExpiries, writ.ApprovalsIn(writ.ApprovalPending))
	line("index", writ.Notices("00112233aabbccdd"), writ.IndexEndpoints)
	line("member", writ.Notice{Event: writ.EventApprovalDecided, Receipt: gReceipt, At: 1, Tries: 2, Approval: gApproval, State: writ.ApprovalApproved}.Member(),
		writ.Notice{Event: writ.EventPolicyNotify, Receipt: gReceipt, At: 1, Capability: "run.create", Rules: []string{"ask.run", "ask.more"}}.Member())
	line("document", writ.BundleKey(gBundle), writ.ChunkKey(gBundle, 2))
	line("document", writ.BindingsKey(writ.RoleApprover))
	line("document", writ.ShadowKey)
	line("document", writ.SigningKeyKey("00ff"))
	line("index", writ.IndexKeys, writ.HeldKey("00ff"))
	line("index", writ.IndexBundles, writ.IndexStaged, writ.IndexReplicas, writ.ReadyOn(gBundle))
	line("document", writ.EscrowKey(gRun))
	line("document", writ.EgressGrantKey("site-api"))
	line("index", writ.IndexEgress, writ.IndexEgressHosts)
	line("member", writ.EgressHost("api.example.com", 443, "site-api"))
	line("counter", writ.EgressSecond("site-api"), writ.EgressBegun("site-api"))
	line("index", writ.RunChildren(gRun))
	line("document", writ.HealthKey("site-builder"))
	line("counter", writ.HealthFailures("site-builder"), writ.HealthTripped("site-builder"), writ.HealthOpened("site-builder"),
		writ.HealthChecked("site-builder", "api"), writ.HealthResult("site-builder", "api"), writ.HealthDue("site-builder", "api"))
	line("index", writ.IndexProbes)
	line("member", writ.ProbeMember("site-builder", "api"))
	line("todo", writ.TodoHealth("site-builder"))
	line("index", writ.RunOwed(gRun), writ.RunParts(gRun), writ.Dependents(gTask), writ.IndexVerify, writ.IndexClose)
	line("counter", writ.TaskUnmet(gTask))
	line("counter", writ.TaskPlace(gTask), writ.RunOffered(gRun, writ.LaneOf("site.build", "web", 5)), writ.RunBacklog(gRun, writ.LaneOf("site.build", "web", 5)), writ.LogSize())
	line("index", writ.Backlog(gRun), writ.BlobHolders("aa"), writ.RunArtifacts(gRun), writ.IndexBlobStore, writ.IndexCheckpoint)
	line("member", writ.BacklogMember(writ.LaneOf("site.build", "web", 5), gTask))
	var part writ.Tx
	part.TakePart(writ.Snapshot{}, gRun, writ.PartExecuted, writ.Caller{
		Session: gSession, Principal: "builder", Agent: "site-builder", Controller: "wanda", Openers: []writ.PrincipalID{"operator"},
	}, []writ.PublicKey{{ID: "aabb"}})
	for _, o := range part.Ops {
		line("member", o.Member)
	}
	line("counter", writ.BudgetUsed(gRun, writ.BudgetMoney), writ.BudgetHeld(gRun, writ.BudgetMoney), writ.BudgetWarned(gRun, writ.BudgetMoney))
	line("todo", writ.TodoExhaust(gRun, writ.BudgetSteps, 2), writ.TodoOverrun(gRun), writ.TodoStall(gRun), writ.TodoSettle(gRun), writ.TodoCascade(gRun))
	line("counter", writ.ApprovalsAsked("planner"))
	line("document", writ.IntentKey(gEffect), writ.EffectReplyKey(gEffect), writ.GivenKey(gSession), writ.SecretKey(gSecret), writ.SecretNameKey("stripe"))
	line("index", writ.IndexEffects, writ.IndexUnknown, writ.IndexEffectLeases, writ.IndexSecrets)
	line("counter", writ.EffectLease(gEffect), writ.RunEffects(gRun))
	line("document", writ.QuotasKey, writ.RepairsKey)
	var mended writ.Tx
	mended.Mended(gReceipt, writ.RunTasksIn(gRun, writ.TaskQueued).Sort(), 3)
	line("change", mended.Changes[0].Kind, mended.Changes[0].ID)
	line("sort", writ.IndexLeases.Sort(), writ.Refused("site.build", "web").Sort(), writ.BudgetHeld(gRun, writ.BudgetMoney).Sort(), writ.QuotaUsed(string(gQuota)).Sort(),
		writ.RunOffered(gRun, writ.LaneOf("site.build", "web", 5)).Sort(), writ.TaskPlace(gTask).Sort())
	line("counter", writ.QuotaUsed(string(gQuota)), writ.QuotaBegan(string(gQuota)+"/site-builder"), writ.QuotaTold(string(gQuota), "planner"))
	line("index", writ.IndexQuotas)
	var kept writ.Tx
	kept.KeepQuota(writ.QuotaBegan(string(gQuota)), 1)
	line("member", kept.Ops[0].Member)
	line("counter", writ.BudgetUsed(gRun, writ.BudgetSteps), writ.RunOpenTasks(gRun), writ.RunBadTasks(gRun), writ.RunSequence(gRun),
		writ.AgentRunning("site-builder"), writ.RegistryRevision(), writ.TaskProgress(gTask, "pct"))
	line("index", writ.IndexRuns, writ.IndexAgents, writ.IndexSessions, writ.IndexDead, writ.IndexTools, writ.IndexOwners, writ.SetGoing(writ.ObjectTask, "site-builder"), writ.SetGoing(writ.ObjectApproval, "site-builder"), writ.IndexRoutes, writ.IndexLeases, writ.IndexReady,
		writ.IndexBeats, writ.IndexLives, writ.IndexTodo, writ.IndexScopes, writ.RunTasks(gRun), writ.RunTasksIn(gRun, writ.TaskQueued),
		writ.AgentSessions("site-builder"), writ.SessionTasks(gSession), writ.WaitingOn(gTask), writ.BlockedOn(gTask),
		writ.Refused("site.build", "web"), writ.Refusers(gTask))
	line("member", writ.ScopeMember("fs:site/dist/", gTask), writ.Refuser("site-builder", "sha256:aa"),
		writ.WriteClaim{Resource: "fs:site/dist/", Mode: writ.ScopeExclusive}.Member(gSession), writ.WriteClaim{Resource: "fs:site/dist/", Mode: writ.ScopeShared}.Member(gSession),
		writ.RefuserAs("site-builder", gSession, "sha256:aa"))
	line("lane", writ.LaneOf("site.build", "web", 5), writ.DirectedLane("site-builder", "site.build", "web", 5))
	bindings := writ.BindingSet{{Principal: "alice", Role: writ.RoleApprover}: true, {Principal: writ.Everybody, Role: writ.RoleApprover}: false}
	line("revision", bindings.Digest("default"), writ.BindingsRevision("sha256:aa", bindings.Digest("default")))
	golden(t, "names.txt", []byte(b.String()))
	for _, n := range []string{string(writ.TaskNameKey(gRun, "build")), string(writ.DirectedLane("a-b", "site.build", "web", 5))} {
		if !writ.ValidName(n) {
			t.Errorf("%q is not a name a store takes", n)
		}
	}
}

// Codes and tables are public: clients switch on them, receipts state them.
func TestPublicWords(t *testing.T) {
	var b strings.Builder
	for _, c := range writ.Codes() {
		fmt.Fprintf(&b, "code %s receipted=%v\n", c, c.Receipted())
	}
	for _, l := range writ.Labels() {
		fmt.Fprintf(&b, "label %s\n", l)
	}
	for _, s := range writ.Sinks() {
		fmt.Fprintf(&b, "sink %s\n", s)
	}
	for _, f := range []writ.FailureClass{
		writ.FailureDeterministic, writ.FailureFreshness, writ.FailureDependency, writ.FailureCleanup, writ.FailurePolicy, writ.FailureExternal,
	} {
		fmt.Fprintf(&b, "failure %s\n", f)
	}
	words(&b, "agent", writ.AgentMoves)
	words(&b, "session", writ.SessionMoves)
	words(&b, "task", writ.TaskMoves)
	words(&b, "run", writ.RunMoves)
	words(&b, "gate", writ.GateMoves)
	words(&b, "approval", writ.ApprovalMoves)
	words(&b, "bundle", writ.BundleMoves)
	words(&b, "escrow", writ.EscrowMoves)
	words(&b, "quota", writ.QuotaMoves)
	words(&b, "health", writ.HealthMoves)
	words(&b, "repair", writ.RepairMoves)
	words(&b, "key", writ.KeyMoves)
	words(&b, "evidence", writ.EvidenceMoves)
	words(&b, "effect", writ.IntentMoves)
	words(&b, "secret", writ.SecretMoves)
	words(&b, "egress", writ.EgressMoves)
	words(&b, "ballot", writ.BallotMoves)
	words(&b, "jail", writ.JailMoves)
	for _, r := range writ.HealthReasons() {
		fmt.Fprintf(&b, "health reason %s packed=%d\n", r, writ.ProbeResult{Code: 503, LatencyMs: 12, Reason: r}.Packed())
	}
	for _, k := range writ.ApprovalKinds() {
		fmt.Fprintf(&b, "approval kind %s\n", k)
	}
	for _, k := range writ.ApprovalScopes() {
		fmt.Fprintf(&b, "approval scope %s\n", k)
	}
	for _, e := range writ.Events() {
		fmt.Fprintf(&b, "event %s\n", e)
	}
	golden(t, "words.txt", []byte(b.String()))
}

func words[S ~string](b *strings.Builder, kind string, table writ.Table[S]) {
	var lines []string
	for from, tos := range table {
		for _, to := range tos {
			lines = append(lines, fmt.Sprintf("move %s %q -> %q\n", kind, from, to))
		}
	}
	sort.Strings(lines)
	for _, l := range slices.Compact(lines) {
		b.WriteString(l)
	}
}

// The payload is head, commit and tail, and nothing else.
func TestPayload(t *testing.T) {
	f := writ.StoredFact{
		Fact:   writ.Fact{Head: []byte(`{"a":1,"commit":`), Tail: []byte(`,"z":1}`), Run: gRun},
		Commit: writ.Committed{Epoch: "1.00ff", Seq: 41, RunSeq: 3, At: 1_767_225_600_123},
	}
	want := `{"a":1,"commit":{"at":"2026-01-01T00:00:00.123Z","epoch":"1.00ff","runSeq":3,"seq":41},"z":1}`
	if got := string(f.Payload()); got != want {
		t.Errorf("got %s", got)
	}
	f.Run = ""
	want = `{"a":1,"commit":{"at":"2026-01-01T00:00:00.123Z","epoch":"1.00ff","seq":41},"z":1}`
	if got := string(f.Payload()); got != want {
		t.Errorf("got %s", got)
	}
}

func ptr(n int64) *int64 { return &n }
