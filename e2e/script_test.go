package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// embeddedOnly names the scripts that are told on the embedded store alone, and
// why another store would tell nothing new.
var embeddedOnly = map[string]string{
	"policy-author": "it is about files of policies; no gateway is in it",
	"config":        "it is about where settings come from; the one gateway in it only shows where its data went",
	"webhook":       "it is about files and the command line; no gateway is in it",
	"doctor":        "it is about the files of a data directory, the embedded store's among them",
	"log-fork":      "it takes the store away, and looks at what commands kept of the log",
}

// Each script of testdata/script is one story told with the command line, on
// both hosts: $STORE is what --store is to be given, $SOURCES where this module is. To what
// testscript knows they add:
//
//	serve DATA [flag...]     start a gateway on $STORE, until the end or shut
//	shut DATA                end it (SIGTERM); it must exit with 0
//	exits CODE COMMAND...    run a command that must end with that exit code
//	set NAME FIELD...        an environment variable from the JSON just printed
//	keep FIELD FILE          a file from the JSON just printed
//	endpoint NAME up|down    a server of this machine that says how an agent is; its URL is $NAME
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../testdata/script/*.txtar")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d scripts: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if text, err := os.ReadFile(file); err != nil || bytes.Contains(text, []byte("\nstop")) {
			t.Errorf("%s: stop ends the script itself, and nothing below it is run; say shut: %v", name, err)
		}
		for _, host := range hosts {
			if host != "bolt" && embeddedOnly[name] != "" {
				continue
			}
			t.Run(name+"/"+host, func(t *testing.T) {
				t.Parallel()
				if host == "bolt" {
					tell(t, file, "bolt")
					return
				}
				server := redistest.Start(t)
				t.Cleanup(func() { // the script is a parallel test below this one
					if server.Command("DBSIZE") == "0" {
						t.Error("the script left its $STORE empty: it was told somewhere else")
					}
				})
				tell(t, file, server.URL())
			})
		}
	}
	for name := range embeddedOnly {
		if !slices.ContainsFunc(files, func(f string) bool { return filepath.Base(f) == name+".txtar" }) {
			t.Errorf("there is no script %s", name)
		}
	}
}

// tell plays one script on a store.
func tell(t *testing.T, file, store string) {
	s := &script{t: t, gateways: map[string]*gateway{}, endpoints: map[string]*probed{}}
	testscript.Run(t, testscript.Params{
		Files: []string{file}, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("STORE", store)
			sources, err := filepath.Abs("..")
			e.Setenv("SOURCES", sources)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": s.serve, "shut": s.shut, "exits": s.exits, "set": s.set, "keep": s.keep, "endpoint": s.endpoint,
		},
	})
}

type script struct {
	t        *testing.T
	gateways map[string]*gateway

	endpoints map[string]*probed
}

func (s *script) endpoint(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: endpoint NAME up|down")
	}
	if s.endpoints[args[0]] == nil {
		s.endpoints[args[0]] = newProbed(s.t)
	}
	p := s.endpoints[args[0]]
	ts.Setenv(args[0], p.URL+"/health")
	switch args[1] {
	case "up":
		p.status.Store(200)
	case "down":
		p.status.Store(500)
	}
}

func (s *script) serve(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: serve DATA [flag...]")
	}
	rest := append([]string{"--store", ts.Getenv("STORE")}, args[1:]...)
	for i, a := range rest { // the gateway does not run in the script's directory
		if a == "-c" || a == "--data" {
			rest[i+1] = ts.MkAbs(rest[i+1])
		}
	}
	s.gateways[args[0]] = newGateway(teller{s.t, ts}, ts.MkAbs(args[0]), rest...)
}

// teller is the test of a script, as the harness sees it: what fails ends the
// script, what is to be cleaned up ends with the test around it.
type teller struct {
	testing.TB
	ts *testscript.TestScript
}

func (t teller) Fatal(args ...any)                 { t.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (t teller) Fatalf(format string, args ...any) { t.ts.Fatalf(format, args...) }

func (s *script) shut(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 || s.gateways[args[0]] == nil {
		ts.Fatalf("usage: shut DATA, of a gateway that runs")
	}
	if code := s.gateways[args[0]].stop(); code != 0 {
		ts.Fatalf("the gateway ended with exit code %d", code)
	}
}

func (s *script) exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// field finds a value in the JSON the last command printed.
func field(ts *testscript.TestScript, path []string) string {
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		ts.Fatalf("the output is not JSON: %v", err)
	}
	for _, name := range path {
		switch x := v.(type) {
		case map[string]any:
			v = x[name]
		case []any: // by its place, or "last"
			v = nil
			if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(x) {
				v = x[i]
			} else if name == "last" && len(x) > 0 {
				v = x[len(x)-1]
			}
		default:
			v = nil
		}
	}
	switch x := v.(type) {
	case string:
		return x
	case json.Number:
		return x.String()
	}
	ts.Fatalf("the output has no %s", strings.Join(path, "."))
	return ""
}

func (s *script) set(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: set NAME FIELD...")
	}
	ts.Setenv(args[0], field(ts, args[1:]))
}

func (s *script) keep(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: keep FIELD FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(field(ts, args[:1])+"\n"), 0o600))
}
