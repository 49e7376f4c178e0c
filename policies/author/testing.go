package author

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/lineage"
	"github.com/writ-gateway/writ/policies"
)

// Case is one test that ran.
type Case struct {
	Kind    string        `json:"kind"` // rego or fixture
	Name    string        `json:"name"`
	File    string        `json:"file"`
	Line    int           `json:"line"`
	Passed  bool          `json:"passed"`
	Skipped bool          `json:"skipped,omitempty"` // todo_test_…
	Took    time.Duration `json:"took_ns"`
	Message string        `json:"message,omitempty"` // of a failure
	Output  string        `json:"output,omitempty"`  // what it printed
	Trace   string        `json:"trace,omitempty"`   // where a failure failed
}

// PackTests is what the tests and fixtures of one pack say.
type PackTests struct {
	Pack     string         `json:"pack"`
	Cases    []Case         `json:"cases"`
	Coverage float64        `json:"coverage"` // percent of the lines, by the Rego tests
	Files    []FileCoverage `json:"files"`
}

// Failed counts the cases that failed.
func (p PackTests) Failed() int {
	n := 0
	for _, c := range p.Cases {
		if !c.Passed && !c.Skipped {
			n++
		}
	}
	return n
}

// TestOptions pick and bound the tests.
type TestOptions struct {
	Run     string        // regular expression on the names; all when empty
	Packs   []string      // ids; all when empty
	Timeout time.Duration // of one case; default 10 s
}

// Test runs the Rego tests of each pack, as `opa test` does but without clock,
// chance and network, and the fixtures with the queries of the gateway. It
// fails when the packs do not load or their tests do not compile.
func (t *Tree) Test(ctx context.Context, o TestOptions) ([]PackTests, error) {
	run, err := regexp.Compile(o.Run)
	if err != nil {
		return nil, fmt.Errorf("--run: %w", err)
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if err := t.has(o.Packs); err != nil {
		return nil, err
	}
	draft, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	var out []PackTests
	for _, p := range draft.Packs() {
		if len(o.Packs) > 0 && !slices.Contains(o.Packs, p.ID) {
			continue
		}
		r := PackTests{Pack: p.ID, Cases: []Case{}}
		if err := t.runRego(ctx, p, o, &r); err != nil {
			return nil, err
		}
		fixtures, bad := t.fixtures(p.ID)
		for _, f := range bad {
			r.Cases = append(r.Cases, Case{Kind: "fixture", Name: path.Base(f.File), File: f.File, Line: f.Line, Message: f.Message})
		}
		trial, err := draft.Trial(ctx, []string{p.ID}, true)
		if err != nil {
			return nil, err
		}
		for _, f := range fixtures {
			if !run.MatchString(f.Name) && !run.MatchString(f.File) {
				continue
			}
			start := time.Now()
			diff := f.run(ctx, trial, o.Timeout)
			r.Cases = append(r.Cases, Case{
				Kind: "fixture", Name: f.Name, File: f.File, Line: 1, Passed: diff == "", Took: time.Since(start), Message: diff,
			})
		}
		out = append(out, r)
	}
	return out, nil
}

// Refused is an error that is findings.
type Refused []Finding

func (r Refused) Error() string {
	f := r[0]
	return fmt.Sprintf("%s:%d: %s; run 'writ policy check' for all %d problems", f.File, f.Line, f.Message, len(r))
}

func parseTest(name string, b []byte) (*ast.Module, error) {
	return ast.ParseModuleWithOpts(name, string(b), ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1})
}

// testLanguage is that of packs with what OPA has for messages: a test that
// needs a clock or the network is none.
func testLanguage() *ast.Capabilities { return policies.AdaptedLanguage() }

func (t *Tree) runRego(ctx context.Context, p policies.DraftPack, o TestOptions, r *PackTests) error {
	modules := map[string]*ast.Module{}
	for _, own := range []map[string]*ast.Module{p.Modules, p.Vendored} {
		for name, m := range own {
			modules[name] = m.Copy()
		}
	}
	// Tests that came with an adapted package run too.
	for _, name := range slices.Concat(t.packFiles(p.ID, "*_test.rego"), t.vendored(p.ID, "*_test.rego")) {
		m, err := parseTest(name, t.files[name])
		if err != nil {
			return Refused(fromOPA(err))
		}
		modules[name] = m
	}
	coverage := cover.New()
	cases, err := runTests(ctx, p, modules, o.Run, o.Timeout, func(r *tester.Runner) { r.SetCoverageQueryTracer(coverage) })
	if err != nil {
		return err
	}
	for _, c := range cases {
		r.Cases = append(r.Cases, regoCase(ctx, p, modules, c, o.Timeout))
	}
	slices.SortFunc(r.Cases, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	r.cover(coverage.Report(modules))
	return nil
}

func runTests(ctx context.Context, p policies.DraftPack, modules map[string]*ast.Module, run string, timeout time.Duration, with func(*tester.Runner)) ([]*tester.Result, error) {
	store := inmem.NewFromObject(map[string]any{p.ID: p.Mounted})
	compiler := ast.NewCompiler().WithCapabilities(testLanguage()).WithEnablePrintStatements(true).WithDefaultRegoVersion(ast.RegoV1)
	runner := tester.NewRunner().SetStore(store).SetCompiler(compiler).SetModules(modules).RaiseBuiltinErrors(true).
		CapturePrintOutput(true).SetTimeout(timeout).SetParallel(1).Filter(run)
	with(runner)
	var out []*tester.Result
	err := storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := runner.RunTests(ctx, txn)
		if err != nil {
			return err
		}
		for r := range results {
			out = append(out, r)
		}
		return nil
	})
	if _, ok := errors.AsType[ast.Errors](err); ok {
		return nil, Refused(fromOPA(err))
	}
	return out, err
}

// regoCase makes a case of OPA's result. A failure is run once more to say where.
func regoCase(ctx context.Context, p policies.DraftPack, modules map[string]*ast.Module, r *tester.Result, timeout time.Duration) Case {
	c := Case{
		Kind: "rego", Name: r.Name, File: r.Location.File, Line: r.Location.Row, Passed: r.Pass(), Skipped: r.Skip,
		Took: r.Duration, Output: string(r.Output),
	}
	switch {
	case r.Error != nil:
		c.Message = "it ends with an error: " + r.Error.Error()
	case r.Fail:
		c.Message = "it is undefined or false" + failing(r.SubResults)
	}
	if !r.Fail {
		return c
	}
	again, err := runTests(ctx, p, modules, regexp.QuoteMeta(r.Package+"."+r.Name)+"$", timeout, func(r *tester.Runner) { r.EnableTracing(true) })
	if err == nil && len(again) == 1 {
		var b bytes.Buffer
		topdown.PrettyTraceWithLocation(&b, lineage.Fails(again[0].Trace))
		c.Trace = b.String()
	}
	return c
}

// failing names the cases of a table test that failed.
func failing(all tester.SubResultMap) string {
	var names []string
	for name, s := range all {
		if s.Fail {
			names = append(names, fmt.Sprintf("%q", name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return " for " + strings.Join(names, ", ")
}
