package main

import (
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/roster"
)

// What a file does not hold is not dropped by importing it.
func TestImportKeepsWhatNoFileHolds(t *testing.T) {
	have := roster.Entry{ID: "tester", Domain: "web", Archetypes: []writ.Role{writ.RoleExecutor}, State: writ.AgentActive, Watched: true}
	want := have
	want.Watched = false
	if steps, _, same, err := plan([]roster.Entry{want}, []roster.Entry{have}); err != nil || len(steps) != 0 || same != 1 {
		t.Errorf("as it is: %d steps, %d same, %v", len(steps), same, err)
	}
	want.Domain = "mail"
	if steps, _, _, err := plan([]roster.Entry{want}, []roster.Entry{have}); err == nil || !strings.Contains(err.Error(), "tester has endpoints") || len(steps) != 0 {
		t.Errorf("changed: %d steps, %v", len(steps), err)
	}
	have.Watched = false
	if steps, _, _, err := plan([]roster.Entry{want}, []roster.Entry{have}); err != nil || len(steps) != 3 {
		t.Errorf("without endpoints: %d steps, %v", len(steps), err)
	}
}

// Who cannot begin as what a file says is named, and not counted as being so.
func TestImportNamesWhatItLeavesOut(t *testing.T) {
	var want []roster.Entry
	for _, state := range []writ.AgentState{writ.AgentPlanned, writ.AgentActive, writ.AgentSuspended, writ.AgentSuperseded, writ.AgentRetired} {
		want = append(want, roster.Entry{ID: writ.AgentID(state), Domain: "web", State: state})
	}
	steps, absent, same, err := plan(want, nil)
	if err != nil || len(steps) != 3 || len(absent) != 3 || absent[0].ID != "suspended" || same != 0 {
		t.Errorf("%d steps, %v, %d same, %v", len(steps), absent, same, err)
	}
}
