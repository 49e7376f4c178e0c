package policies

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// Draft is a source as its authors see it: everything that is wrong with it,
// and its packs as far as they could be read. Nothing decides by a draft.
type Draft struct {
	problems []Problem
	packs    map[string]*pack
	compiler *ast.Compiler // nil when the packs do not compile together
	roles    roles         // nil when the source has none, or none that can be read
	governed []writ.CapabilityID
	timeout  time.Duration
}

// Examine does everything that loading does, and goes on after a failure as
// long as the next step can say something of its own. Without problems the
// source loads.
func Examine(ctx context.Context, src Source, o Options) *Draft {
	o = o.withDefaults()
	f, err := src.read()
	d := &Draft{timeout: warmUpTimeout, governed: o.Capabilities}
	all := []error{err, d.read(ctx, f), checkMandatory(d.packs), o.validate()}
	for _, c := range o.Capabilities {
		if len(d.Route(c)) == 0 {
			all = append(all, Problem{Msg: fmt.Sprintf("capability %s is routed to no pack", c)})
		}
	}
	if f[modelFile] != nil && f[rowsFile] != nil {
		r, err := loadRoles(f, o)
		d.roles = r
		if err == nil && o.validate() == nil {
			err = r.check(o)
		}
		all = append(all, err)
	}
	d.problems = problems(errors.Join(all...))
	return d
}

// ExaminePacks is Examine for packs by themselves: the contract, the compiler
// and the warm-up, but neither roles nor the packs that must be there.
// Timeout bounds the warm-up of each pack; 0 is the engine's own.
func ExaminePacks(ctx context.Context, src Source, timeout time.Duration) *Draft {
	if timeout <= 0 {
		timeout = warmUpTimeout
	}
	f, err := src.read()
	d := &Draft{timeout: timeout}
	d.problems = problems(errors.Join(err, d.read(ctx, f)))
	return d
}

// read parses, compiles and warms up.
func (d *Draft) read(ctx context.Context, f files) error {
	packs, err := loadPacks(f)
	d.packs = packs
	compiler, failed := compile(d.sorted())
	if failed != nil {
		failed = errors.Join(failed, d.compileApart())
	}
	if err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	d.compiler = compiler
	var all []error
	for _, p := range d.sorted() {
		all = append(all, d.warmUp(ctx, p))
	}
	return errors.Join(all...)
}

// compileApart finds what the compiler did not come to: it stops after the
// first of its stages that fails. So each pack is compiled by itself, and once
// more in the whole language, where a builtin that may not be used hides no
// error of types.
func (d *Draft) compileApart() error {
	var all []error
	for _, p := range d.sorted() {
		_, err := compile([]*pack{p})
		_, whole := compileIn(ast.CapabilitiesForThisVersion(), []*pack{p})
		all = append(all, err, whole)
	}
	return errors.Join(all...)
}

func (d *Draft) warmUp(ctx context.Context, p *pack) error {
	t, err := d.Trial(ctx, []string{p.ID}, true)
	if err != nil {
		return inFile("packs/"+p.ID, err)
	}
	got, err := t.Decide(ctx, ast.NewObject(), d.timeout)
	switch {
	case err != nil:
		return inFile("packs/"+p.ID, fmt.Errorf("warm-up: %w", err))
	case got.Effect != writ.EffectDeny:
		return p.open()
	}
	return nil
}

// open is the problem of a pack that lets the empty call through.
func (p *pack) open() error {
	return Problem{File: "packs/" + p.ID, Msg: "the pack does not deny an empty call; it must, or it would let through what it cannot judge"}
}

func (d *Draft) sorted() []*pack {
	var out []*pack
	for _, p := range d.packs {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *pack) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Problems are sorted by file, line and column.
func (d *Draft) Problems() []Problem { return d.problems }

// DraftPack is a pack with what it is made of. It is shared: do not change it.
type DraftPack struct {
	PackInfo
	Effects  []writ.Effect
	Forgets  bool                   // the manifest says memo: false
	Modules  map[string]*ast.Module // as parsed, by file name; without tests
	Vendored map[string]*ast.Module // of the package it adapts
	Asks     []string               // entry points of that package
	Ignores  []string               // fields of its input that stay undefined
	Config   any                    // of data.yaml; nil without it
	Mounted  map[string]any         // what OPA's tools find at data.<id>
	Rules    []DraftRule            // instead of those of PackInfo
}

// DraftRule is a rule and where it stands.
type DraftRule struct {
	RuleInfo
	Obligations []writ.Obligation // what it asks the host to do
	Needs       []writ.Need       // what it asks people for
	Denies      bool              // the host cannot do that, so the finding denies whatever its effect
	Pack        string
	File        string
	Line        int
	Col         int
}

// Packs are sorted by id; those that could not be parsed are missing.
func (d *Draft) Packs() []DraftPack {
	var out []DraftPack
	for _, p := range d.sorted() {
		x := DraftPack{PackInfo: p.info(), Effects: p.Effects, Forgets: !p.memoised(), Modules: p.modules, Vendored: p.vendored, Config: p.config}
		if p.Adapts != nil {
			x.Asks, x.Ignores = p.Adapts.Entrypoints.all(), p.Adapts.Ignores
		}
		x.Mounted, _ = data(map[string]*pack{p.ID: p})[p.ID].(map[string]any)
		for _, r := range x.PackInfo.Rules {
			one := p.rules[r.ID]
			x.Rules = append(x.Rules, DraftRule{
				RuleInfo: r, Obligations: one.obligations, Needs: one.needs, Denies: !one.known,
				Pack: p.ID, File: one.location.File, Line: one.location.Row, Col: one.location.Col,
			})
		}
		out = append(out, x)
	}
	return out
}

// Permits says whether the bindings of the source let a role invoke a capability
// in some tenant. known is false when it has none that can be read, or the
// capability is not one of those it was examined for.
func (d *Draft) Permits(role writ.Role, c writ.CapabilityID) (permits, known bool) {
	for p := range d.roles.may {
		permits = permits || p.role == role && p.capability == c
	}
	return permits, d.roles.may != nil && slices.Contains(d.governed, c)
}

// Governed lists the capabilities the source was examined for.
func (d *Draft) Governed() []writ.CapabilityID { return d.governed }

// Compiler holds the compiled packs; nil when they do not compile.
func (d *Draft) Compiler() *ast.Compiler { return d.compiler }

// Route lists the ids of the packs that judge a capability; those in shadow do not.
func (d *Draft) Route(c writ.CapabilityID) []string {
	var out []string
	for _, p := range d.sorted() {
		if p.judges(c) {
			out = append(out, p.ID)
		}
	}
	return out
}

// InputSchema is the JSON Schema of what packs see of a call.
func InputSchema() []byte { return slices.Clone(schemaJSON) }
