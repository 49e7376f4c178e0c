package battery

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// What one agent leaves in a scope leads the next jail nowhere: a link there is never followed to what is shown.
func TestLinksLeftBehind(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	outside, dir := workDir(t), workDir(t)
	var out text
	s := spec(t, jail.Tools(), &out, "link", outside, "/scopes/1/planted")
	s.Scopes = []jail.Scope{{Path: dir}}
	j := start(t, s)
	if j == nil {
		t.FailNow()
	}
	if e := j.Wait(); e.Code != 0 {
		t.Fatalf("it ended with %+v: %s", e, out.String())
	}
	planted := filepath.Join(dir, "planted")
	for name, change := range map[string]func(s *jail.Spec){
		"a scope to write":     func(s *jail.Spec) { s.Scopes = []jail.Scope{{Path: planted}} },
		"a scope to read":      func(s *jail.Spec) { s.Scopes = []jail.Scope{{Path: planted, ReadOnly: true}} },
		"a runtime":            func(s *jail.Spec) { s.Runtime = []string{planted} },
		"a file of a runtime":  func(s *jail.Spec) { s.Runtime = []string{planted + "/there"} },
		"a tool":               func(s *jail.Spec) { s.Tools = []jail.Program{{Path: planted + "/there"}} },
		"an agent":             func(s *jail.Spec) { s.Agent = jail.Program{Path: planted + "/there"} },
		"a scope through dots": func(s *jail.Spec) { s.Scopes = []jail.Scope{{Path: planted + "/../" + filepath.Base(outside)}} },
	} {
		s := spec(t, jail.Tools(), &out, "say", "x")
		s.ID = "links"
		change(&s)
		j, err := jailer.Spawn(t.Context(), s)
		if err == nil {
			j.Kill("test")
			j.Wait()
			t.Errorf("%s behind a link is shown", name)
			continue
		}
		r, ok := errors.AsType[*jail.Refusal](err)
		if !ok || r.Feature != jail.FeatureSymlink && r.Feature != jail.FeatureSource {
			t.Errorf("%s behind a link: %v", name, err)
		}
	}
}
