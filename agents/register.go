package agents

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// maxScopeRanges bounds how many ranges the scopes of one agent are checked
// in, so that activating it fits into one transaction.
const maxScopeRanges = 200

// AgentRegisterArgs describe an agent.
type AgentRegisterArgs struct {
	AgentID       writ.AgentID             `json:"agent_id" doc:"Slug that names the agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Name          string                   `json:"name,omitempty" doc:"Name for people." maxLength:"128"`
	Description   string                   `json:"description,omitempty" doc:"What the agent is for, in a sentence or two." maxLength:"1024"`
	Archetypes    []writ.Role              `json:"archetypes" doc:"Roles its sessions may have." enum:"orchestrator,executor,verifier" minItems:"1" maxItems:"3"`
	Domain        string                   `json:"domain" doc:"Domain whose work it takes, for example media." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Tools         []writ.Tool              `json:"tools,omitempty" doc:"Task capabilities it can carry out." maxItems:"64"`
	WriteScope    []string                 `json:"write_scope,omitempty" doc:"Resource URIs below which it may ever write." maxItems:"32"`
	SharesScope   bool                     `json:"shares_write_scope,omitempty" doc:"Whether its write scopes may overlap those of other active agents that share too. Their tasks still lock what they write."`
	Owns          []string                 `json:"owns,omitempty" doc:"Concerns of its domain that are its own: no other active agent has them." maxItems:"16" maxLength:"63" pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Defers        []writ.Deferral          `json:"defers,omitempty" doc:"Concerns whose work it leaves to other agents." maxItems:"16"`
	ContractRef   string                   `json:"contract_ref,omitempty" doc:"Where its contract is: sha256:<64 hex digits>, or an https URL." maxLength:"512"`
	WorkGates     []writ.CapabilityID      `json:"work_gates,omitempty" doc:"Gates its work must pass before a verdict accepts it: tools that agents declare with gate. A task of the run that depends on the work shows it." maxItems:"8" maxLength:"128"`
	Gates         []string                 `json:"gates,omitempty" doc:"Policy packs or rules its work is meant to be held to, by id. They must be loaded; every call is judged by all packs that judge it, named here or not." maxItems:"16" maxLength:"128"`
	MaxConcurrent int64                    `json:"max_concurrent_tasks,omitempty" doc:"How many tasks it may hold at a time." default:"4" minimum:"1" maximum:"1000"`
	Routing       *AgentRouting            `json:"routing,omitempty" doc:"By which words agent.route finds it, besides its domain."`
	Endpoints     map[string]AgentEndpoint `json:"endpoints,omitempty" writ:"secret" doc:"Addresses that are asked whether the agent works, by name; at most 8."`
	Health        *AgentHealthPolicy       `json:"health_policy,omitempty" doc:"What the agent must show before it gets work. Default: a started session, and its endpoints if it has some."`
	Jail          *writ.JailSpec           `json:"jail,omitempty" doc:"The jail its sessions can be spawned in, with session.spawn."`
	Keys          []string                 `json:"keys,omitempty" doc:"Public keys its sessions may sign calls with, in PEM (PKIX): Ed25519 or ECDSA P-256. Another list replaces them all." maxItems:"4"`
}

func register(cfg Config) *writ.Capability {
	const op = "agents.Register"
	return writ.Define[AgentRegisterArgs, AgentView](writ.Capability{
		ID: "agent.register", Safety: writ.SafetyMutating,
		Example: `{"agent_id":"site-builder","archetypes":["executor"],"domain":"web","tools":[{"name":"site.build","safety":"mutating"}],"write_scope":["fs:site/"]}`,
		Summary: "Put an agent into the registry, or change an entry that is not active.",
	}, writ.Verb[AgentRegisterArgs]{
		Locks: func(_ *writ.Call, a *AgentRegisterArgs) []writ.Key { return []writ.Key{writ.AgentKey(a.AgentID)} },
		Reads: func(_ *writ.Call, a *AgentRegisterArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.AgentID)}, Counters: breakerOf(a.AgentID)}, nil
		},
		Plan: func(call *writ.Call, a *AgentRegisterArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			scopes, keys, words, wrong := a.check(cfg)
			ends, policy, more := a.health()
			wrong = append(wrong, more...)
			if len(wrong) > 0 {
				return tx, r, &writ.Error{
					Code: writ.CodeInputInvalid, Op: op, Fields: wrong,
					Msg: "the entry is not valid", Hint: "correct every field named in errors",
				}
			}
			key := writ.AgentKey(a.AgentID)
			old, version, exists, err := writ.Get[writ.Agent](s, key)
			if err != nil {
				return tx, r, err
			}
			if err := call.Match(op, version); err != nil {
				return tx, r, err
			}
			if !writ.AgentMoves.May(old.State, writ.AgentPlanned) {
				e := writ.IllegalMove(op, writ.ObjectAgent, string(old.State), string(writ.AgentPlanned))
				e.Hint = "suspend it first"
				if writ.AgentMoves.Terminal(old.State) {
					e.Hint = "register another agent"
				}
				return tx, r, e
			}
			agent := writ.Agent{
				ID: a.AgentID, Name: a.Name, Description: a.Description, Archetypes: a.Archetypes, Domain: a.Domain,
				State: writ.AgentPlanned, Tools: a.Tools, WriteScope: scopes, MaxConcurrent: a.MaxConcurrent, Keys: keys, Routing: words,
				SharesScope: a.SharesScope, Owns: slices.Sorted(slices.Values(a.Owns)), ContractRef: a.ContractRef,
				Gates: slices.Sorted(slices.Values(a.Gates)), WorkGates: slices.Sorted(slices.Values(a.WorkGates)), Halt: old.Halt, StoppedAt: old.StoppedAt,
				Defers:    slices.SortedFunc(slices.Values(a.Defers), func(x, y writ.Deferral) int { return cmp.Compare(x.Concern, y.Concern) }),
				Endpoints: ends, Health: policy,
				CreatedAt: s.Now, UpdatedAt: s.Now, Receipt: receipt(call),
			}
			if len(ends) > 0 {
				agent.HealthSince = max(s.Now, old.HealthSince+1)
			}
			if a.Jail != nil {
				jail := a.Jail.Filled()
				agent.Jail = &jail
			}
			if agent.MaxConcurrent == 0 {
				agent.MaxConcurrent = 4
			}
			outcome := writ.OutcomeCreated
			if exists {
				agent.CreatedAt = old.CreatedAt
				outcome = writ.OutcomeDone
			}
			body, err := writ.EncodeDoc(s, key, writ.ObjectAgent, agent)
			if err != nil {
				return tx, r, err
			}
			if len(body) > writ.MaxDocBytes {
				return tx, r, writ.Refuse(writ.CodeTooLarge, op, "the entry is too large to keep", "shorten descriptions and input schemas")
			}
			tx.Put(key, body)
			tx.Move(writ.ObjectAgent, string(agent.ID), string(old.State), string(agent.State))
			tx.Index(writ.IndexAgents, string(agent.ID), 0)
			tx.Add(writ.RegistryRevision(), 1)
			breakerAnew(&tx, s, a.AgentID)
			return tx, agentReply(outcome, agent), nil
		},
	})
}

// check canonicalises the scopes, reads keys and keywords and finds everything that is
// wrong with the entry by itself.
func (a *AgentRegisterArgs) check(cfg Config) (scopes []string, keys []writ.PublicKey, words *writ.Routing, wrong []writ.FieldError) {
	bad := func(list string, i int, field, msg string) {
		wrong = append(wrong, writ.FieldError{Pointer: "/" + list + "/" + strconv.Itoa(i) + field, Msg: msg})
	}
	if reserved(a.AgentID) {
		wrong = append(wrong, writ.FieldError{Pointer: "/agent_id", Msg: "is the name of an operation"})
	}
	words = a.routes(bad)
	roles := map[writ.Role]bool{}
	for i, r := range a.Archetypes {
		if roles[r] {
			bad("archetypes", i, "", "is named twice")
		}
		roles[r] = true
	}
	names := map[writ.CapabilityID]bool{}
	for i, t := range a.Tools {
		switch {
		case names[t.Name]:
			bad("tools", i, "/name", "is declared twice")
		case cfg.Builtin(t.Name):
			bad("tools", i, "/name", "is the name of a capability of the gateway")
		}
		names[t.Name] = true
		if len(t.InputSchema) == 0 {
			continue
		}
		if !isObject(t.InputSchema) {
			bad("tools", i, "/input_schema", "must be a JSON object")
		} else if err := cfg.CheckSchema(t.InputSchema); err != nil {
			bad("tools", i, "/input_schema", cmp.Or(writ.AsError("", err).Msg, "cannot be used"))
		}
	}
	scopes = make([]string, 0, len(a.WriteScope))
	for i, raw := range a.WriteScope {
		scope, err := writ.CanonicalScope(raw)
		if err != nil {
			bad("write_scope", i, "", "must be a resource URI such as fs:repo/ops/ without empty, . or .. segments, spaces, percent signs or wildcards")
			continue
		}
		for _, other := range scopes {
			if writ.ScopesOverlap(scope, other) {
				bad("write_scope", i, "", "repeats or overlaps another scope of the entry")
				break
			}
		}
		scopes = append(scopes, scope)
	}
	if len(rangesOf(scopes)) > maxScopeRanges {
		wrong = append(wrong, writ.FieldError{Pointer: "/write_scope", Msg: "has too many levels in all; name fewer or shorter scopes"})
	}
	a.boundary(cfg, bad)
	if a.Jail != nil {
		for i, arg := range a.Jail.Args {
			if strings.ContainsRune(arg, 0) {
				bad("jail/args", i, "", "holds a NUL")
			}
		}
	}
	if a.ContractRef != "" && !contractRef(a.ContractRef) {
		wrong = append(wrong, writ.FieldError{Pointer: "/contract_ref", Msg: "must be sha256:<64 hex digits>, or an https URL without a user name"})
	}
	for i, pem := range a.Keys {
		key, err := cfg.PublicKey(pem)
		switch {
		case err != nil:
			bad("keys", i, "", err.Error())
		case slices.Contains(keys, key):
			bad("keys", i, "", "is named twice")
		case i >= writ.MaxAgentKeys:
			bad("keys", i, "", "is one too many")
		}
		keys = append(keys, key)
	}
	return scopes, keys, words, wrong
}

func isObject(b []byte) bool {
	return json.Valid(b) && bytes.HasPrefix(bytes.TrimSpace(b), []byte("{"))
}
