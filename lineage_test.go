package writ_test

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// parts are what a transaction noted, as a snapshot that a caller is judged in.
func parts(t *testing.T, run writ.RunID, tx writ.Tx, c writ.Caller, keys []writ.PublicKey) writ.Snapshot {
	t.Helper()
	s := writ.Snapshot{Ranges: map[writ.Range]writ.RangeResult{}}
	for _, r := range append(writ.DutyReads(run, c, keys), writ.PartSeen(c, run)) {
		var found []writ.Member
		for _, o := range tx.Ops {
			if o.Kind != writ.OpIndex || o.Index != writ.RunParts(run) || o.Score != 0 {
				t.Fatalf("got %+v", o)
			}
			if o.Member >= r.From && o.Member < r.To {
				found = append(found, writ.Member{Name: o.Member})
			}
		}
		s.Ranges[r] = writ.RangeResult{Members: found}
	}
	return s
}

// Who had a part in a run under any of these names does not judge it.
func TestWhoHadAPart(t *testing.T) {
	const run writ.RunID = "run_01ARYZ6S410000000000000000"
	key := writ.PublicKey{ID: "aabb"}
	worker := writ.Caller{
		Session: "ses_w", Principal: "worker", Agent: "builder", Controller: "wanda", Openers: []writ.PrincipalID{"opener", "operator"},
	}
	for name, c := range map[string]struct {
		judge writ.Caller
		keys  []writ.PublicKey
		want  bool
	}{
		"somebody else":                      {writ.Caller{Session: "ses_j", Principal: "judge", Agent: "checker", Controller: "jane"}, nil, false},
		"opened by the same":                 {writ.Caller{Session: "ses_j", Principal: "judge", Controller: "jane", Openers: []writ.PrincipalID{"opener", "operator"}}, nil, false},
		"another whose name begins the same": {writ.Caller{Session: "ses_wx", Principal: "worker-two", Agent: "builder-two", Controller: "wanda-two"}, []writ.PublicKey{{ID: "aabbcc"}}, false},
		"the same session":                   {writ.Caller{Session: "ses_w", Principal: "x"}, nil, true},
		"the same principal":                 {writ.Caller{Session: "ses_j", Principal: "worker"}, nil, true},
		"the same agent":                     {writ.Caller{Session: "ses_j", Principal: "judge", Agent: "builder"}, nil, true},
		"the same key":                       {writ.Caller{Session: "ses_j", Principal: "judge", Agent: "checker"}, []writ.PublicKey{{ID: "cc"}, key}, true},
		"answers to the same person":         {writ.Caller{Session: "ses_j", Principal: "judge", Controller: "wanda"}, nil, true},
		"answers to the worker":              {writ.Caller{Session: "ses_j", Principal: "judge", Controller: "worker"}, nil, true},
		"the person the worker answers to":   {writ.Caller{Session: "ses_j", Principal: "wanda", Controller: "wanda"}, nil, true},
		"opened the worker's session":        {writ.Caller{Session: "ses_j", Principal: "opener"}, nil, true},
		"opened by the worker":               {writ.Caller{Session: "ses_j", Principal: "judge", Openers: []writ.PrincipalID{"worker"}}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			var tx writ.Tx
			tx.TakePart(writ.Snapshot{}, run, writ.PartExecuted, worker, []writ.PublicKey{key})
			d := writ.DutyIn(parts(t, run, tx, c.judge, c.keys), run, c.judge, c.keys)
			if d.Executed != c.want || d.Planned || d.Requested || d.Independent() == c.want {
				t.Errorf("got %+v", d)
			}
		})
	}
}

// The operator of the machine opens the first session of everybody, so that it had
// a part keeps only itself from judging, and whom it answers for.
func TestTheOperatorHadAPart(t *testing.T) {
	const run writ.RunID = "run_01ARYZ6S410000000000000000"
	operator := writ.Caller{Session: "ses_o", Principal: writ.MachineOperator, Controller: writ.MachineOperator}
	var tx writ.Tx
	tx.TakePart(writ.Snapshot{}, run, writ.PartPlanned, operator, nil)
	for name, c := range map[string]struct {
		judge writ.Caller
		want  bool
	}{
		"opened by it":  {writ.Caller{Session: "ses_j", Principal: "judge", Controller: "jane", Openers: []writ.PrincipalID{writ.MachineOperator}}, false},
		"itself":        {operator, true},
		"answers to it": {writ.Caller{Session: "ses_j", Principal: "judge", Controller: writ.MachineOperator, Openers: []writ.PrincipalID{writ.MachineOperator}}, true},
	} {
		if d := writ.DutyIn(parts(t, run, tx, c.judge, nil), run, c.judge, nil); d.Planned != c.want {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// What nobody looked at forbids to judge.
func TestAPartNobodyLookedFor(t *testing.T) {
	c := writ.Caller{Session: "ses_j", Principal: "judge"}
	if d := writ.DutyIn(writ.Snapshot{}, "run_01ARYZ6S410000000000000000", c, nil); d.Independent() {
		t.Errorf("got %+v", d)
	}
}

// Parts are told apart, noted once per session, and the gateway takes none.
func TestPartsAreNotedOnce(t *testing.T) {
	const run writ.RunID = "run_01ARYZ6S410000000000000000"
	c := writ.Caller{Session: "ses_w", Principal: "worker"}
	var tx writ.Tx
	tx.TakePart(writ.Snapshot{}, run, writ.PartPlanned, c, nil)
	tx.TakePart(writ.Snapshot{}, run, writ.PartRequested, c, nil)
	s := parts(t, run, tx, c, nil)
	if d := writ.DutyIn(s, run, c, nil); *d != (writ.DutyFacts{Planned: true, Requested: true}) {
		t.Errorf("got %+v", d)
	}
	n := len(tx.Ops)
	again := writ.Tx{}
	again.TakePart(s, run, writ.PartPlanned, c, nil)
	if len(again.Ops) != 0 {
		t.Errorf("noted again: %+v", again.Ops)
	}
	again.TakePart(s, run, writ.PartExecuted, c, nil)
	if len(again.Ops) != n/2 {
		t.Errorf("another part: %+v", again.Ops)
	}
	again = writ.Tx{}
	again.TakePart(writ.Snapshot{}, run, writ.PartExecuted, writ.Caller{Role: writ.RoleSystem}, nil)
	if len(again.Ops) != 0 {
		t.Errorf("the gateway took a part: %+v", again.Ops)
	}
}
