package agents

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/writ-gateway/writ"
)

// AgentRouting is by which words work finds an agent, besides its domain.
type AgentRouting struct {
	Keywords []string `json:"keywords,omitempty" doc:"Words or phrases; case, width and the number of blanks between words make no difference." maxItems:"32" maxLength:"64"`
	Priority int64    `json:"priority,omitempty" doc:"Of agents that match equally well the one with the highest is chosen." minimum:"0" maximum:"100"`
}

const (
	maxKeyword    = 64 // bytes, normalised
	maxWords      = 64 // of all keywords of an agent, so that activating it fits into one transaction
	maxPriority   = 100
	maxRouteWords = 16 // of an input that are looked up one by one
	routePage     = 32 // agents looked at per word
	maxCandidates = 16 // shown
)

// normal is the form in which words are compared: compatibility characters
// resolved (NFKC), case folded, one blank between words.
func normal(s string) string {
	folded := norm.NFKC.String(cases.Fold().String(norm.NFKC.String(s)))
	return strings.Join(strings.Fields(norm.NFKC.String(strings.Map(oneCase, folded))), " ")
}

// oneCase is the lower case of all the runes that differ in case only: there are
// some, of Cherokee for one, that folding takes to each other.
func oneCase(r rune) rune {
	least := r
	for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
		least = min(least, o)
	}
	return unicode.ToLower(least)
}

// routes brings what a registration says into its stored form.
func (a *AgentRegisterArgs) routes(bad func(list string, i int, field, msg string)) *writ.Routing {
	if a.Routing == nil || len(a.Routing.Keywords) == 0 && a.Routing.Priority == 0 {
		return nil
	}
	out, words := &writ.Routing{Priority: a.Routing.Priority}, map[string]bool{}
	for i, raw := range a.Routing.Keywords {
		switch word := normal(raw); {
		case word == "":
			bad("routing/keywords", i, "", "has no word in it")
		case len(word) > maxKeyword:
			bad("routing/keywords", i, "", "is longer than 64 bytes")
		case slices.Contains(out.Keywords, word):
			bad("routing/keywords", i, "", "is the same as another one, when case and blanks make no difference")
		default:
			out.Keywords = append(out.Keywords, word)
			for _, w := range strings.Fields(word) {
				words[w] = true
			}
			if len(words) > maxWords {
				bad("routing/keywords", i, "", "is one too many: all together have more than 64 words")
				return out
			}
		}
	}
	slices.Sort(out.Keywords)
	return out
}

// Ways in which a word leads to an agent.
const (
	byDomain  = "d" // it is the agent's domain
	byKeyword = "k" // it is one of its keywords
	byWord    = "w" // it is a word of one of its keywords
)

// How much the ways count.
const (
	scoreDomain  = 3
	scoreKeyword = 2
	scoreWord    = 1
)

// routesTo are the members of writ.IndexRoutes for an agent. Words are hashed: they
// are anybody's. Those who share a word follow each other by priority, so that a
// page of them has the first.
func routesTo(a writ.Agent) (out []string) {
	priority := int64(0)
	if a.Routing != nil {
		priority = a.Routing.Priority
	}
	member := func(way, word string) string {
		return fmt.Sprintf("%s %03d %s", routeTerm(way, word), maxPriority-priority, a.ID)
	}
	out = append(out, member(byDomain, a.Domain))
	if a.Routing == nil {
		return out
	}
	for _, k := range a.Routing.Keywords {
		out = append(out, member(byKeyword, k))
		for _, w := range strings.Fields(k) {
			if m := member(byWord, w); !slices.Contains(out, m) {
				out = append(out, m)
			}
		}
	}
	return out
}

func routeTerm(way, word string) string {
	sum := sha256.Sum256([]byte(word))
	return way + hex.EncodeToString(sum[:12])
}

func routeRange(way, word string) writ.Range {
	t := routeTerm(way, word)
	return writ.Range{Index: writ.IndexRoutes, From: t + " ", To: t + "!", Limit: routePage}
}

// AgentRouteArgs ask for the agent for some work.
type AgentRouteArgs struct {
	Input string `json:"input" doc:"A domain, a keyword, or words of one." minLength:"1" maxLength:"512"`
}

// AgentRoute is the answer: the same for the same input and registry.
type AgentRoute struct {
	Capability  writ.CapabilityID `json:"capability" doc:"agent.route."`
	Schema      string            `json:"schema_version" doc:"Version of this form."`
	Status      string            `json:"status" doc:"Whether an active agent was found." enum:"matched,not_found"`
	GeneratedAt string            `json:"generated_at" doc:"When it was read (RFC 3339, UTC)."`
	Data        AgentRouteData    `json:"data" doc:"What was found."`
}

// AgentRouteData is what was found.
type AgentRouteData struct {
	Input      string        `json:"input" doc:"The input as it was compared."`
	MatchType  string        `json:"match_type" doc:"By what the agent was found; empty when none was." enum:"domain,keyword,"`
	Matched    string        `json:"matched_value" doc:"The domain or keyword that matched, normalised."`
	Agent      *RoutedAgent  `json:"agent" doc:"The agent chosen; null when there is none."`
	Source     string        `json:"source" doc:"Where it was looked up." enum:"registry"`
	Candidates []RoutedAgent `json:"candidates" doc:"All that match, the chosen one first."`
	Revision   int64         `json:"registry_revision" doc:"Revision of the registry; with the same one the same input gives the same data."`
}

// RoutedAgent is an agent that matches.
type RoutedAgent struct {
	ID       writ.AgentID    `json:"id" doc:"The agent."`
	Domain   string          `json:"domain" doc:"Its domain."`
	Contract string          `json:"contract,omitempty" doc:"Where its contract is."`
	Status   writ.AgentState `json:"status" doc:"Where it stands; only active agents match." enum:"active"`
	Score    int64           `json:"score" doc:"3: its domain is the input; 2: one of its keywords is; 1: they have a word in common."`
	Priority int64           `json:"priority" doc:"Its priority, which decides between equal scores; then the id does."`

	matched string
}

// routed is the best way from a normalised input to an agent, from its document
// alone.
func routed(a writ.Agent, input string, words []string) (r RoutedAgent, ok bool) {
	r = RoutedAgent{ID: a.ID, Domain: a.Domain, Contract: a.ContractRef, Status: a.State}
	if a.Routing != nil {
		r.Priority = a.Routing.Priority
	}
	switch {
	case a.State != writ.AgentActive:
		return r, false
	case a.Domain == input:
		r.Score, r.matched = scoreDomain, a.Domain
	case a.Routing == nil:
		return r, false
	case slices.Contains(a.Routing.Keywords, input):
		r.Score, r.matched = scoreKeyword, input
	default:
		for _, k := range a.Routing.Keywords {
			if slices.ContainsFunc(strings.Fields(k), func(w string) bool { return slices.Contains(words, w) }) {
				r.Score, r.matched = scoreWord, k
				return r, true
			}
		}
	}
	return r, r.Score > 0
}

// lookups are the ranges an input is looked up in, and its words.
func lookups(raw string) (input string, words []string, out []writ.Range) {
	input = normal(raw)
	words = strings.Fields(input)
	words = words[:min(len(words), maxRouteWords)]
	out = []writ.Range{routeRange(byDomain, input), routeRange(byKeyword, input)}
	for _, w := range words {
		if r := routeRange(byWord, w); !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return input, words, out
}

// found are the agents the lookups lead to, each once.
func found(s writ.Snapshot, in []writ.Range) (out []writ.AgentID) {
	for _, r := range in {
		for _, m := range s.Ranges[r].Members {
			if id := writ.AgentID(m.Name[strings.LastIndex(m.Name, " ")+1:]); !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// FindReads names what Find must see.
func FindReads(input string, s writ.Snapshot) writ.ReadSet {
	_, _, in := lookups(input)
	rs := writ.ReadSet{Ranges: in, Counters: []writ.Counter{writ.RegistryRevision()}}
	for _, id := range found(s, in) {
		rs.Docs = append(rs.Docs, writ.AgentKey(id))
	}
	return rs
}

// Find gives the active agents for some work, the best first. An input without a
// word is refused.
func Find(raw string, s writ.Snapshot) (AgentRoute, error) {
	input, words, in := lookups(raw)
	out := AgentRoute{
		Capability: "agent.route", Schema: "1.0", Status: "not_found", GeneratedAt: writ.FormatTime(s.Now),
		Data: AgentRouteData{Input: input, Source: "registry", Candidates: []RoutedAgent{}, Revision: s.Counters[writ.RegistryRevision()]},
	}
	if input == "" {
		return out, &writ.Error{
			Code: writ.CodeInputInvalid, Op: "agents.Route", Msg: "an argument is not acceptable", Hint: "correct the argument named in errors",
			Fields: []writ.FieldError{{Pointer: "/input", Msg: "has no word in it"}},
		}
	}
	for _, id := range found(s, in) {
		agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
		if err != nil {
			return out, err
		}
		if c, fits := routed(agent, input, words); ok && fits {
			out.Data.Candidates = append(out.Data.Candidates, c)
		}
	}
	slices.SortFunc(out.Data.Candidates, func(a, b RoutedAgent) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.ID, b.ID))
	})
	out.Data.Candidates = out.Data.Candidates[:min(len(out.Data.Candidates), maxCandidates)]
	if len(out.Data.Candidates) > 0 {
		best := out.Data.Candidates[0]
		out.Status, out.Data.Agent, out.Data.Matched, out.Data.MatchType = "matched", &best, best.matched, "keyword"
		if best.Score == scoreDomain {
			out.Data.MatchType = "domain"
		}
	}
	return out, nil
}

// route finds the agent for some work by its words alone: the same input and the
// same registry always give the same agent, and one that is not active is never it.
func route() *writ.Capability {
	return writ.Define[AgentRouteArgs, AgentRoute](writ.Capability{
		ID: "agent.route", Safety: writ.SafetyReadOnly, Summary: "Find the active agent for some work, by its domain or keywords.",
		Example: `{"input":"movie night"}`,
	}, writ.Verb[AgentRouteArgs]{
		Reads: func(_ *writ.Call, a *AgentRouteArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return FindReads(a.Input, s), nil
		},
		Plan: func(_ *writ.Call, a *AgentRouteArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			out, err := Find(a.Input, s)
			if err != nil {
				return tx, r, err
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// reserved are ids that would hide an operation beside the agents.
func reserved(id writ.AgentID) bool { return id == "route" || id == "delegate" }
