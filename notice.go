package writ

import (
	"slices"
	"strconv"
	"strings"
)

// Event is what somebody outside can be told about (closed list).
type Event string

const (
	EventApprovalRequested Event = "approval.requested" // people are asked for approval
	EventApprovalDecided   Event = "approval.decided"   // it became approved or denied, or another took its place
	EventApprovalExpired   Event = "approval.expired"   // it lapsed undecided
	EventPolicyNotify      Event = "policy.notify"      // an allowed call carried the obligation notify
)

// Events lists every event.
func Events() []Event {
	return []Event{EventApprovalRequested, EventApprovalDecided, EventApprovalExpired, EventPolicyNotify}
}

// EndpointID names where notices go. It is made from the address, so that an
// address keeps what waits for it when others come or go.
type EndpointID string

// Subscribers says which endpoints are told of an event. Where nobody wants to
// know nothing is queued.
type Subscribers map[Event][]EndpointID

// Notice is one thing to tell. It is a member of a deadline index that is
// written by the very transaction it tells of, so no crash loses one, and it
// decides nothing: it may come late, twice, or in the end not at all.
type Notice struct {
	Event   Event
	Receipt ReceiptID // of the transaction; names the notice together with the event
	At      int64     // when it happened, milliseconds
	Tries   int64     // deliveries that failed

	Approval ApprovalID    // of an approval event
	State    ApprovalState // the approval got

	Capability CapabilityID // of a policy.notify
	Rules      []string     // that want it told, as many as fit

	Due int64 // when it is to be delivered; the score, no part of the member
}

// ID names the notice to its receivers: the same for every delivery of it.
func (n Notice) ID() string {
	return string(n.Receipt) + "-" + strings.ReplaceAll(string(n.Event), ".", "_")
}

// maxNoticeRules bounds the rules a notice names, in bytes: the receipt has all.
const maxNoticeRules = 600

// Member is the notice as a member of its index.
func (n Notice) Member() string {
	about := string(n.Approval) + " " + string(n.State)
	if n.Event == EventPolicyNotify {
		rules, size := []string{}, 0
		for _, r := range n.Rules {
			if size += len(r) + 1; size > maxNoticeRules {
				break
			}
			rules = append(rules, r)
		}
		about = string(n.Capability) + " " + strings.Join(rules, ",")
	}
	return strings.Join([]string{string(n.Event), string(n.Receipt), strconv.FormatInt(n.At, 10), strconv.FormatInt(n.Tries, 10), about}, " ")
}

// ParseNotice reads a member; ok is false for one this program did not write.
func ParseNotice(m Member) (n Notice, ok bool) {
	p := strings.Split(m.Name, " ")
	if len(p) != 6 || !slices.Contains(Events(), Event(p[0])) {
		return n, false
	}
	at, aerr := strconv.ParseInt(p[2], 10, 64)
	tries, terr := strconv.ParseInt(p[3], 10, 64)
	n = Notice{Event: Event(p[0]), Receipt: ReceiptID(p[1]), At: at, Tries: tries, Due: m.Score}
	if n.Event == EventPolicyNotify {
		n.Capability = CapabilityID(p[4])
		if p[5] != "" {
			n.Rules = strings.Split(p[5], ",")
		}
	} else {
		n.Approval, n.State = ApprovalID(p[4]), ApprovalState(p[5])
	}
	return n, aerr == nil && terr == nil
}

// Tell queues a notice for everybody who wants to know.
func (t *Tx) Tell(who Subscribers, n Notice) {
	for _, e := range who[n.Event] {
		t.Index(Notices(e), n.Member(), n.At)
	}
}

// Notices holds what an endpoint is still to be told, score: when.
func Notices(e EndpointID) Index { return Index("due/notice/" + string(e)) }

// IndexEndpoints holds "<endpoint> <replica>", score: until when that replica
// is the one that delivers there. Versioned, so that two do not take over at once.
const IndexEndpoints Index = "v/endpoints"
