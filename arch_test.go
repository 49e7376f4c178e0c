package writ_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/writ-gateway/writ"

// may says which packages of ours a package may import, as prefixes of the
// path inside the module; "" is the dictionary. A package not listed here may
// not exist: give it a row and a reason.
var may = map[string][]string{
	"":                           {},                                                                                                                                                                                                                                   // the dictionary: standard library only
	"agents":                     {""},                                                                                                                                                                                                                                 // rooms plan, purely
	"runs":                       {""},                                                                                                                                                                                                                                 //
	"budgets":                    {""},                                                                                                                                                                                                                                 //
	"approvals":                  {""},                                                                                                                                                                                                                                 //
	"bundles":                    {""},                                                                                                                                                                                                                                 //
	"roles":                      {""},                                                                                                                                                                                                                                 //
	"keys":                       {""},                                                                                                                                                                                                                                 //
	"quotas":                     {""},                                                                                                                                                                                                                                 //
	"queue":                      {""},                                                                                                                                                                                                                                 //
	"registry":                   {""},                                                                                                                                                                                                                                 //
	"store":                      {""},                                                                                                                                                                                                                                 // the seam
	"store/boltstore":            {"", "internal/durable", "store"},                                                                                                                                                                                                    // hosts
	"store/redisstore":           {"", "store"},                                                                                                                                                                                                                        //
	"store/redisstore/redistest": {"", "store"},                                                                                                                                                                                                                        // starts a private redis-server for tests
	"store/storetest":            {"", "store", "store/boltstore"},                                                                                                                                                                                                     // the contract, run on every host
	"store/blobs":                {"", "internal/durable"},                                                                                                                                                                                                             // bodies by digest
	"policies":                   {""},                                                                                                                                                                                                                                 // decides
	"policies/author":            {"", "internal/printable", "policies"},                                                                                                                                                                                               // the workbench of policy authors
	"policies/policytest":        {"", "policies"},                                                                                                                                                                                                                     // policies for tests of whole gateways
	"policies/packs":             {},                                                                                                                                                                                                                                   // embedded sources
	"receipts":                   {"", "internal/durable", "internal/jcs"},                                                                                                                                                                                             // proves
	"receipts/tlog":              {"", "internal/durable", "receipts", "receipts/checkpoint"},                                                                                                                                                                          // publishes what is proven
	"receipts/pack":              {"", "receipts", "receipts/tlog"},                                                                                                                                                                                                    // for whoever judges without us
	"receipts/shred":             {"", "internal/durable", "receipts", "receipts/ledger", "store"},                                                                                                                                                                     // keys of evidence that can be destroyed
	"receipts/ledger":            {"", "internal/durable", "receipts", "store"},                                                                                                                                                                                        // keeps what is proven
	"guard":                      {"", "store"},                                                                                                                                                                                                                        // the one door
	"gateway":                    {"", "egress", "egress/wire"},                                                                                                                                                                                                        // HTTP, decides nothing
	"workflow":                   {"", "client"},                                                                                                                                                                                                                       // reads workflows, calls nothing
	"roster":                     {""},                                                                                                                                                                                                                                 // the registry as a file, calls nothing
	"webhooks":                   {""},                                                                                                                                                                                                                                 // tells others, decides nothing
	"openapi":                    {},                                                                                                                                                                                                                                   // the generated description
	"client":                     {"", "receipts/checkpoint"},                                                                                                                                                                                                          // what the CLI and agents use
	"writtest":                   {""},                                                                                                                                                                                                                                 // a pure world for tests of rooms
	"internal/durable":           {},                                                                                                                                                                                                                                   // files that a crash leaves whole
	"internal/jcs":               {},                                                                                                                                                                                                                                   // RFC 8785
	"internal/printable":         {},                                                                                                                                                                                                                                   // what strangers wrote, on terminals
	"internal/telemetry":         {},                                                                                                                                                                                                                                   // Prometheus
	"internal/tools/testcount":   {},                                                                                                                                                                                                                                   // counts test results for CI
	"internal/daemon":            {"*"},                                                                                                                                                                                                                                // puts it together
	"internal/story":             {"", "client"},                                                                                                                                                                                                                       // the demonstration
	"cmd/writ":                   {"", "internal/daemon", "internal/printable", "internal/story", "client", "policies", "policies/author", "receipts", "receipts/tlog", "receipts/pack", "receipts/ledger", "receipts/shred", "gateway", "roster", "workflow", "jail"}, // the command line
	"examples/loop":              {"", "client"},                                                                                                                                                                                                                       // what users would write
	"examples/loop/agent":        {"", "client"},                                                                                                                                                                                                                       //
	"examples/loop/planner":      {"", "client", "examples/loop/agent"},                                                                                                                                                                                                //
	"examples/loop/builder":      {"", "client", "examples/loop/agent"},                                                                                                                                                                                                //
	"examples/loop/judge":        {"", "client", "examples/loop/agent"},                                                                                                                                                                                                //
	"bench":                      {"*"},                                                                                                                                                                                                                                // measures
	"e2e":                        {"*"},                                                                                                                                                                                                                                // drives the real binary
	"egress/dial":                {},
	"health":                     {"", "egress/dial"},
	"supervisor":                 {""},                                 // runs agents in jails
	"jail":                       {"jail/seccomp", "jail/wire"},        // runs agents; knows nothing of the gateway
	"jail/seccomp":               {},                                   // what a jail may ask of the kernel
	"jail/wire":                  {},                                   // what the first process of a jail is told
	"jail/jailtest":              {"jail"},                             // whether tests may start jails
	"cmd/jail-init":              {"jail/wire"},                        // that process
	"egress":                     {"", "egress/dial", "egress/target"}, // acts outside, decides nothing
	"egress/target":              {},                                   // reads hosts, ports and paths
	"egress/wire":                {},                                   // HTTP/1.1 beyond doubt
	"effects":                    {""},
	"grants":                     {"", "egress/target"},               // a room; reads hosts and paths as they are judged
	"receipts/checkpoint":        {},                                  // what a log showed, and whether it only grew
	"receipts/tlog/witnesstest":  {"receipts", "receipts/checkpoint"}, // a witness in memory, for tests
	"receipts/tlog/filestest":    {"receipts/tlog"},                   // what all files of a log must do
	"receipts/tlog/bucket":       {"internal/s3", "receipts/tlog"},    // the log in an object store
	"internal/s3":                {},                                  // the calls of an object store that needs
	"internal/s3/s3test":         {"internal/s3"},                     // one in memory, for tests
	"jail/battery":               {},                                  // tests that try to get out
	"jail/battery/probes":        {},                                  // what they try
	"jail/battery/probe":         {"jail/battery/probes"},             // as a program
	"jail/battery/caller":        {},                                  // what must work, as a program
	"secrets":                    {""},
	"secrets/vault":              {""}, // seals, and puts into requests
}

// home says where a third party may be imported.
var home = map[string][]string{
	"github.com/open-policy-agent/opa":                  {"policies", "policies/author", "bench"}, // author runs OPA's tester, formatter and bundles
	"github.com/casbin/casbin":                          {"policies"},
	"github.com/danielgtaylor/huma":                     {"gateway"},
	"github.com/redis/go-redis":                         {"store/redisstore", "store/redisstore/redistest"},
	"go.etcd.io/bbolt":                                  {"store/boltstore"},
	"filippo.io/mldsa":                                  {"receipts", "receipts/checkpoint", "receipts/tlog"},
	"github.com/sigstore/sigstore":                      {"receipts"},
	"github.com/secure-systems-lab/go-securesystemslib": {"receipts"},
	"github.com/gowebpki/jcs":                           {"internal/jcs", "receipts"},
	"github.com/go-json-experiment/json":                {"gateway", "receipts", "receipts/pack"},
	"github.com/santhosh-tekuri/jsonschema":             {"gateway"},
	"github.com/prometheus/client_golang":               {"internal/telemetry"},
	"github.com/spf13/cobra":                            {"cmd/writ"},
	"github.com/spf13/pflag":                            {"cmd/writ"},
	"go.yaml.in/yaml":                                   {"policies", "policies/author", "internal/daemon", "gateway", "cmd/writ", "roster"},
	"github.com/anishathalye/porcupine":                 {"e2e"},
	"github.com/rogpeppe/go-internal":                   {"e2e", "cmd/writ"},
	"pgregory.net/rapid":                                {"*"},
	"github.com/hibiken/asynq":                          {"tools/asynq"},
	"github.com/opencontainers/runtime-spec":            {"jail"},
	"github.com/aws/aws-sdk-go-v2":                      {"internal/s3"}, // its signer
	"github.com/aws/smithy-go":                          {"internal/s3"}, // how it writes paths
	"go.uber.org/goleak":                                {"*"},
	"golang.org/x":                                      {"*"},
}

type file struct {
	pkg  string // path inside the module
	path string
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// sources parses every Go file of the module. It reads the files itself, so
// the test cache notices a change that go list would hide.
func sources(t *testing.T) []file {
	t.Helper()
	var out []file
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); d.IsDir() && path != "." && err == nil {
			return filepath.SkipDir // a module of its own
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if pkg == "." {
			pkg = ""
		}
		out = append(out, file{pkg: pkg, path: path, test: strings.HasSuffix(name, "_test.go"), ast: f, fset: fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("found only %d Go files: the walk is broken", len(out))
	}
	return out
}

func TestImportDirections(t *testing.T) {
	for _, f := range sources(t) {
		allowed, known := may[f.pkg]
		if !known {
			t.Errorf("%s: package %q has no row in the table of import directions", f.path, f.pkg)
			continue
		}
		for _, spec := range f.ast.Imports {
			imp := strings.Trim(spec.Path.Value, `"`)
			if imp == module || strings.HasPrefix(imp, module+"/") {
				inner := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
				if f.test || inner == f.pkg || slices.Contains(allowed, "*") || slices.Contains(allowed, inner) {
					continue
				}
				t.Errorf("%s: package %q may not import %q", f.path, f.pkg, inner)
				continue
			}
			if !strings.Contains(strings.Split(imp, "/")[0], ".") {
				continue // standard library
			}
			if f.pkg == "" && !f.test {
				t.Errorf("%s: the dictionary imports %s; it may use the standard library only", f.path, imp)
			}
			if f.test {
				continue // tests may take a second opinion anywhere
			}
			ok := false
			for prefix, homes := range home {
				if imp == prefix || strings.HasPrefix(imp, prefix+"/") {
					ok = slices.Contains(homes, "*") || slices.Contains(homes, f.pkg)
				}
			}
			if !ok {
				t.Errorf("%s: %s has its home elsewhere, or none", f.path, imp)
			}
		}
	}
}

// Rooms are pure: no I/O, no clock, no randomness, no goroutines.
func TestRoomsArePure(t *testing.T) {
	banned := []string{"os", "net", "net/http", "io/fs", "math/rand", "math/rand/v2", "crypto/rand", "os/exec", "log", "log/slog", "sync", "context"}
	for _, f := range sources(t) {
		switch f.pkg {
		case "agents", "effects", "grants", "secrets", "runs", "budgets", "queue", "registry", "approvals", "bundles", "quotas", "roles", "keys":
		default:
			continue
		}
		if f.test {
			continue
		}
		for _, spec := range f.ast.Imports {
			if imp := strings.Trim(spec.Path.Value, `"`); slices.Contains(banned, imp) {
				t.Errorf("%s: a room may not import %s", f.path, imp)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a room may not start goroutines", f.fset.Position(x.Pos()))
			case *ast.SelectorExpr:
				if id, ok := x.X.(*ast.Ident); ok && id.Name == "time" && (x.Sel.Name == "Now" || x.Sel.Name == "Since" || x.Sel.Name == "Sleep") {
					t.Errorf("%s: a room has no clock: use Snapshot.Now", f.fset.Position(x.Pos()))
				}
			}
			return true
		})
	}
}

// A package that starts goroutines has its tests see that they end.
func TestGoroutinesEnd(t *testing.T) {
	starts, tested, held := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			tested[f.pkg] = true
			held[f.pkg] = held[f.pkg] || slices.ContainsFunc(f.ast.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == `"go.uber.org/goleak"` })
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.GoStmt:
				starts[f.pkg] = true
			case *ast.CallExpr:
				s, ok := x.Fun.(*ast.SelectorExpr)
				starts[f.pkg] = starts[f.pkg] || ok && s.Sel.Name == "Go"
			}
			return true
		})
	}
	for pkg := range starts {
		if starts[pkg] && tested[pkg] && !held[pkg] {
			t.Errorf("package %q starts goroutines: its TestMain calls goleak.VerifyTestMain", pkg)
		}
	}
}

// ecdsa.SignASN1 with a nil reader is silently random; only a signature by
// PrivateKey.Sign with a nil reader is deterministic, and only one function
// does it.
func TestOneSigner(t *testing.T) {
	found := 0
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		n, strays := signatures(f)
		found += n
		for _, s := range strays {
			t.Error(s)
		}
	}
	if found != 1 {
		t.Errorf("%d calls sign with nil randomness, want the one in receipts/seal.go", found)
	}
}

// signatures finds what signs in a file: the calls that may, and complaints
// about everything else.
func signatures(f file) (allowed int, strays []string) {
	may := map[ast.Node]bool{}
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || fn.Name.Name != "sign" || filepath.ToSlash(f.path) != "receipts/seal.go" {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 3 {
				if random, ok := call.Args[0].(*ast.Ident); ok && random.Name == "nil" {
					may[call.Fun] = true
				}
			}
			return true
		})
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		x, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch x.Sel.Name {
		case "Sign":
			if may[x] {
				allowed++
				return true
			}
			if of, ok := x.X.(*ast.Ident); ok && of.Name == "note" {
				return true // has the log's key sign, which comes to sign
			}
			strays = append(strays, f.fset.Position(x.Pos()).String()+": only sign in receipts/seal.go signs, with nil randomness")
		case "SignASN1", "SignMessage", "SignPayload":
			if x.Sel.Name == "SignMessage" && filepath.ToSlash(f.path) == "receipts/kms.go" {
				return true // a key management service: of the root and the log, whose signatures need not repeat; a Sealer takes none
			}
			strays = append(strays, f.fset.Position(x.Pos()).String()+": "+x.Sel.Name+" is random, or may be")
		}
		return true
	})
	return allowed, strays
}

// What TestOneSigner must notice.
func TestOneSignerNotices(t *testing.T) {
	const home, good = "receipts/seal.go", "func sign() { priv.Sign(nil, h, crypto.SHA256) }"
	for _, tt := range []struct {
		path, code      string
		allowed, strays int
	}{
		{home, good, 1, 0},
		{home, strings.ReplaceAll(good, "nil", "rand.Reader"), 0, 1},
		{home, strings.ReplaceAll(good, "func sign", "func other"), 0, 1},
		{home, strings.ReplaceAll(good, "func sign", "func (Sealer) sign"), 0, 1},
		{home, good + "\nfunc other() { key.Sign(nil, h, crypto.SHA256) }", 1, 1},
		{home, good + "\nvar f = key.Sign", 1, 1},
		{"receipts/keys.go", good, 0, 1},
		{home, "func sign() { ecdsa.SignASN1(nil, priv, h) }", 0, 1},
		{"guard/door.go", "func f() { signer.SignMessage(r, opts) }", 0, 1},
		{"guard/door.go", "func f() { envelope.SignPayload(ctx, t, b) }", 0, 1},
		{"guard/door.go", "func f() { signer.Verify(a); Sign(b) }", 0, 0},
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, tt.path, "package p\n"+tt.code, 0)
		if err != nil {
			t.Fatal(err)
		}
		allowed, strays := signatures(file{path: tt.path, ast: f, fset: fset})
		if allowed != tt.allowed || len(strays) != tt.strays {
			t.Errorf("%s: %s: %d allowed, strays %q", tt.path, tt.code, allowed, strays)
		}
	}
}

// Only the door commits: no other code outside the stores calls Commit.
func TestOnlyTheDoorCommits(t *testing.T) {
	for _, f := range sources(t) {
		if f.test || f.pkg == "guard" || strings.HasPrefix(f.pkg, "store") || f.pkg == "writtest" || f.pkg == "bench" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if x, ok := n.(*ast.CallExpr); ok {
				if s, ok := x.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Commit" {
					t.Errorf("%s: only the door commits", f.fset.Position(x.Pos()))
				}
			}
			return true
		})
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	has := map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		if f.ast.Doc != nil && len(f.ast.Doc.Text()) > 60 {
			has[f.pkg] = true
		} else if _, ok := has[f.pkg]; !ok {
			has[f.pkg] = false
		}
	}
	for pkg, ok := range has {
		if !ok {
			t.Errorf("package %q has no package comment that says what it is", pkg)
		}
	}
}
