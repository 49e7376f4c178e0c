package policies

import (
	"github.com/writ-gateway/writ"
)

// Info is what is loaded, for people.
type Info struct {
	PolicyRevision   string     `json:"policy_revision" doc:"Names packs, engine and input shape; every receipt carries it."`
	BindingsRevision string     `json:"bindings_revision" doc:"Names the roles' model and rows, and what is bound and unbound on top of them."`
	BundleDigest     string     `json:"bundle_digest" doc:"Names the sources as one file."`
	Engine           string     `json:"engine" doc:"What evaluates the packs."`
	Packs            []PackInfo `json:"packs" doc:"By id."`
}

// PackInfo describes one loaded pack.
type PackInfo struct {
	ID           string     `json:"id"`
	Version      string     `json:"version"`
	Digest       string     `json:"digest" doc:"sha256 over the files a decision depends on."`
	Title        string     `json:"title"`
	Owner        string     `json:"owner"`
	Kind         string     `json:"kind" enum:"guard,mandatory"`
	Stage        string     `json:"stage" enum:"enforce,shadow" doc:"shadow: asked after the answer and never enforced; see policy.shadow."`
	Capabilities []string   `json:"capabilities" doc:"Selectors of the calls it judges."`
	Adapts       string     `json:"adapts,omitempty" doc:"The package of another host whose rules it asks."`
	Rules        []RuleInfo `json:"rules" doc:"In the order of the sources."`
}

// RuleInfo describes one rule from its METADATA.
type RuleInfo struct {
	ID          string      `json:"id"`
	Title       string      `json:"title"`
	Description string      `json:"description"`
	Severity    string      `json:"severity" enum:"low,medium,high,critical"`
	Control     string      `json:"control" doc:"What the rule is for."`
	Effect      writ.Effect `json:"effect"`
	Code        string      `json:"code" doc:"Code of the refusal."`
	Message     string      `json:"message"`
}

// Info lists the loaded packs and their rules.
func (e *Engine) Info() Info {
	s := e.now.Load()
	out := Info{PolicyRevision: s.policy, BindingsRevision: s.bindings, BundleDigest: s.digest, Engine: engineVersion()}
	for _, p := range s.packs {
		out.Packs = append(out.Packs, p.info())
	}
	return out
}

// Knows says whether an id names a pack or a rule that is loaded.
func (e *Engine) Knows(id string) bool {
	for _, p := range e.now.Load().packs {
		if _, rule := p.rules[id]; rule || p.ID == id {
			return true
		}
	}
	return false
}

func (p *pack) info() PackInfo {
	out := PackInfo{ID: p.ID, Version: p.Version, Digest: p.digest, Title: p.Title, Owner: p.Owner, Kind: p.Kind}
	if p.Adapts != nil {
		out.Adapts = p.Adapts.Package
	}
	if out.Stage = StageEnforce; p.shadow() {
		out.Stage = StageShadow
	}
	for _, sel := range p.Match.Capabilities {
		out.Capabilities = append(out.Capabilities, string(sel))
	}
	for _, id := range p.order {
		r := p.rules[id]
		out.Rules = append(out.Rules, RuleInfo{
			ID: id, Title: r.title, Description: r.description, Severity: r.severity, Control: r.control,
			Effect: r.finding.Effect, Code: r.finding.Code, Message: r.finding.Message,
		})
	}
	return out
}
