package guard

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// sized is a transparency log that is so long, and in which nothing else comes in time.
type sized struct {
	size     int64
	deadline time.Time
}

func (s *sized) Size(context.Context, writ.Tenant) (int64, error) { return s.size, nil }

func (s *sized) Wait(ctx context.Context, _ writ.Tenant, _ int64) error {
	s.deadline, _ = ctx.Deadline()
	return context.DeadlineExceeded
}

// What a call builds on is every task, run and approval it read, and nothing else.
func TestWhatACallBuildsOn(t *testing.T) {
	for key, waits := range map[writ.Key]bool{
		"task/tsk_1": true, "run/run_1": true, "approval/apr_1": true, "session/ses_1": false, "agent/builder": false, writ.GateKey: false,
	} {
		for version, want := range map[int64]writ.Code{0: "", 5: "", 6: writ.CodeReceiptPending} {
			a := &try{d: &Door{}, call: &writ.Call{}, dec: writ.Decision{Duties: writ.Duties{BuiltOnLogged: true}}}
			a.d.cfg.Published = &sized{size: 5}
			a.snap.Docs = map[writ.Key]writ.Doc{key: {Version: version}}
			if !waits {
				want = ""
			}
			if err := a.builtOnLogged(t.Context()); writ.CodeOf(err) != want {
				t.Errorf("%s of version %d: %v, want %q", key, version, err, want)
			}
		}
	}
}

// Of itself a capability asks for an answer that is in the log only where there is one;
// what policy wants it wants everywhere.
func TestWhatAnAnswerMeans(t *testing.T) {
	for _, c := range []struct {
		log        bool
		own, asked writ.Durability
		want       writ.Durability
	}{
		{true, writ.DurabilityLogged, "", writ.DurabilityLogged},
		{false, writ.DurabilityLogged, "", ""},
		{true, "", writ.DurabilityLogged, writ.DurabilityLogged},
		{false, "", writ.DurabilityLogged, writ.DurabilityLogged},
		{true, "", "", ""},
	} {
		a := &try{d: &Door{}, k: &writ.Capability{Durability: c.own}, dec: writ.Decision{Duties: writ.Duties{Durability: c.asked}}}
		if c.log {
			a.d.cfg.Published = &sized{}
		}
		if got := a.durability(); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

// An answer waits three seconds at most; one that comes without the log says the rest
// of what it would have said.
func TestALateAnswer(t *testing.T) {
	log := &sized{}
	d := &Door{}
	d.cfg.Published = log
	reply := writ.Reply{
		Outcome: writ.OutcomeDone, Durability: writ.DurabilityLogged, Replayed: true,
		Limited: []writ.Limit{{}}, Budget: []writ.BudgetWarning{{}},
	}
	begin := time.Now()
	got, err := d.logged(t.Context(), &writ.Call{}, reply, &writ.Receipt{ID: "rcp_1", Seq: 4})
	if err != nil || got.Outcome != writ.OutcomePending || !got.Replayed || len(got.Limited) != 1 || len(got.Budget) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	var u writ.Unlogged
	if err := json.Unmarshal(got.JSON, &u); err != nil || u.Status != writ.StatusUnlogged || u.Receipt != "rcp_1" {
		t.Errorf("got %s, %v", got.JSON, err)
	}
	if log.deadline.Before(begin) || log.deadline.After(time.Now().Add(maxLogged)) || maxLogged > 5*time.Second {
		t.Errorf("it waits until %v, from %v", log.deadline, begin)
	}
}
