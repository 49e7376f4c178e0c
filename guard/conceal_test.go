package guard_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
)

// hiddenArgs have a value nobody may see.
type hiddenArgs struct {
	Run   writ.RunID `json:"run_id"`
	Value string     `json:"value"`
}

func (a *hiddenArgs) Conceal(seal func(about, value string) (string, error)) error {
	sealed, err := seal("about", a.Value)
	a.Value = sealed
	return err
}

// What is judged, planned, kept and shown has the sealed value; where nothing seals, nothing
// is done, and a value that is not sealed is the same call under its key.
func TestConcealedArguments(t *testing.T) {
	var planned []string
	hide := writ.Define[hiddenArgs, thingView](writ.Capability{ID: "test.hide", Summary: "Hide.", Safety: writ.SafetyMutating}, writ.Verb[hiddenArgs]{
		Reads: func(_ *writ.Call, a *hiddenArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}}, nil
		},
		Plan: func(c *writ.Call, a *hiddenArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			planned = append(planned, a.Value, string(c.Raw))
			tx.Move(writ.ObjectRun, string(a.Run), "", string(writ.RunActive))
			return tx, writ.Reply{Outcome: writ.OutcomeDone}, tx.PutDoc(s, writ.RunKey(a.Run), "run", writ.Run{ID: a.Run, State: writ.RunActive})
		},
	})
	reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), hide)...)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(_, value string) (string, error) {
		if strings.HasPrefix(value, "sealed:") {
			return value, nil
		}
		return "sealed:k:" + strings.ToUpper(value), nil
	}
	w := newWorld(t, func(c *guard.Config) { c.Registry, c.Seal = reg, seal })
	alice := w.session("alice")
	for range 2 {
		if _, _, err := w.call(alice, "test.hide", hiddenArgs{Run: runID(1), Value: "s3cret"}, "k"); err != nil {
			t.Fatal(err)
		}
	}
	if len(planned) != 2 {
		t.Fatalf("the same call was another one: %q", planned)
	}
	for _, text := range planned {
		if !strings.Contains(text, "sealed:k:S3CRET") || strings.Contains(text, "s3cret") {
			t.Errorf("planned with %q", text)
		}
	}
	if _, _, err := w.call(alice, "test.hide", hiddenArgs{Run: runID(1), Value: "other"}, "k"); writ.CodeOf(err) != writ.CodeIdempotency {
		t.Errorf("another value: %v", err)
	}

	for name, f := range map[string]func(string, string) (string, error){"nobody seals": nil, "sealing fails": func(string, string) (string, error) { return "", errors.New("no") }} {
		w := newWorld(t, func(c *guard.Config) { c.Registry, c.Seal = reg, f })
		alice, before := w.session("alice"), len(planned)
		_, _, err := w.call(alice, "test.hide", hiddenArgs{Run: runID(1), Value: "s3cret"}, "k")
		text, _ := json.Marshal(writ.AsError("", err))
		if err == nil || strings.Contains(string(text), "s3cret") || len(planned) != before {
			t.Errorf("%s: %v", name, err)
		}
	}
}
