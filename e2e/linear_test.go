package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/writ-gateway/writ/writtest"
)

// What clients at all gateways see of a few tasks at once, over HTTP, is what they
// would see if one lease after the other were given, held and given up: there is an
// order of the calls, each at some moment between its request and its answer, in
// which one table of states explains every answer. No two hold a task, the fence
// rises with each claim, and no lease ends before its time.
func TestLeasesAreLinearizable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WRIT_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	rounds := 1
	if soak() {
		rounds = 40
	}
	t.Logf("WRIT_SEED=%d, %d rounds", seed, rounds)
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for round := range rounds {
			history := leaseHistory(t, c, round, seed)
			verdict, info := porcupine.CheckOperationsVerbose(leaseModel, history, 2*time.Minute)
			if verdict == porcupine.Ok {
				continue
			}
			picture := os.TempDir() + "/writ-leases.html"
			if err := porcupine.VisualizePath(leaseModel, info, picture); err != nil {
				picture = err.Error()
			}
			t.Fatalf("WRIT_SEED=%d, round %d: the history of %d calls is %s; see %s", seed, round, len(history), verdict, picture)
		}
	})
}

// The model is no rubber stamp: histories that must not be are refused.
func TestTheModelOfLeasesRefuses(t *testing.T) {
	at := func(client int, from int64, in leaseCall, out leaseAnswer) porcupine.Operation {
		in.client, in.from, in.to = client, from*1e6, (from+1)*1e6 // milliseconds
		return porcupine.Operation{ClientId: client, Input: in, Output: out, Call: in.from, Return: in.to}
	}
	claim := leaseCall{verb: "claim"}
	given := func(id string, fence int64) leaseAnswer { return leaseAnswer{ok: true, lease: id, fence: fence} }
	shows := func(verb, id string, fence int64) leaseCall { return leaseCall{verb: verb, lease: id, fence: fence} }
	yes, end := leaseAnswer{ok: true}, int64(leaseSeconds*1000)
	no := func(code string) leaseAnswer { return leaseAnswer{code: code} }
	for name, c := range map[string]struct {
		fine    bool
		history []porcupine.Operation
	}{
		"claimed, kept, completed":     {true, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, 3, shows("heartbeat", "a", 5), yes), at(0, 5, shows("complete", "a", 5), yes)}},
		"given back, claimed again":    {true, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, 3, shows("release", "a", 5), yes), at(1, 5, claim, given("b", 7))}},
		"run out, claimed again":       {true, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(1, end+9, claim, given("b", 7)), at(0, end+20, shows("complete", "a", 5), no("lease_lost"))}},
		"late, and not swept yet":      {true, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, end+20, shows("fail", "a", 5), no("lease_lost")), at(1, end+30, claim, no("already_claimed"))}},
		"a late failure":               {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, end+50, shows("fail", "a", 5), yes)}},
		"two hold it":                  {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(1, 3, claim, given("b", 6))}},
		"run out too early":            {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(1, end/2, claim, given("b", 6))}},
		"renewed, and still run out":   {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, end/2, shows("heartbeat", "a", 5), yes), at(1, end+9, claim, given("b", 6))}},
		"the fence stays":              {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, 3, shows("release", "a", 5), yes), at(1, 5, claim, given("b", 5))}},
		"an old lease completes":       {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, 3, shows("release", "a", 5), yes), at(1, 5, claim, given("b", 6)), at(0, 7, shows("complete", "a", 5), yes)}},
		"somebody else completes":      {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(1, 3, shows("complete", "a", 5), yes)}},
		"completed, claimed again":     {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, 3, shows("complete", "a", 5), yes), at(1, 5, claim, given("b", 6))}},
		"a late completion":            {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, end+50, shows("complete", "a", 5), yes)}},
		"lost without a reason":        {false, []porcupine.Operation{at(0, 1, claim, given("a", 5)), at(0, 3, shows("complete", "a", 5), no("lease_lost"))}},
		"held by somebody, by nobody":  {false, []porcupine.Operation{at(0, 1, claim, no("already_claimed"))}},
		"any other refusal is unknown": {false, []porcupine.Operation{at(0, 1, claim, no("internal"))}},
	} {
		if got := porcupine.CheckOperations(leaseModel, c.history); got != c.fine {
			t.Errorf("%s: linearizable %v", name, got)
		}
	}
}

const (
	leaseSeconds  = 1
	leaseAttempts = 20
	leaseSlack    = 10e6 // ns: clocks are read in milliseconds
)

// leaseCall is what a client asks, and the time it may have happened in.
type leaseCall struct {
	task, client int
	verb         string
	lease        string
	fence        int64
	from, to     int64 // ns
}

type leaseAnswer struct {
	ok    bool
	code  string
	lease string
	fence int64
}

// leaseState is one task: all there is to know about its lease.
type leaseState struct {
	phase    string // queued, running, done, over (no attempts left)
	holder   int
	lease    string
	fence    int64 // of the last claim
	attempt  int
	earliest int64 // ns: the lease may end from here on
	latest   int64 // and has ended by here
}

var leaseModel = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) (out [][]porcupine.Operation) {
		byTask := map[int][]porcupine.Operation{}
		for _, o := range history {
			byTask[o.Input.(leaseCall).task] = append(byTask[o.Input.(leaseCall).task], o)
		}
		for _, list := range byTask {
			out = append(out, list)
		}
		return out
	},
	Init: func() []any { return []any{leaseState{phase: "queued"}} },
	Step: func(state, input, output any) (next []any) {
		s, in, out := state.(leaseState), input.(leaseCall), output.(leaseAnswer)
		before := []leaseState{s}
		if s.phase == "running" && in.to+leaseSlack >= s.earliest { // the sweeper may have been here
			expired := s
			expired.phase, expired.lease = "queued", ""
			if s.attempt >= leaseAttempts {
				expired.phase = "over"
			}
			before = append(before, expired)
		}
		for _, b := range before {
			if after, legal := b.step(in, out); legal {
				next = append(next, after)
			}
		}
		return next
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()

// step is the sequential table: may a call have this answer, and what is then.
func (s leaseState) step(in leaseCall, out leaseAnswer) (leaseState, bool) {
	if !out.ok && slices.Contains([]string{"contention", "backpressure", "policy_unavailable"}, out.code) {
		return s, true // refused before it did anything
	}
	if in.verb == "claim" {
		switch {
		case out.ok:
			legal := s.phase == "queued" && out.fence > s.fence && out.lease != ""
			s.phase, s.holder, s.lease, s.fence, s.attempt = "running", in.client, out.lease, out.fence, s.attempt+1
			return s.renewed(in), legal
		case s.phase == "running":
			return s, out.code == "already_claimed"
		}
		return s, (s.phase == "done" || s.phase == "over") && out.code == "illegal_transition"
	}
	mine := s.phase == "running" && s.holder == in.client && s.lease == in.lease && s.fence == in.fence
	again := in.verb == "complete" && s.phase == "done" && s.holder == in.client && s.fence == in.fence && s.lease == in.lease
	if out.ok {
		switch {
		case again:
			return s, true
		case in.verb == "complete":
			s.phase = "done"
			return s, mine && in.from <= s.latest
		case in.verb == "heartbeat":
			return s.renewed(in), mine
		case in.verb == "release":
			s.phase, s.attempt = "queued", s.attempt-1
			return s, mine
		case in.verb == "fail":
			s.phase = "queued"
			if s.attempt >= leaseAttempts {
				s.phase = "over"
			}
			return s, mine && in.from <= s.latest
		}
		return s, false
	}
	switch out.code {
	case "not_holder":
		return s, s.phase == "running" && s.holder != in.client && (in.lease == s.lease || in.fence >= s.fence)
	case "lease_lost":
		switch {
		case again:
			return s, false
		case mine: // only once its time is over, and before the sweeper
			return s, (in.verb == "complete" || in.verb == "fail") && in.to+leaseSlack >= s.earliest
		case s.phase == "running" && s.holder != in.client:
			return s, in.lease != s.lease && in.fence < s.fence
		}
		return s, true
	}
	return s, false
}

// renewed is the state whose lease was given or renewed by a call.
func (s leaseState) renewed(in leaseCall) leaseState {
	s.earliest = max(s.earliest, in.from+leaseSeconds*1e9-leaseSlack)
	s.latest = max(s.latest, in.to+leaseSeconds*1e9+leaseSlack)
	if s.attempt > 0 && in.verb == "claim" { // another lease, with its own end
		s.earliest, s.latest = in.from+leaseSeconds*1e9-leaseSlack, in.to+leaseSeconds*1e9+leaseSlack
	}
	return s
}

// leaseHistory lets clients at all gateways fight over three tasks.
func leaseHistory(t *testing.T, c cast, round int, seed uint64) []porcupine.Operation {
	t.Helper()
	const clients, tasks = 6, 3
	calls := 150
	if writtest.Raced {
		calls = 80
	}
	var ids []string
	for i := range tasks {
		ids = append(ids, c.enqueue(fmt.Sprintf("linear-%d-%d", round, i), obj{"lease_ttl_s": leaseSeconds, "max_attempts": leaseAttempts, "backoff_ms": 0}))
	}
	var (
		mu      sync.Mutex
		history []porcupine.Operation
		known   [tasks][]lease // every lease anybody was given, for those who try it on
		began   = time.Now()
	)
	now := func() int64 { return time.Since(began).Nanoseconds() }
	sessions := make([]caller, clients)
	for i := range sessions {
		sessions[i] = c.another()
	}
	each(clients, func(i int) {
		r := rand.New(rand.NewPCG(seed, uint64(round*clients+i)))
		var own [tasks]lease
		call := func(at int, verb string, show lease) leaseAnswer {
			in := leaseCall{task: at, client: i, verb: verb}
			body := obj{}
			if verb != "claim" {
				in.lease, in.fence = show.id, show.fence
				body = show.hold(nil)
			}
			switch verb {
			case "fail":
				body["failure"] = obj{"class": "external", "code": "x", "retryable": true}
			case "complete":
				body["result"] = obj{"n": 1}
			}
			by := sessions[i].at(c.gw[r.IntN(len(c.gw))])
			in.from = now()
			reply, err := by.try("POST", "/v1/tasks/"+ids[at]+"/"+verb, body)
			in.to = now()
			if err != nil {
				t.Errorf("%s: %v", verb, err)
				return leaseAnswer{}
			}
			out := leaseAnswer{ok: reply.status == 200, code: string(reply.code())}
			mu.Lock()
			defer mu.Unlock()
			if verb == "claim" && out.ok {
				own[at] = leaseOf(reply)
				out.lease, out.fence = own[at].id, own[at].fence
				known[at] = append(known[at], own[at])
			}
			history = append(history, porcupine.Operation{ClientId: i, Input: in, Output: out, Call: in.from, Return: in.to})
			return out
		}
		// Whoever is first keeps its lease for longer than one lasts, and then is late.
		for range 10 {
			for at := range tasks {
				if own[at].id == "" {
					call(at, "claim", lease{})
				} else if !call(at, "heartbeat", own[at]).ok {
					own[at] = lease{}
				}
			}
			time.Sleep(leaseSeconds * time.Second / 5)
		}
		time.Sleep(leaseSeconds*time.Second + 2*leaseSlack)
		for at := range tasks {
			if own[at].id != "" {
				call(at, "fail", own[at])
				own[at] = lease{}
			}
		}
		for n := 0; n < calls && !t.Failed(); n++ {
			at := r.IntN(tasks)
			show, verb := own[at], "claim"
			mu.Lock()
			if all := known[at]; len(all) > 0 {
				old := all[max(0, len(all)-1-r.IntN(3))]
				switch r.IntN(8) {
				case 0, 1: // something old, or somebody else's
					show = old
				case 2: // or one half of it
					show.fence = old.fence
				case 3:
					if show.id != "" {
						show.id = old.id
					}
				}
			}
			mu.Unlock()
			if show.id != "" {
				verb = []string{"heartbeat", "heartbeat", "heartbeat", "release", "fail", "complete", "claim"}[r.IntN(7)]
				if verb == "complete" && r.IntN(6) > 0 { // else all is soon over
					verb = "heartbeat"
				}
			}
			call(at, verb, show)
			if verb == "release" || verb == "fail" || r.IntN(20) == 0 && verb != "claim" { // or it forgets what it holds
				own[at] = lease{}
			}
		}
	})
	seen := map[string]int{}
	for _, o := range history {
		seen[o.Input.(leaseCall).verb+" "+o.Output.(leaseAnswer).code]++
	}
	t.Logf("%d calls in %v: %v", len(history), time.Since(began).Round(time.Millisecond), seen)
	return history
}
