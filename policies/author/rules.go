package author

import (
	"context"
	"path"
	"slices"

	"github.com/writ-gateway/writ"
)

// Rule is one rule of a pack, for lists.
type Rule struct {
	ID       string      `json:"id"`
	Pack     string      `json:"pack"`
	Effect   writ.Effect `json:"effect"`
	Code     string      `json:"code"`
	Obliges  []string    `json:"obliges,omitempty"`
	Title    string      `json:"title"`
	Severity string      `json:"severity"`
	Control  string      `json:"control"`
	File     string      `json:"file"`
	Line     int         `json:"line"`
}

// Rules lists the rules of all packs, by pack and in the order of the sources.
// It fails when the packs do not load.
func (t *Tree) Rules(ctx context.Context) ([]Rule, error) {
	draft, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	out := []Rule{}
	for _, p := range draft.Packs() {
		for _, r := range p.Rules {
			var obliges []string
			for _, o := range r.Obligations {
				if !slices.Contains(obliges, o.Type) {
					obliges = append(obliges, o.Type)
				}
			}
			out = append(out, Rule{
				ID: r.ID, Pack: r.Pack, Effect: r.Effect, Code: r.Code, Obliges: obliges, Title: r.Title, Severity: r.Severity,
				Control: r.Control, File: path.Join(t.Dir, r.File), Line: r.Line,
			})
		}
	}
	return out, nil
}
