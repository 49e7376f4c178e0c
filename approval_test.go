package writ_test

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// One person meets a need once, under whatever names.
func TestOnePersonMeetsANeedOnce(t *testing.T) {
	yes := func(p, controller writ.PrincipalID) writ.Vote {
		return writ.Vote{Principal: p, Controller: controller, Role: writ.RoleApprover, Approve: true}
	}
	two := writ.Need{Approvers: 2, Roles: []writ.Role{writ.RoleApprover}}
	for name, votes := range map[string][]writ.Vote{
		"twice":                 {yes("alice", "alice"), yes("alice", "alice")},
		"two keys":              {yes("alice-1", "alice"), yes("alice-2", "alice")},
		"a key, then herself":   {yes("alice-1", "alice"), yes("alice", "zed")},
		"herself, then a key":   {yes("alice", "zed"), yes("alice-1", "alice")},
		"one name, two persons": {yes("alice", "zed"), yes("alice", "zoe")},
	} {
		if (writ.Approval{Votes: votes}).Meets(two) {
			t.Errorf("%s: met", name)
		}
	}
	if !(writ.Approval{Votes: []writ.Vote{yes("alice", "alice"), yes("bob", "bob")}}).Meets(two) {
		t.Error("two people: not met")
	}
}
