package approvals_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

// call is what a person would say of a call and the people who decide about it.
type call struct {
	id    writ.ApprovalID
	state writ.ApprovalState
	voted map[string]bool
	yes   int64
	end   int64
	other bool // a person agreed to another call only
}

func (c *call) counts(now int64) bool {
	if c == nil || now >= c.end {
		return false
	}
	return c.state == writ.ApprovalPending || c.state == writ.ApprovalApproved || c.refused(now)
}

func (c *call) refused(now int64) bool {
	return now < c.end && (c.state == writ.ApprovalDenied || c.other)
}

// Whatever people and the caller do in whatever order, a call happens only when
// as many people as policy asks for have agreed to exactly that call, once for
// each time they did, and a no to it holds until its end.
func TestDecidingByTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLab(t)
		approvers := int64(rapid.IntRange(1, 2).Draw(rt, "approvers"))
		n := need(func(n *writ.Need) { n.Approvers = approvers })
		planner := l.planner()
		tenant := writ.Quota{ID: "tenant", Metric: writ.QuotaApprovals, Subject: writ.QuotaOfTenant, Limit: writ.MaxAmount}
		asker := writ.Quota{ID: "session", Metric: writ.QuotaApprovals, Subject: writ.QuotaOfSession, Value: string(planner.Session), Limit: writ.MaxAmount}
		l.Seed(writ.QuotasKey, "quotas", writ.Quotas{Items: []writ.Quota{asker, tenant}})
		whats := []string{"a", "b", "c"}
		last := map[string]*call{} // by arguments
		var all []*call
		is := func(err error, want writ.Code) {
			if got := writ.CodeOf(err); got != want {
				rt.Fatalf("refused with %q (%v), want %q", got, err, want)
			}
		}
		begin := func(what string, id writ.ApprovalID, end int64) *call {
			c := &call{id: id, state: writ.ApprovalPending, voted: map[string]bool{}, end: end}
			last[what], all = c, append(all, c)
			return c
		}
		votes := func(c *call, person string) {
			c.voted[person] = true
			if c.yes++; c.yes >= approvers {
				c.state = writ.ApprovalApproved
			}
		}
		// decides says what keeps a person from deciding about a call.
		decides := func(c *call, person string) writ.Code {
			switch {
			case c.state != writ.ApprovalPending || l.Now >= c.end:
				return writ.CodeIllegal
			case person == "root" || c.voted[person]:
				return writ.CodeSoD
			}
			return ""
		}
		what := rapid.SampledFrom(whats)
		people := rapid.SampledFrom([]string{"alice", "bob", "carol", "root"})
		rt.Repeat(map[string]func(*rapid.T){
			"call": func(rt *rapid.T) {
				what := what.Draw(rt, "what")
				c := last[what]
				out, err := l.do(planner, leased(what), n)
				switch {
				case !c.counts(l.Now):
					is(err, "")
					if out.met {
						rt.Fatal("it happened and nobody was asked")
					}
					begin(what, out.pending.Approval, l.Now+n.ExpiresS*1000)
				case c.refused(l.Now):
					is(err, writ.CodeApprovalDenied)
				case c.state == writ.ApprovalApproved:
					is(err, "")
					if !out.met {
						rt.Fatal("people agreed and it did not happen")
					}
					c.state = writ.ApprovalConsumed
				default:
					is(err, "")
					if out.met || out.pending.Approval != c.id {
						rt.Fatalf("met %v, waits for %s, want %s", out.met, out.pending.Approval, c.id)
					}
				}
			},
			"vote": func(rt *rapid.T) {
				if len(all) == 0 { // nothing to vote on yet
					return
				}
				c, person := rapid.SampledFrom(all).Draw(rt, "approval"), people.Draw(rt, "person")
				decision := rapid.SampledFrom([]string{"approve", "deny"}).Draw(rt, "decision")
				want := decides(c, person)
				is(l.decide(l.approver(writ.PrincipalID(person)), c.id, decision), want)
				switch {
				case want != "":
				case decision == "deny":
					c.state, c.voted[person] = writ.ApprovalDenied, true
				default:
					votes(c, person)
				}
			},
			"modify": func(rt *rapid.T) {
				from, to := what.Draw(rt, "from"), what.Draw(rt, "to")
				c, person := last[from], people.Draw(rt, "person")
				if c == nil { // was never asked for
					return
				}
				want := decides(c, person)
				switch {
				case want != "":
				case from == to:
					want = writ.CodeInputInvalid
				case last[to].counts(l.Now):
					want = writ.CodeExists
				}
				v, err := l.modifies(l.approver(writ.PrincipalID(person)), c.id, fmt.Sprintf(`{"what":%q}`, to))
				is(err, want)
				if want == "" {
					c.state, c.other, c.voted[person] = writ.ApprovalSuperseded, true, true
					votes(begin(to, v.ID, c.end), person)
				}
			},
			"time": func(rt *rapid.T) { l.Advance(rapid.Int64Range(1, 3000).Draw(rt, "seconds")) },
			"": func(rt *rapid.T) {
				open := int64(0)
				for _, c := range all {
					if got := l.state(c.id); got != c.state {
						rt.Fatalf("%s is %s, want %s", c.id, got, c.state)
					}
					if c.state == writ.ApprovalPending {
						open++
					}
				}
				if got := l.Counter(writ.ApprovalsAsked("planner")); got != open {
					rt.Fatalf("%d requests counted open, want %d", got, open)
				}
				for _, q := range []writ.Quota{tenant, asker} { // whoever decided, and put another in its place
					if got := l.Counter(writ.QuotaUsed(string(q.ID))); got != open {
						rt.Fatalf("%d requests count in the quota of the %s, want %d", got, q.ID, open)
					}
				}
			},
		})
	})
}
