package policies

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/version"
	"github.com/writ-gateway/writ"
)

// snapshot is everything a decision needs, compiled. It never changes.
type snapshot struct {
	policy   string // revision of packs, input shape and engine
	bindings string // revision of the roles' file with what lies on top of it
	own      string // revision of the roles' file
	bundle   []byte
	digest   string // of bundle
	packs    []*pack
	routes   map[writ.CapabilityID]*route
	shadows  map[writ.CapabilityID][]*pack // in shadow, by id; without them no entry
	roles    roles
	over     overlay
	timeout  time.Duration // of one evaluation
	counts   []*MemoCount  // its own first
}

// route is what calls of some capabilities are judged by. Its query is a fixed
// array of references, one per pack: a pack without findings, or a misspelt
// one, makes the whole query undefined, which denies.
type route struct {
	packs []*pack // sorted by id
	refs  []writ.PackRef
	query rego.PreparedEvalQuery
}

// engineVersion is part of the revision: the same packs under another engine
// or another input may decide differently.
func engineVersion() string {
	return "opa " + version.Version + ", input " + digest(schemaJSON)
}

// build compiles a source. Order: read, parse, contract, compile, references,
// routes, warm-up. It returns the first failure, naming file and line where
// there is one, and nothing else.
func build(ctx context.Context, src Source, o Options) (*snapshot, error) {
	f, err := src.read()
	if err != nil {
		return nil, err
	}
	packs, err := loadPacks(f)
	if err != nil {
		return nil, err
	}
	if err := checkMandatory(packs); err != nil {
		return nil, err
	}
	s := &snapshot{routes: map[writ.CapabilityID]*route{}, counts: []*MemoCount{{}}}
	for _, p := range packs {
		s.packs = append(s.packs, p)
	}
	slices.SortFunc(s.packs, func(a, b *pack) int { return strings.Compare(a.ID, b.ID) })
	compiler, err := compile(s.packs)
	if err != nil {
		return nil, err
	}
	store := inmem.NewFromObjectWithOpts(data(packs), inmem.OptReturnASTValuesOnRead(true))
	byPacks := map[string]*route{}
	for _, c := range o.Capabilities {
		if s.routes[c], err = s.route(ctx, c, compiler, store, byPacks); err != nil {
			return nil, err
		}
	}
	s.shadows = shadowsOf(s.packs, o.Capabilities)
	for _, p := range s.packs {
		if p.alone, err = s.prepare(ctx, []*pack{p}, compiler, store, byPacks); err != nil {
			return nil, fmt.Errorf("pack %s: %w", p.ID, err)
		}
		p.reads = p.readsOf(compiler)
		if p.remembers() {
			p.memo = newMemo()
		}
	}
	if err := s.warmUp(ctx, byPacks, o.WarmUp); err != nil {
		return nil, err
	}
	if s.roles, err = loadRoles(f, o); err != nil {
		return nil, err
	}
	if err := s.roles.check(o); err != nil {
		return nil, err
	}
	if s.bundle, err = writeBundle(f); err != nil {
		return nil, err
	}
	s.digest = digest(s.bundle)
	s.policy = revision(s.packs)
	s.own = bindingsRevision(f)
	s.bindings = s.own
	s.timeout = o.Timeout
	return s, nil
}

func bindingsRevision(f files) string {
	return files{modelFile: f[modelFile], rowsFile: f[rowsFile]}.digest()
}

func revision(packs []*pack) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", engineVersion())
	for _, p := range packs {
		fmt.Fprintf(h, "%s %s %s\n", p.ID, p.Version, p.digest)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func compile(packs []*pack) (*ast.Compiler, error) { return compileIn(capabilities(), packs) }

// compileIn compiles the packs' own modules in strict mode. Where packs adapt
// packages of others, everything is then compiled together, with less asked of
// what nobody may edit.
func compileIn(language *ast.Capabilities, packs []*pack) (*ast.Compiler, error) {
	schemas, err := inputSchema()
	if err != nil {
		return nil, err
	}
	modules, adapted := map[string]*ast.Module{}, []*pack(nil)
	for _, p := range packs {
		maps.Copy(modules, p.modules)
		if len(p.vendored) > 0 {
			adapted = append(adapted, p)
		}
	}
	c := ast.NewCompiler().WithCapabilities(language).WithStrict(true).WithSchemas(schemas).SetErrorLimit(0)
	if c.Compile(modules); c.Failed() {
		return nil, c.Errors
	}
	var all []error
	for _, p := range packs {
		all = append(all, p.ownRefs(c))
	}
	if err := errors.Join(all...); err != nil || len(adapted) == 0 {
		return c, err
	}
	for _, p := range adapted {
		maps.Copy(modules, p.vendored)
	}
	c = ast.NewCompiler().WithCapabilities(adaptedLanguage(language)).WithSchemas(schemas).WithUseTypeCheckAnnotations(true).SetErrorLimit(0)
	if c.Compile(modules); c.Failed() {
		return nil, notShown(c.Errors)
	}
	for _, p := range adapted {
		all = append(all, p.vendoredRefs(c))
	}
	return c, errors.Join(all...)
}

// route finds or prepares the route of a capability.
func (s *snapshot) route(ctx context.Context, c writ.CapabilityID, compiler *ast.Compiler, store storage.Store, known map[string]*route) (*route, error) {
	var packs []*pack
	for _, p := range s.packs {
		if p.judges(c) {
			packs = append(packs, p)
		}
	}
	if len(packs) == 0 {
		return nil, Problem{Msg: fmt.Sprintf("capability %s is routed to no pack", c)}
	}
	r, err := s.prepare(ctx, packs, compiler, store, known)
	if err != nil {
		return nil, fmt.Errorf("capability %s: %w", c, err)
	}
	return r, nil
}

// prepare makes the query of some packs, or finds it.
func (s *snapshot) prepare(ctx context.Context, packs []*pack, compiler *ast.Compiler, store storage.Store, known map[string]*route) (*route, error) {
	r := &route{packs: packs}
	var refs []string
	for _, p := range packs {
		r.refs = append(r.refs, writ.PackRef{ID: p.ID, Digest: p.digest})
		refs = append(refs, "data.packs."+p.ID+".findings")
	}
	query := "x := [" + strings.Join(refs, ", ") + "]"
	if same := known[query]; same != nil {
		return same, nil
	}
	var err error
	r.query, err = rego.New(rego.Query(query), rego.Compiler(compiler), rego.Store(store), rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	known[query] = r
	return r, err
}

// warmUpTimeout is generous: nobody waits for the answer, and a busy machine
// must not keep the gateway from starting.
const warmUpTimeout = 10 * time.Second

// warmUp evaluates every route once with a call that says nothing, and refuses
// packs that let it through: a pack that cannot tell must deny.
func (s *snapshot) warmUp(ctx context.Context, routes map[string]*route, timeout time.Duration) error {
	for _, r := range routes {
		found, err := r.eval(ctx, ast.NewObject(), timeout)
		if err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		for _, p := range r.packs {
			denies := func(f writ.Finding) bool { return f.Pack == p.ID && f.Effect == writ.EffectDeny }
			if !slices.ContainsFunc(found, denies) {
				return p.open()
			}
		}
	}
	return nil
}

var errNoAnswer = errors.New("the packs gave no answer")
