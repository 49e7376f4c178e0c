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
	if steps, same, err := plan([]roster.Entry{want}, []roster.Entry{have}); err != nil || len(steps) != 0 || same != 1 {
		t.Errorf("as it is: %d steps, %d same, %v", len(steps), same, err)
	}
	want.Domain = "mail"
	if steps, _, err := plan([]roster.Entry{want}, []roster.Entry{have}); err == nil || !strings.Contains(err.Error(), "tester has endpoints") || len(steps) != 0 {
		t.Errorf("changed: %d steps, %v", len(steps), err)
	}
	have.Watched = false
	if steps, _, err := plan([]roster.Entry{want}, []roster.Entry{have}); err != nil || len(steps) != 3 {
		t.Errorf("without endpoints: %d steps, %v", len(steps), err)
	}
}
