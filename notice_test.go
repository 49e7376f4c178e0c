package writ_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A notice is read back as it was written, and named the same whenever it is
// delivered.
func TestNoticesAreReadBack(t *testing.T) {
	for _, n := range []writ.Notice{
		{Event: writ.EventApprovalRequested, Receipt: gReceipt, At: 5, Approval: gApproval, State: writ.ApprovalPending},
		{Event: writ.EventApprovalDecided, Receipt: gReceipt, At: 5, Tries: 11, Approval: gApproval, State: writ.ApprovalDenied},
		{Event: writ.EventPolicyNotify, Receipt: gReceipt, At: 5, Capability: "run.create", Rules: []string{"a.b", "c.d"}},
		{Event: writ.EventPolicyNotify, Receipt: gReceipt, At: 5, Capability: "run.create"},
	} {
		n.Due = 7
		got, ok := writ.ParseNotice(writ.Member{Name: n.Member(), Score: 7})
		if !ok || !reflect.DeepEqual(got, n) {
			t.Errorf("%s: read back as %+v, %v", n.Member(), got, ok)
		}
		again := n
		if again.Tries++; again.ID() != n.ID() || strings.Contains(n.ID(), ".") {
			t.Errorf("%s is delivered as %s and then as %s", n.Member(), n.ID(), again.ID())
		}
	}
	for _, name := range []string{"", "x", "approval.moved rcp_1 1 0 apr_1 pending", "approval.decided rcp_1 soon 0 apr_1 approved", "approval.decided rcp_1 1 0 apr_1"} {
		if n, ok := writ.ParseNotice(writ.Member{Name: name}); ok {
			t.Errorf("%q was read as %+v", name, n)
		}
	}
}

// However many rules want a call told, the notice fits its index.
func TestNoticesFit(t *testing.T) {
	n := writ.Notice{Event: writ.EventPolicyNotify, Receipt: gReceipt, At: writ.MaxAmount, Capability: writ.CapabilityID(strings.Repeat("c", 128))}
	for range 64 {
		n.Rules = append(n.Rules, strings.Repeat("r", 100))
	}
	tx := writ.Tx{}
	tx.Tell(writ.Subscribers{writ.EventPolicyNotify: {"00112233aabbccdd"}}, n)
	if err := tx.Check(); err != nil || len(tx.Ops) != 1 {
		t.Fatalf("%v, %+v", err, tx.Ops)
	}
	if got, ok := writ.ParseNotice(writ.Member{Name: tx.Ops[0].Member}); !ok || len(got.Rules) != 5 {
		t.Errorf("names %d rules, %v", len(got.Rules), ok)
	}
	tx = writ.Tx{}
	tx.Tell(writ.Subscribers{writ.EventApprovalExpired: {"00112233aabbccdd"}}, n)
	if !tx.Empty() {
		t.Error("queued for an endpoint that wants other events")
	}
}
