package jail_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// What no jail can be made of is refused before anything is started, with the name of what is wrong and what to do, and
// without repeating what the caller said.
func TestRefusals(t *testing.T) {
	jailtest.Need(t)
	dir := t.TempDir()
	link := filepath.Join(dir, "link-name")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(path ...string) (out []jail.Scope) {
		for _, p := range path {
			out = append(out, jail.Scope{Path: p})
		}
		return out
	}
	for name, tt := range map[string]struct {
		change  func(*jail.Spec)
		feature string
		code    int
	}{
		"Landlock too old":         {func(s *jail.Spec) { s.Profile.MinLandlock = 99 }, jail.FeatureLandlock, 0},
		"a scope is a link":        {func(s *jail.Spec) { s.Scopes = write(link) }, jail.FeatureSymlink, 0},
		"a scope through a link":   {func(s *jail.Spec) { s.Scopes = write(filepath.Join(link, "below")) }, jail.FeatureSymlink, 0},
		"a read scope is a link":   {func(s *jail.Spec) { s.Scopes = []jail.Scope{{Path: link, ReadOnly: true}} }, jail.FeatureSymlink, 0},
		"the agent through a link": {func(s *jail.Spec) { s.Agent.Path = filepath.Join(link, "script") }, jail.FeatureSymlink, 0},
		"runtime is a link":        {func(s *jail.Spec) { s.Runtime = []string{"/bin"} }, jail.FeatureSymlink, 0},
		"a scope is a file":        {func(s *jail.Spec) { s.Scopes = write(plain) }, jail.FeatureSource, 0},
		"a scope is not there":     {func(s *jail.Spec) { s.Scopes = write(dir + "/none") }, jail.FeatureSource, 0},
		"scopes overlap":           {func(s *jail.Spec) { s.Scopes = write(dir, below) }, jail.FeatureScope, 0},
		"a scope twice":            {func(s *jail.Spec) { s.Scopes = write(dir, dir) }, jail.FeatureScope, 0},
		"strict writes":            {func(s *jail.Spec) { s.Profile, s.Scopes = strict(s), write(dir) }, jail.FeatureScope, 0},
		"strict has tools":         {func(s *jail.Spec) { s.Profile, s.Tools = strict(s), []jail.Program{{Path: agentBinary}} }, jail.FeatureSpec, 0},
		"all of the host":          {func(s *jail.Spec) { s.Scopes = write("/") }, jail.FeatureSource, 0},
		"a relative path":          {func(s *jail.Spec) { s.Runtime = []string{"usr/lib"} }, jail.FeatureSource, 0},
		"a path with dots":         {func(s *jail.Spec) { s.Runtime = []string{"/usr/../etc"} }, jail.FeatureSource, 0},
		"runtime over the jail's":  {func(s *jail.Spec) { s.Runtime = []string{"/proc"} }, jail.FeatureSource, 0},
		"runtime around it":        {func(s *jail.Spec) { s.Runtime = []string{"/etc"} }, jail.FeatureSource, 0},
		"runtime in tmp":           {func(s *jail.Spec) { s.Runtime = []string{"/tmp/x"} }, jail.FeatureSource, 0},
		"no agent":                 {func(s *jail.Spec) { s.Agent = jail.Program{} }, jail.FeatureSpec, 0},
		"an agent not there":       {func(s *jail.Spec) { s.Agent.Path = dir + "/none" }, jail.FeatureAgent, jail.CodeNotFound},
		"an agent's name":          {func(s *jail.Spec) { s.Agent.Name = "../x" }, jail.FeatureSpec, 0},
		"a directory as agent":     {func(s *jail.Spec) { s.Agent.Path = dir }, jail.FeatureSource, 0},
		"tools of one name":        {func(s *jail.Spec) { s.Tools = []jail.Program{{Path: agentBinary}, {Path: agentBinary}} }, jail.FeatureSpec, 0},
		"an id":                    {func(s *jail.Spec) { s.ID = "../../x" }, jail.FeatureSpec, 0},
		"an environment":           {func(s *jail.Spec) { s.Env = []string{"NOT A NAME=x"} }, jail.FeatureSpec, 0},
		"a zero byte":              {func(s *jail.Spec) { s.Args = []string{"a\x00b"} }, jail.FeatureSpec, 0},
		"too long":                 {func(s *jail.Spec) { s.Args = []string{strings.Repeat("x", 1<<17)} }, jail.FeatureSpec, 0},
		"a limit below zero":       {func(s *jail.Spec) { s.Limits.Memory = -1 }, jail.FeatureSpec, 0},
		"a scope in memory":        {func(s *jail.Spec) { s.Scopes = []jail.Scope{{Medium: jail.Memory, Path: dir}} }, jail.FeatureScope, 0},
		"some other medium":        {func(s *jail.Spec) { s.Scopes = []jail.Scope{{Medium: "disk", Path: dir}} }, jail.FeatureScope, 0},
		"linked dynamically":       {func(s *jail.Spec) { s.Profile, s.Agent.Path = strict(s), dynamic(t) }, jail.FeatureAgent, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := jail.Spec{ID: nextID(t), Profile: jailtest.Profile(t, jail.Tools()), Agent: jail.Program{Path: agentBinary}}
			tt.change(&s)
			j, err := jailer.Spawn(t.Context(), s)
			if err == nil {
				j.Kill("test")
				j.Wait()
				t.Fatal("it was made")
			}
			refusedAs(t, err, tt.feature, tt.code)
			if strings.Contains(err.Error(), "link-name") || strings.Contains(err.Error(), "NOT A NAME") {
				t.Errorf("it repeats what it was told: %v", err)
			}
		})
	}
}

// What only starting the agent can find out.
func TestAgentCannotStart(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"script": 0o755, "plain": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		spec jail.Spec
		code int
	}{
		"not executable":             {jail.Spec{Agent: jail.Program{Path: dir + "/plain"}}, jail.CodeNotExec},
		"interpreter not there":      {jail.Spec{Agent: jail.Program{Path: dir + "/script"}}, jail.CodeNotFound},
		"its directory is not there": {jail.Spec{Dir: "/none"}, jail.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			j, _ := made(t, tt.spec)
			refusedAs(t, j.Go(), jail.FeatureAgent, tt.code)
			if e := j.Wait(); e.Code != tt.code || e.Reason != jail.Refused {
				t.Errorf("it ended with %+v", e)
			}
		})
	}
}

func TestUsersAreOneJailsAtATime(t *testing.T) {
	p := jailtest.Profile(t, jail.Strict())
	if os.Geteuid() != 0 {
		_, err := jailer.Spawn(t.Context(), jail.Spec{ID: nextID(t), Profile: p, Agent: jail.Program{Path: agentBinary}, HostUID: 61000})
		refusedAs(t, err, jail.FeatureHostUID, 0)
		return
	}
	few := jail.New(jail.Options{FirstUID: 63000, UIDs: 1})
	s := jail.Spec{ID: nextID(t), Profile: p, Agent: jail.Program{Path: agentBinary}}
	j, err := few.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	s.ID = nextID(t)
	_, err = few.Spawn(t.Context(), s)
	refusedAs(t, err, jail.FeatureHostUID, 0)
	s.HostUID = 63000
	_, err = few.Spawn(t.Context(), s)
	refusedAs(t, err, jail.FeatureHostUID, 0)
	j.Kill("test")
	j.Wait()
	if j, err = few.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := j.Features().HostUID; got != 63000 {
		t.Errorf("it runs as %d", got)
	}
	j.Kill("test")
	j.Wait()
}

// An id names one jail at a time, whoever makes it in this process.
func TestIDsAreOneJailsAtATime(t *testing.T) {
	j, _ := made(t, jail.Spec{ID: "the-same"})
	for _, jailer := range []jail.Jailer{jailer, jail.New(jail.Options{FirstUID: 63200})} {
		_, err := jailer.Spawn(t.Context(), jail.Spec{ID: "the-same", Profile: jailtest.Profile(t, jail.Strict()), Agent: jail.Program{Path: agentBinary}})
		refusedAs(t, err, jail.FeatureSpec, 0)
	}
	if err := j.Go(); err != nil { // whose group was not taken away
		t.Fatal(err)
	}
	if e := j.Wait(); e.Code != 0 || jailtest.HasCgroup() && e.Usage.MemoryPeak == 0 {
		t.Errorf("it ended with %+v", e)
	}
	made(t, jail.Spec{ID: "the-same"})
}

func refusedAs(t *testing.T, err error, feature string, code int) {
	t.Helper()
	if code == 0 {
		code = jail.CodeRefused
	}
	r, ok := errors.AsType[*jail.Refusal](err)
	if !ok || r.Feature != feature || r.Code != code || r.Msg == "" || r.Remedy == "" {
		t.Errorf("refused with %#v (%v), want %s and %d", r, err, feature, code)
	}
}

func strict(s *jail.Spec) jail.Profile {
	p := jail.Strict()
	p.WithoutCgroup = s.Profile.WithoutCgroup
	return p
}

// dynamic is a program of this machine that wants a loader.
func dynamic(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// fewUsers is the first of two users that several processes want.
const fewUsers = 64100

// Two gateways of one machine have no user in common, and what one that was killed had is free.
func TestUsersAreOneJailsOfTheMachine(t *testing.T) {
	jailtest.Need(t)
	if os.Geteuid() != 0 {
		return // jails of an ordinary user are that user
	}
	hold := func() (says string, c *exec.Cmd, lets func()) {
		t.Helper()
		c = exec.Command("/proc/self/exe", "worse", "holds a user")
		c.Env = append(os.Environ(), "WRIT_TEST_JAIL_AGENT="+agentBinary)
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lets = sync.OnceFunc(func() { _ = in.Close(); _ = c.Wait() })
		t.Cleanup(lets)
		says, err = bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(says), c, lets
	}
	wants := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s has %s, want %s", what, got, want)
		}
	}
	first, killed, gone := hold()
	wants("the first", first, strconv.Itoa(fewUsers))
	second, _, lets := hold()
	wants("the second", second, strconv.Itoa(fewUsers+1))
	third, _, _ := hold()
	wants("the third", third, jail.FeatureHostUID)
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone()
	for end := time.Now().Add(20 * time.Second); ; { // its jail dies a moment after it
		after, _, lets := hold()
		if n := processesOf(t, first); after == first && n == 1 { // its own first process
			break
		} else if after == first || time.Now().After(end) {
			t.Fatalf("who comes after one that was killed has %s, and %s has %d processes", after, first, n)
		}
		lets()
	}
	lets()
	last, _, _ := hold()
	wants("who comes after one that ended", last, second)
}

// processesOf are how many a user of the host has.
func processesOf(t *testing.T, uid string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range all {
		b, _ := os.ReadFile(name)
		if strings.Contains(string(b), "\nUid:\t"+uid+"\t") && !strings.Contains(string(b), "\nState:\tZ") {
			n++
		}
	}
	return n
}
