package pack

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "rewrite what is generated")

const js = "../../verify/js"

// between replaces what stands between two marks of a text.
func between(t *testing.T, text, from, to, what string) string {
	t.Helper()
	before, rest, ok := strings.Cut(text, from)
	_, after, found := strings.Cut(rest, to)
	if !ok || !found {
		t.Fatalf("no %q … %q", from, to)
	}
	return before + from + what + to + after
}

// table is a state machine as JSON has it.
func table[S ~string](m writ.Table[S]) map[string][]string {
	out := map[string][]string{}
	for from, to := range m {
		out[string(from)] = []string{}
		for _, s := range to {
			out[string(from)] = append(out[string(from)], string(s))
		}
	}
	return out
}

func sorted[S ~string](list []S) (out []string) {
	for _, s := range list {
		out = append(out, string(s))
	}
	slices.Sort(out)
	return out
}

// The other verifier has tables of its own, which must say what the gateway's do: what the
// reference lists.
func TestTheTablesOfTheOtherVerifier(t *testing.T) {
	found := map[string][2]any{}
	for code, m := range Codes {
		found[string(code)] = [2]any{int(m.Verdict), m.Text}
	}
	moves := map[string]any{
		writ.ObjectAgent: table(writ.AgentMoves), writ.ObjectSession: table(writ.SessionMoves), writ.ObjectTask: table(writ.TaskMoves),
		writ.ObjectRun: table(writ.RunMoves), writ.ObjectApproval: table(writ.ApprovalMoves), writ.ObjectBundle: table(writ.BundleMoves),
		writ.ObjectEscrow: table(writ.EscrowMoves), writ.ObjectQuota: table(writ.QuotaMoves), writ.ObjectHealth: table(writ.HealthMoves), writ.ObjectGate: table(writ.GateMoves),
		writ.ObjectKey: table(writ.KeyMoves), writ.ObjectRepair: table(writ.RepairMoves), writ.ObjectEvidence: table(writ.EvidenceMoves),
		writ.ObjectJail:   table(writ.JailMoves),
		writ.ObjectEffect: table(writ.IntentMoves), writ.ObjectSecret: table(writ.SecretMoves), writ.ObjectEgress: table(writ.EgressMoves), writ.ObjectBallot: table(writ.BallotMoves),
	}
	var b strings.Builder
	b.WriteString(" {\n")
	for _, row := range []struct {
		name string
		v    any
	}{
		{"moves", moves},
		{"principals", []writ.PrincipalKind{writ.KindHuman, writ.KindAgent, writ.KindService, writ.KindConnector, writ.KindSystem}},
		{"roles", []writ.Role{writ.RoleOperator, writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier, writ.RoleApprover, writ.RoleAuditor, writ.RoleConnector, writ.RoleSystem}},
		{"effects", []writ.Effect{writ.EffectAllow, writ.EffectRedact, writ.EffectRequireApproval, writ.EffectDeny}},
		{"codes", sorted(writ.Codes())},
		{"labels", sorted(writ.Labels())},
		{"dimensions", sorted(writ.BudgetDimensions())},
		{"quorum", writ.MaxQuorum},
		{"keys", writ.MaxAgentKeys},
		{"findings", found},
		{"readme", Readme},
	} {
		text, err := json.Marshal(row.v)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  %s: %s,\n", row.name, text)
	}
	b.WriteString("} ")
	if len(writ.ObjectKinds()) != len(moves) {
		t.Error("there is a kind of object the other verifier does not know: add its moves here")
	}
	path := filepath.Join(js, "verify.mjs")
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writtest.GoldenFile(t, *update, path, []byte(between(t, string(have), "/* tables */", "/* end */", b.String())))
}

// The page is its template with the module in it: one file that needs nothing beside it.
func TestThePageHasTheModule(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(js, "page.html"))
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(js, "verify.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(module, []byte("</script")) {
		t.Fatal("the module ends the script it is to stand in")
	}
	for _, word := range []string{"fetch(", "import(", "import ", "XMLHttpRequest", "WebSocket", "EventSource", "sendBeacon", "<link", "<img", "src=", "href="} {
		if bytes.Contains(module, []byte("\n"+word)) || bytes.Contains(page, []byte(word)) || strings.HasSuffix(word, "(") && bytes.Contains(module, []byte(" "+word)) {
			t.Errorf("the page is to need nothing beside it, and has %q", word)
		}
	}
	if !bytes.Contains(page, []byte(`content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"`)) {
		t.Error("the page may use a network")
	}
	writtest.GoldenFile(t, *update, filepath.Join(js, "verify.html"), bytes.Replace(page, []byte("/* verify.mjs */"), module, 1))
}

// other is the verifier in JavaScript, running.
type other struct {
	t     *testing.T
	in    io.WriteCloser
	out   *bufio.Reader
	bases map[string]files
}

// answer is what either verifier found.
type answer struct {
	Exit     int       `json:"exit"`
	Trust    string    `json:"trust"`
	Codes    []string  `json:"codes"`
	Receipts int64     `json:"receipts"`
	Evidence int64     `json:"evidence"`
	Rules    bool      `json:"rules"`
	Run      *RunFacts `json:"run"`

	Witnesses []Witnessed `json:"witnesses"`
	Earlier   *int64      `json:"earlier"`
	Policies  int64       `json:"policies"`
	Promised  Promises    `json:"promised"`
}

// each are the codes that were found, each once, wherever.
func (a answer) each() string {
	var out []string
	for _, c := range a.Codes {
		c, _, _ = strings.Cut(c, "@")
		out = append(out, c)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// node starts the other verifier; nil where this machine has no Node that can run it.
func node(t *testing.T) *other {
	t.Helper()
	without := func(why string) *other {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s: the verifier in JavaScript must be tested here; make deps installs node", why)
		}
		t.Logf("%s: the verifier in JavaScript is not run", why)
		return nil
	}
	path, err := exec.LookPath("node")
	if err != nil {
		return without("there is no node")
	}
	version, err := exec.Command(path, "--version").Output()
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(version)), "v"), ".")
	if n, _ := strconv.Atoi(major); err != nil || n < 20 {
		return without("node " + string(bytes.TrimSpace(version)) + " is older than 20")
	}
	cmd := exec.Command(path, filepath.Join(js, "corpus.mjs"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &other{t: t, in: in, out: bufio.NewReader(out), bases: map[string]files{}}
}

// check runs a changed pack through it.
func (o *other) check(base string, of, changed files, trust Trust, ask Ask) (a answer) {
	o.t.Helper()
	job := map[string]any{"base": base, "ask": map[string]any{"run": ask.Run, "close": ask.Close}}
	if o.bases[base] == nil {
		o.bases[base] = of
		job["files"] = of
	}
	set, drop := files{}, []string{}
	for name, text := range changed {
		if !bytes.Equal(of[name], text) {
			set[name] = text
		}
	}
	for name := range of {
		if _, ok := changed[name]; !ok {
			drop = append(drop, name)
		}
	}
	job["set"], job["drop"] = set, drop
	return o.ask(job, trust)
}

func (o *other) ask(job map[string]any, trust Trust) (a answer) {
	o.t.Helper()
	keys := []string{}
	for _, k := range trust.Keys {
		keys = append(keys, string(k))
	}
	verifiers := []string{}
	for _, k := range trust.Verifiers {
		verifiers = append(verifiers, string(k))
	}
	witnesses := []string{}
	for _, w := range trust.Witnesses {
		witnesses = append(witnesses, w.String())
	}
	job["trust"] = map[string]any{"witnesses": witnesses, "need": trust.Need, "logKey": trust.LogKey, "keys": keys, "verifiers": verifiers, "keysFile": string(trust.KeysFile), "root": string(trust.Root)}
	text, err := json.Marshal(job)
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.in.Write(append(text, '\n')); err != nil {
		o.t.Fatal(err)
	}
	got, err := o.out.ReadBytes('\n')
	if err != nil {
		o.t.Fatal(err)
	}
	if err := json.Unmarshal(got, &a); err != nil {
		o.t.Fatalf("%s: %v", got, err)
	}
	return a
}

// both has a pack judged by both verifiers, which must agree in everything they say.
func both(t *testing.T, o *other, base string, of, changed files, trust Trust, ask Ask) answer {
	t.Helper()
	a := answerOf(verify(t, changed, trust, ask))
	if o != nil {
		agree(t, a, o.check(base, of, changed, trust, ask))
	}
	return a
}

func answerOf(r Report) answer {
	return answer{Exit: r.Exit, Trust: r.Trust, Codes: codes(r), Receipts: r.Receipts, Evidence: r.Evidence, Rules: r.Rules, Run: r.Run, Witnesses: r.Witnesses, Earlier: r.Earlier, Policies: r.Policies, Promised: r.Promised}
}

func agree(t *testing.T, a, b answer) {
	t.Helper()
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if errX != nil || errY != nil || !bytes.Equal(x, y) {
		t.Errorf("the verifiers differ:\n go %s\n js %s", x, y)
	}
}

// Both verifiers take what is as it should be, and see the same in it.
func TestBothVerifiersAgree(t *testing.T) {
	o := node(t)
	l, c := story(t)
	for name, x := range map[string]Options{
		"log": {}, "run": {Scope: Scope{Kind: ScopeRun, Run: c.run}}, "range": {Scope: Scope{Kind: ScopeRange, First: 2, Last: 6}},
		"since": {Earlier: l.checkpoint(6)}, "since one": {Earlier: l.checkpoint(1)}, "since eight": {Earlier: l.checkpoint(8)}, "since nothing": {Earlier: l.checkpoint(0)}, "since now": {Earlier: l.checkpoint(len(l.list))},
	} {
		f := l.export(x)
		ask := Ask{Run: c.run, Close: true}
		if name == "range" {
			ask = Ask{}
		}
		a := both(t, o, name, f, f, l.trust(), ask)
		if a.Exit != 0 || a.Receipts == 0 {
			t.Errorf("%s: got %+v", name, a)
		}
		if since := map[string]int64{"since": 6, "since one": 1, "since eight": 8, "since nothing": 0, "since now": int64(len(l.list))}; a.Earlier != nil {
			if want, ok := since[name]; !ok || *a.Earlier != want {
				t.Errorf("%s: the log is said to begin with %d", name, *a.Earlier)
			}
		} else if x.Earlier != nil {
			t.Errorf("%s: nothing is said of the earlier checkpoint", name)
		}
		if a := both(t, o, name, f, f, Trust{}, Ask{}); a.Exit != 0 || a.Trust != TrustNone {
			t.Errorf("%s, without keys: got %+v", name, a)
		}
	}
}

// The other verifier works out digests of what is short itself: of every length around a block, and where it leaves that to WebCrypto.
func TestTheDigestsOfTheOtherVerifier(t *testing.T) {
	if node(t) == nil {
		return
	}
	const lengths = 2200
	out, err := exec.Command("node", "--input-type=module", "-e", fmt.Sprintf(`
import { sha256 } from "%s/verify.mjs";
for (let n = 0; n < %d; n++) console.log(Buffer.from(await sha256(Uint8Array.from({ length: n }, (_, i) => n + 7 * i))).toString("hex"));
`, js, lengths)).Output()
	lines := strings.Fields(string(out))
	if err != nil || len(lines) != lengths {
		t.Fatalf("%v: %d lines", err, len(lines))
	}
	for n, got := range lines {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(n + 7*i)
		}
		if want := fmt.Sprintf("%x", sha256.Sum256(text)); got != want {
			t.Fatalf("%d bytes: got %s, want %s", n, got, want)
		}
	}
}

// A folder can change while it is read. What the other verifier follows a run by, which it reads last,
// is what it looked at before.
func TestTheOtherVerifierReadsOnePack(t *testing.T) {
	if node(t) == nil {
		return
	}
	out, err := exec.Command("node", "--input-type=module", "-e", fmt.Sprintf(`
import { readFileSync } from "node:fs";
import { tarball, verify } from "%s/verify.mjs";
const pack = tarball(new Uint8Array(readFileSync("../../testdata/vectors/pack/run.tar")));
for (const [kind, ask] of [["receipts/", {}], ["evidence/", { run: "run_01KEDVDNA00000000000000001" }]]) {
  const [one, other] = pack.names.filter((name) => name.startsWith(kind));
  let last = 0, n = 0;
  await verify({ ...pack, read: (name) => { if (name === one) last++; return pack.read(name); } }, {}, ask);
  const read = (name) => pack.read(name === one && ++n === last ? other : name);
  console.log(await verify({ ...pack, read }, {}, ask).then((r) => r.verdict, (e) => e.message));
}
`, js)).CombinedOutput()
	const changed = "the pack is not what it was a moment ago: copy it, and check the copy\n"
	if err != nil || string(out) != changed+changed {
		t.Errorf("%v:\n%s", err, out)
	}
}

// The command line of the other verifier has the same exit codes.
func TestTheOtherCommandLine(t *testing.T) {
	if node(t) == nil {
		return
	}
	l, c := story(t)
	dir := t.TempDir()
	sink, err := Directory(filepath.Join(dir, "pack"), true)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range l.export(Options{}) {
		if err := sink.File(name, text); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string][]byte{"receipt.pub": l.pub(), "log.vkey": []byte(l.logKey() + "\n"), "other.pub": newLab(t, 5, 5, "log.example.org").pub()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sources, err := filepath.Abs(js)
	if err != nil {
		t.Fatal(err)
	}
	exits := func(cli string, want int, args ...string) string {
		t.Helper()
		cmd := exec.Command("node", append([]string{cli}, args...)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s %v: exit code %d, want %d\n%s", cli, args, got, want, out)
		}
		return string(out)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		return exits(filepath.Join(sources, "cli.mjs"), want, args...)
	}
	keys := []string{"--log-key", "log.vkey", "--key", "receipt.pub"}
	if out := run(0, append(keys, "pack", "--run", string(c.run), "--close")...); !strings.Contains(out, "\nscope      the whole log\n") {
		t.Errorf("the scope is not shown:\n%s", out)
	}
	if out := run(0, "pack", "--log-key", l.logKey(), "--key", "receipt.pub", "-o", "json"); !strings.Contains(out, `"earlier": null`) || !strings.Contains(out, `"promised": {`) {
		t.Errorf("what is promised and proved is not said:\n%s", out)
	}
	run(0, "pack")
	run(1, "pack", "--log-key", "log.vkey", "--key", "other.pub")
	run(3, append(keys, "pack", "--run", ulid("run", 9))...)
	const witness = "witness.example+d831bcf1+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
	run(3, append(keys, "pack", "--witness", witness)...)
	run(4, append(keys, "pack", "--witness", witness, "--witnesses", "2")...)
	run(4, append(keys, "pack", "--witness", witness, "--witness", witness)...)
	run(4, append(keys, "pack", "--witness", l.logKey())...)
	run(4, append(keys, "pack", "--witnesses", "0")...)
	run(4, append(keys, "nowhere")...)
	run(4, "pack", "--key", "receipt.pub")
	run(4)
	run(4, append(keys, "pack", "--close")...)
	run(4, append(keys, "pack", "--run", "7", "--close")...)
	run(4, append(keys, "pack", "--run", "")...) // a word that is missing asks for no less
	run(4, append(keys, "pack", "-o", "yaml")...)
	// Names are bytes, whatever they are: a file no pack has is one too many, and can be read or not.
	for _, name := range []string{"\xff", "é", "a b"} {
		odd := filepath.Join(dir, "pack", name)
		if err := os.Mkdir(odd, 0o700); err != nil {
			t.Fatal(err)
		}
		run(0, append(keys, "pack")...)
		if err := os.WriteFile(filepath.Join(odd, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := run(1, append(keys, "pack")...); strings.Count(out, "file_extra") != 1 {
			t.Errorf("%q: %s", name, out)
		}
		if err := os.RemoveAll(odd); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "large.tar"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "large.tar"), 1<<31); err != nil {
		t.Fatal(err)
	}
	if out := run(4, append(keys, "large.tar")...); !strings.Contains(out, "unpack it") {
		t.Errorf("an archive that cannot be read at once: %s", out)
	}
	if err := os.WriteFile(filepath.Join(dir, "pack", FileManifest), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(2, append(keys, "pack")...)
	// However its path is spelled, it looks.
	strange := filepath.Join(dir, "a#b%20?c d")
	if err := os.CopyFS(strange, os.DirFS(sources)); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"folder": sources, "check.mjs": filepath.Join(sources, "cli.mjs")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, cli := range []string{filepath.Join(strange, "cli.mjs"), "folder/cli.mjs", "./folder/../folder/cli.mjs", "check.mjs"} {
		exits(cli, 2, append(keys, "pack")...)
		exits(cli, 4, append(keys, "nowhere")...)
	}
}

// The page for who checks lists every finding, with what it means.
func TestThePageForAuditorsListsFindings(t *testing.T) {
	var b strings.Builder
	b.WriteString("\n| code | verdict | |\n|---|---|---|\n")
	list := slices.SortedFunc(maps.Keys(Codes), func(a, b Code) int {
		return cmp.Or(cmp.Compare(Codes[a].Verdict, Codes[b].Verdict), cmp.Compare(a, b))
	})
	for _, c := range list {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c, Codes[c].Verdict, Codes[c].Text)
	}
	const path = "../../docs/verify.md"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writtest.GoldenFile(t, *update, path, []byte(between(t, string(have), "<!-- findings -->", "<!-- end -->", b.String())))
}

// The other verifier knows every member the page about receipts has, and no other: one
// that it did not know it would refuse.
func TestTheOtherVerifierKnowsEveryMember(t *testing.T) {
	page, err := os.ReadFile("../../docs/receipt-format.md")
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(js, "verify.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "## The predicate of a receipt\n")
	table, _, _ := strings.Cut(rest, "\n## ")
	var want []string
	for row := range strings.Lines(table) {
		if cells := strings.Split(row, "|"); len(cells) > 3 && strings.HasPrefix(cells[1], " `") {
			for _, name := range regexp.MustCompile("`([a-zA-Z]+)`").FindAllStringSubmatch(cells[1], -1) {
				want = append(want, name[1])
			}
		}
	}
	want = slices.DeleteFunc(want, func(name string) bool { // the second table of the section lists outcomes
		return slices.Contains([]string{writ.OutcomeOfTransition, writ.OutcomeOfRequest, writ.OutcomeOfDenial, writ.OutcomeOfAggregate}, name) && name != "transition"
	})
	_, shape, _ := strings.Cut(string(module), "  predicate: is.object({\n")
	shape, _, _ = strings.Cut(shape, "\n  }),\n")
	for braces := regexp.MustCompile(`\([^()]*\)`); braces.MatchString(shape); {
		shape = braces.ReplaceAllString(shape, "")
	}
	var have []string
	for _, name := range regexp.MustCompile(`"?\??([a-zA-Z]+)"?: (?:is|HEX)`).FindAllStringSubmatch(shape, -1) {
		have = append(have, name[1])
	}
	slices.Sort(want)
	slices.Sort(have)
	if want = slices.Compact(want); len(want) < 20 || !slices.Equal(want, have) {
		t.Errorf("the page has\n%v\nthe other verifier\n%v", want, have)
	}
}
