package writ_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

func TestMakeIDMatchesItsPattern(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(0, 1<<48-1).Draw(t, "ms")
		var e [10]byte
		copy(e[:], rapid.SliceOfN(rapid.Byte(), 10, 10).Draw(t, "entropy"))
		id := writ.MakeID(writ.PrefixTask, ms, e)
		if !writ.TaskID(id).Valid() {
			t.Fatalf("%q is not a task id", id)
		}
		later := writ.MakeID(writ.PrefixTask, ms+1, e)
		if ms < 1<<48-1 && id >= later {
			t.Fatalf("%q does not sort before %q", id, later)
		}
	})
}

// A known vector: the time 1469918176385 is 01ARYZ6S41 in every ULID library.
func TestMakeIDVector(t *testing.T) {
	var zero [10]byte
	if got, want := writ.MakeID("", 1469918176385, zero), "01ARYZ6S410000000000000000"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestNewIDIsTheSameOnEveryReplan(t *testing.T) {
	a := writ.Call{ID: "cll_01ARYZ6S410000000000000000", ReceivedAt: 1469918176385}
	b := a
	if a.NewID("tsk_", 0) != b.NewID("tsk_", 0) {
		t.Fatal("same call, other id")
	}
	if a.NewID("tsk_", 0) == a.NewID("tsk_", 1) || a.NewID("tsk_", 0)[4:] == a.NewID("lse_", 0)[4:] {
		t.Fatal("two ids of one call collide")
	}
}

func TestCanonicalScope(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"fs:repo/ops/plugins2", "fs:repo/ops/plugins2/"},
		{"fs:repo/ops/plugins2/", "fs:repo/ops/plugins2/"},
		{"FS:Repo/A/", "fs:Repo/A/"},
		{"http:API.Example.com:8080/V1", "http:api.example.com:8080/V1/"},
		{"http:127.0.0.1:8080/a", "http:127.0.0.1:8080/a/"},
		{"http:[2001:DB8::1]/a", "http:[2001:db8::1]/a/"},
		{"http:a_b.svc-1:65535", "http:a_b.svc-1:65535/"},
		{"http:example.com./a", ""},
		{"http:example.com.:8080", ""},
		{"http:.example.com", ""},
		{"http:a..example.com", ""},
		{"http:user@example.com", ""},
		{"http:user:word@example.com", ""},
		{"http:example.com:", ""},
		{"http:example.com:08080", ""},
		{"http:example.com:80", ""},
		{"http:example.com:443/a", ""},
		{"http:example.com:65536", ""},
		{"http:127.1", ""},
		{"http:127.0.0.01", ""},
		{"http:2130706433", ""},
		{"http:0x7f000001", ""},
		{"http:[0:0:0:0:0:0:0:1]", ""},
		{"http:[::ffff:127.0.0.1]", ""},
		{"http:[::1", ""},
		{"http:[::1%eth0]", ""},
		{"http:::1", ""},
		{"fs:user@host./a", "fs:user@host./a/"},
		{"fs:a", "fs:a/"},
		{"", ""},
		{"fs:", ""},
		{"fs:/", ""},
		{"fs:a//b", ""},
		{"fs:a/../b", ""},
		{"fs:./a", ""},
		{"fs:a b", ""},
		{"fs:a/%2e%2e/b", ""},
		{`fs:a\b`, ""},
		{"fs:a/*", ""},
		{"fs:a\x00", ""},
		{"fs:é", ""},
		{"gopher:a", ""},
		{"fs:" + strings.Repeat("a", 600), ""},
	} {
		got, err := writ.CanonicalScope(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("CanonicalScope(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

// Scopes overlap by whole segments: "plug" is no ancestor of "plugins2", and a
// missing final slash changes nothing (N10).
func TestN10ScopesOverlapBySegments(t *testing.T) {
	c := func(s string) string {
		out, err := writ.CanonicalScope(s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if writ.ScopesOverlap(c("fs:repo/ops/plug"), c("fs:repo/ops/plugins2/")) {
		t.Error("plug overlaps plugins2")
	}
	if !writ.ScopesOverlap(c("fs:repo/ops/plugins2"), c("fs:repo/ops/plugins2/")) {
		t.Error("the same scope does not overlap itself")
	}
	if !writ.ScopesOverlap(c("fs:repo"), c("fs:repo/ops/plug")) {
		t.Error("an ancestor does not overlap")
	}
}

// The ranges a lock must find free hold exactly the locks that overlap.
func TestScopeRangesHoldWhatOverlaps(t *testing.T) {
	segment := rapid.StringMatching(`[a-c!0-]{1,2}`)
	scope := rapid.Custom(func(t *rapid.T) string {
		s, err := writ.CanonicalScope("fs:" + strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, "segments"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		mine, theirs := scope.Draw(t, "mine"), scope.Draw(t, "theirs")
		member := writ.ScopeMember(theirs, "tsk_01ARYZ6S410000000000000000")
		inside := slices.ContainsFunc(writ.ScopeRanges(mine), func(r [2]string) bool { return r[0] <= member && member < r[1] })
		if want := writ.ScopesOverlap(mine, theirs); inside != want {
			t.Fatalf("lock on %q found by ranges of %q: %v, overlap: %v", theirs, mine, inside, want)
		}
	})
}

func FuzzCanonicalScope(f *testing.F) {
	for _, s := range []string{"fs:a/b", "http:H/x", "fs:a/../b", "secret:x y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := writ.CanonicalScope(s)
		if err != nil {
			return
		}
		if again, err := writ.CanonicalScope(c); err != nil || again != c {
			t.Fatalf("not a fixed point: %q → %q → %q, %v", s, c, again, err)
		}
		if strings.Contains(c, "//") || strings.Contains(c, "/../") || strings.Contains(c, " ") {
			t.Fatalf("%q is not canonical", c)
		}
	})
}

func TestJoinLabels(t *testing.T) {
	got := writ.JoinLabels([]writ.Label{"public", "made-up"}, []writ.Label{"public", writ.LabelSecretToken})
	want := []writ.Label{writ.LabelPIIChatMessage, writ.LabelPublic, writ.LabelSecretToken}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// Every state of every table is a key of it, so a new state has to be placed;
// every successor is a state.
func TestTablesAreClosed(t *testing.T) {
	checkTable(t, "agent", writ.AgentMoves)
	checkTable(t, "session", writ.SessionMoves)
	checkTable(t, "task", writ.TaskMoves)
	checkTable(t, "run", writ.RunMoves)
	checkTable(t, "gate", writ.GateMoves)
}

func checkTable[S ~string](t *testing.T, kind string, table writ.Table[S]) {
	t.Helper()
	if len(table[""]) == 0 {
		t.Errorf("%s: nothing can be born", kind)
	}
	for from, tos := range table {
		for _, to := range tos {
			if _, ok := table[to]; !ok || to == "" {
				t.Errorf("%s: %q → %q leads out of the table", kind, from, to)
			}
			if !writ.LegalMove(kind, string(from), string(to)) {
				t.Errorf("%s: LegalMove does not know %q → %q", kind, from, to)
			}
		}
	}
	if writ.LegalMove(kind, "done", "running") || writ.LegalMove("nothing", "", "x") {
		t.Errorf("%s: LegalMove allows what no table has", kind)
	}
}

// A move that is none says where the object stands, in a sentence.
func TestIllegalMoveReadsWell(t *testing.T) {
	for _, c := range []struct{ kind, from, to, msg string }{
		{writ.ObjectAgent, "retired", "active", `the agent is "retired" and cannot become "active"`},
		{writ.ObjectAgent, "active", "active", "the agent is active already"},
		{writ.ObjectTask, "", "queued", `the task is not there, so it cannot become "queued"`},
	} {
		e := writ.IllegalMove("op", c.kind, c.from, c.to)
		if e.Msg != c.msg || !strings.Contains(e.Hint, c.kind) || e.Details["from"] != c.from || e.Details["to"] != c.to {
			t.Errorf("%s → %s: %q, %q, %v", c.from, c.to, e.Msg, e.Hint, e.Details)
		}
	}
}

func TestTxCheckRefuses(t *testing.T) {
	fact := &writ.Fact{ID: "rcp_01ARYZ6S410000000000000000", Head: []byte("{"), Tail: []byte("}")}
	for name, tt := range map[string]struct {
		build func(*writ.Tx)
		want  string
	}{
		"document without a fact": {func(x *writ.Tx) { x.Fact = nil; x.Put("run/x", []byte("{}")) }, "without a fact"},
		"name with a brace":       {func(x *writ.Tx) { x.Put("run/{x}", []byte("{}")) }, "not allowed"},
		"large document":          {func(x *writ.Tx) { x.Put("run/x", make([]byte, writ.MaxDocBytes+1)) }, "over the cap"},
		"too many operations": {func(x *writ.Tx) {
			for range writ.MaxOps + 1 {
				x.Add(writ.RegistryRevision(), 1)
			}
		}, "over the cap"},
		"range guard without a version": {func(x *writ.Tx) { x.ExpectRange("list/runs", 1) }, "no version"},
		"huge amount":                   {func(x *writ.Tx) { x.Add(writ.RegistryRevision(), writ.MaxAmount+1) }, "out of range"},
		"unbounded free":                {func(x *writ.Tx) { x.Free(writ.IndexScopes, "", "", "") }, "bounded"},
		"too many bytes": {func(x *writ.Tx) {
			for range 5 {
				x.Put("run/x", make([]byte, writ.MaxDocBytes))
			}
		}, "over the cap"},
	} {
		t.Run(name, func(t *testing.T) {
			x := writ.Tx{Fact: fact}
			tt.build(&x)
			if err := x.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// An older program that rewrites a document keeps what a newer one put there.
func TestUnknownFieldsSurviveARewrite(t *testing.T) {
	key := writ.RunKey("run_01ARYZ6S410000000000000000")
	s := writ.Snapshot{Docs: map[writ.Key]writ.Doc{key: {
		Version: 7,
		Body:    []byte(`{"kind":"run","schema":1,"body":{"id":"run_01ARYZ6S410000000000000000","state":"active","colour":"blue"}}`),
	}}}
	run, version, ok, err := writ.Get[writ.Run](s, key)
	if err != nil || !ok || version != 7 || run.State != writ.RunActive {
		t.Fatalf("got %+v, %d, %v, %v", run, version, ok, err)
	}
	run.State = writ.RunDone
	b, err := writ.EncodeDoc(s, key, "run", run)
	if err != nil {
		t.Fatal(err)
	}
	var e writ.Envelope
	var body map[string]any
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(e.Body, &body); err != nil {
		t.Fatal(err)
	}
	if body["colour"] != "blue" || body["state"] != "done" {
		t.Fatalf("got %v", body)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	s := writ.Snapshot{Docs: map[writ.Key]writ.Doc{"run/x": {Version: 1, Body: []byte(`{"kind":"run","schema":99,"body":{}}`)}}}
	if _, _, _, err := writ.Get[writ.Run](s, "run/x"); writ.CodeOf(err) != writ.CodeUpgrade {
		t.Fatalf("got %v", err)
	}
	if _, _, _, err := writ.Get[writ.Run](s, "run/never-read"); writ.CodeOf(err) != writ.CodeInternal {
		t.Fatalf("a document that was not read: got %v", err)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		named, version int64
		want           writ.Code
	}{{0, 7, ""}, {0, 0, ""}, {7, 7, ""}, {6, 7, writ.CodeVersion}, {8, 7, writ.CodeVersion}, {7, 0, writ.CodeVersion}} {
		call := &writ.Call{IfVersion: c.named}
		err := call.Match("test.Op", c.version)
		if writ.CodeOf(err) != c.want {
			t.Errorf("If-Match %d of version %d: got %v, want %q", c.named, c.version, err, c.want)
		}
		if e := writ.AsError("", err); e != nil && !e.Precondition {
			t.Errorf("If-Match %d of version %d: not told as a precondition", c.named, c.version)
		}
	}
}
