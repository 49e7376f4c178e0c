package policies

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// shadowsOf sorts the packs in shadow by the capabilities they would judge.
func shadowsOf(packs []*pack, capabilities []writ.CapabilityID) map[writ.CapabilityID][]*pack {
	out := map[writ.CapabilityID][]*pack{}
	for _, c := range capabilities {
		for _, p := range packs {
			if p.shadow() && p.matches(c) {
				out[c] = append(out[c], p)
			}
		}
	}
	return out
}

// ver names the pack.
func (p *pack) ver() writ.PackVer {
	v := writ.PackVer{ID: p.ID, Version: p.Version, Digest: p.digest}
	if p.shadow() {
		v.Stage = StageShadow
	}
	return v
}

// Shadowed lists the packs in shadow, by id.
func (s *snapshot) Shadowed() []writ.PackVer {
	var out []writ.PackVer
	for _, p := range s.packs {
		if p.shadow() {
			out = append(out, p.ver())
		}
	}
	return out
}

// Shadowed is that of the rules loaded last.
func (e *Engine) Shadowed() []writ.PackVer { return e.now.Load().Shadowed() }

// Shadows says whether a pack in shadow would judge a capability. It does not allocate.
func (s *snapshot) Shadows(c writ.CapabilityID) bool { return len(s.shadows[c]) > 0 }

// Shadow asks the packs in shadow about a decision, by its record. Each is
// evaluated by itself, so that none that fails keeps another from answering.
func (s *snapshot) Shadow(ctx context.Context, c writ.CapabilityID, record []byte) []writ.Shade {
	input, err := parseRecord(record)
	var out []writ.Shade
	for _, p := range s.shadows[c] {
		shade := writ.Shade{Pack: p.ver(), Err: err}
		if err == nil {
			shade.Findings, shade.Err = s.shade(ctx, p, input)
		}
		out = append(out, shade)
	}
	return out
}

// shade is what one pack finds. Nobody is waiting for it, so whatever is wrong
// with it, a panic of the engine included, is an error and no more.
func (s *snapshot) shade(ctx context.Context, p *pack, input ast.Value) (found []writ.Finding, err error) {
	defer func() {
		if r := recover(); r != nil {
			found, err = nil, fmt.Errorf("pack %s: %v", p.ID, r)
		}
	}()
	return p.alone.eval(ctx, input, s.timeout)
}
