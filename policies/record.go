package policies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/writ-gateway/writ"
)

// A record is the input of a decision as packs saw it: canonical JSON of what
// schema/input.json describes. It holds no arguments and no text of callers, so
// it can be kept, judged again by other packs, and explained.

// maxRecord bounds a record that is read back.
const maxRecord = 64 << 10

func parseRecord(record []byte) (ast.Value, error) {
	if len(record) == 0 || len(record) > maxRecord {
		return nil, errors.New("there is no record of what the decision was made on")
	}
	v, err := ast.ValueFromReader(bytes.NewReader(record))
	if err != nil {
		return nil, fmt.Errorf("the record is damaged: %w", err)
	}
	return v, nil
}

// recorded reads a record of a call of c, and finds the packs that judge it: those of
// the capability the record itself names, which is what c was judged as.
func (s *snapshot) recorded(c writ.CapabilityID, record []byte) (*route, ast.Value, error) {
	input, err := parseRecord(record)
	if err != nil {
		return nil, nil, err
	}
	if as, err := input.Find(ast.Ref{ast.StringTerm("call"), ast.StringTerm("capability")}); err == nil {
		if name, ok := as.(ast.String); ok {
			c = writ.CapabilityID(name)
		}
	}
	r := s.routes[c]
	if r == nil {
		return nil, nil, fmt.Errorf("no route for capability %s", c)
	}
	return r, input, nil
}

// Judge is (*Rules).Judge of the rules loaded last.
func (e *Engine) Judge(ctx context.Context, c writ.CapabilityID, record []byte) (writ.Decision, error) {
	return e.now.Load().Judge(ctx, c, record)
}

// OfRevision is rules whose packs are of a revision, whatever their roles; nil
// when none are held.
func (e *Engine) OfRevision(policy string) *Rules {
	if s := e.now.Load(); s.policy == policy {
		return s
	}
	for _, s := range e.holding() {
		if s.policy == policy {
			return s
		}
	}
	return nil
}

// Judge evaluates a recorded decision's input with these packs.
func (s *snapshot) Judge(ctx context.Context, c writ.CapabilityID, record []byte) (writ.Decision, error) {
	d := writ.Decision{Effect: writ.EffectDeny, PolicyRevision: s.policy, BindingsRevision: s.bindings}
	r, input, err := s.recorded(c, record)
	if err != nil {
		return d, err
	}
	d.Packs = r.refs
	found, err := r.eval(ctx, input, s.timeout)
	if err != nil {
		return d, err
	}
	conclude(&d, found)
	return d, nil
}

// Explanation says why a decision was what it was.
type Explanation struct {
	Capability     writ.CapabilityID `json:"capability" doc:"What was called."`
	PolicyRevision string            `json:"policy_revision" doc:"Policies that decided then, and were asked again now."`
	Effect         writ.Effect       `json:"effect" doc:"What they decide." enum:"allow,redact,require_approval,deny"`
	Rules          []ExplainedRule   `json:"rules" doc:"Every rule of the packs that were asked, by pack in the order of the sources."`
}

// ExplainedRule says whether a rule held, and if not, where it stopped.
type ExplainedRule struct {
	Rule    string      `json:"rule" doc:"Id of the rule."`
	Held    bool        `json:"held" doc:"Whether it held of the call."`
	Effect  writ.Effect `json:"effect" doc:"What it asks for when it holds." enum:"allow,redact,require_approval,deny"`
	Title   string      `json:"title" doc:"What it is about."`
	Message string      `json:"message" doc:"What it says when it holds."`
	File    string      `json:"file" doc:"Where it stands."`
	Line    int         `json:"line" doc:"Its first line."`
	Stopped int         `json:"stopped_at,omitempty" doc:"Line of the last condition that was not met, for a rule that did not hold."`

	Adapted []AdaptedRule `json:"adapted,omitempty" doc:"What it made of the rules of the package the pack adapts."`
}

// AdaptedRule is a rule of another host that was asked. What it said is not
// shown: it may be made of the input.
type AdaptedRule struct {
	Rule    string `json:"rule" doc:"Its full name."`
	Held    bool   `json:"held" doc:"Whether it held of what it was shown of the call."`
	File    string `json:"file" doc:"Where it stands."`
	Line    int    `json:"line" doc:"Its first line."`
	Stopped int    `json:"stopped_at,omitempty" doc:"Line of the last condition that was not met, for a rule that did not hold."`
}

// Explain evaluates a record with these packs and says of every rule whether it
// held and where it stopped. It costs far more than a decision.
func (s *snapshot) Explain(ctx context.Context, c writ.CapabilityID, record []byte) (Explanation, error) {
	r, input, err := s.recorded(c, record)
	if err != nil {
		return Explanation{}, err
	}
	found, err := r.eval(ctx, input, s.timeout)
	if err != nil {
		return Explanation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*s.timeout)
	defer cancel()
	trace := topdown.NewBufferTracer()
	if _, err := r.query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalQueryTracer(trace), rego.EvalRuleIndexing(false)); err != nil {
		return Explanation{}, err
	}
	held := map[string]bool{}
	for _, f := range found {
		held[f.Rule] = true
	}
	out := Explanation{Capability: c, PolicyRevision: s.policy, Effect: writ.EffectAllow, Rules: []ExplainedRule{}}
	if found = oneQuestion(found); len(found) > 0 {
		out.Effect = found[0].Effect
	}
	for _, p := range r.packs {
		for _, id := range p.order {
			x := p.rules[id]
			one := ExplainedRule{
				Rule: id, Held: held[id], Effect: x.finding.Effect, Title: x.title, Message: x.finding.Message,
				File: x.location.File, Line: x.location.Row,
			}
			if !one.Held {
				one.Stopped = stopped(*trace, x.location, x.last)
			}
			one.Adapted = p.explainAdapted(*trace, x)
			out.Rules = append(out.Rules, one)
		}
	}
	return out, nil
}

// stopped is the furthest line of a rule's own body at which its evaluation
// failed; 0 when it never came to it.
func stopped(trace []*topdown.Event, from *ast.Location, last int) int {
	line := 0
	for _, ev := range trace {
		expr, ok := ev.Node.(*ast.Expr)
		if ok && ev.Op == topdown.FailOp && expr.Location != nil && expr.Location.File == from.File &&
			expr.Location.Row >= from.Row && expr.Location.Row <= last {
			line = max(line, expr.Location.Row)
		}
	}
	return line
}

// explainAdapted says of every rule of the entry points that a rule asks whether
// it held.
func (p *pack) explainAdapted(trace []*topdown.Event, x *rule) []AdaptedRule {
	var out []AdaptedRule
	for _, entry := range x.asks {
		for _, r := range p.entryRules(entry) {
			one := AdaptedRule{Rule: p.Adapts.Package + "." + entry, File: r.Location.File, Line: r.Location.Row}
			one.Held = slices.ContainsFunc(trace, func(ev *topdown.Event) bool {
				done, ok := ev.Node.(*ast.Rule)
				return ok && ev.Op == topdown.ExitOp && done.Location.File == one.File && done.Location.Row == one.Line
			})
			if !one.Held {
				one.Stopped = stopped(trace, r.Location, lastLine(r))
			}
			out = append(out, one)
		}
	}
	return out
}
