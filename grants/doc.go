// Package grants plans who may reach what outside: grants that people give, and the
// use of one by an agent, which is the one way out.
//
// It is pure planning. Its invariants:
//
//   - people grant: no session of an agent, or opened by one, gives or changes a grant;
//   - a grant names one host in its one spelling, one way, and who may use it;
//   - it is used by a session that holds a task, under the budget of that task's run,
//     with the labels of all the session was ever given: what an agent has read it may send;
//   - what is carried out stands in the errand of the plan, word for word as it was
//     judged, and the commit of the intent expects the grant as it was read.
package grants

import "github.com/writ-gateway/writ"

// Capabilities are the verbs of this room.
func Capabilities() []*writ.Capability {
	return []*writ.Capability{grant(), revoke(), list(), fetch()}
}

// GrantArgs name a grant.
type GrantArgs struct {
	ID writ.EgressID `json:"grant_id" doc:"The grant." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}
