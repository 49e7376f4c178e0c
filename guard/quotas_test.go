package guard_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/quotas"
)

// withQuotas puts the room and its obligor behind the door.
func withQuotas(cfg *guard.Config) {
	room := quotas.New(quotas.Config{Capability: func(id writ.CapabilityID) *writ.Capability { return cfg.Registry.Get(id) }})
	reg, err := writ.NewRegistry(append(cfg.Registry.All(), room.Capabilities()...)...)
	if err != nil {
		panic(err)
	}
	cfg.Registry, cfg.Obligors = reg, append(cfg.Obligors, quotas.Obligor{})
}

func (w *world) quota(op *writ.Credential, of writ.QuotaSubject, limit int64) {
	w.t.Helper()
	if _, _, err := w.call(op, "quota.set", quotas.QuotaSetArgs{Metric: writ.QuotaInvocations, Subject: of, Limit: limit}, ""); err != nil {
		w.t.Fatal(err)
	}
}

// Of many who are refused over one quota at once each principal has one receipt in a
// window, however many replicas refuse; the others are counted.
func TestOneReceiptOfAQuotaInAWindow(t *testing.T) {
	var cfg guard.Config
	w := newWorld(t, withQuotas, func(c *guard.Config) { cfg = *c })
	door, err := guard.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	other := *w
	other.door = door
	op := w.session("olga")
	w.quota(op, writ.QuotaOfTenant, 0)
	people := []*writ.Credential{op, w.session("paul")}
	refuse := func() (receipts int) {
		t.Helper()
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range 24 {
			at := []*world{w, &other}[i/2%2]
			wg.Go(func() {
				_, _, err := at.call(people[i%2], "test.bump", thingArgs{Run: writ.RunID(fmt.Sprintf("run_01J000000000000000000000%02d", i))}, "")
				e := writ.AsError("", err)
				mu.Lock()
				defer mu.Unlock()
				if e == nil || e.Code != writ.CodeQuota || (e.Receipt != "") == e.Aggregated {
					t.Errorf("%+v", e)
					return
				}
				if e.Receipt != "" {
					receipts++
				}
			})
		}
		wg.Wait()
		return receipts
	}
	before := len(w.facts())
	if n := refuse(); n != len(people) || len(w.facts()) != before+n {
		t.Errorf("%d receipts, %d facts", n, len(w.facts())-before)
	}
	if n := refuse(); n != 0 {
		t.Errorf("%d more in the same window", n)
	}
	w.now.Add(60_000)
	if n := refuse(); n != len(people) {
		t.Errorf("%d in the next window", n)
	}
	if n := w.heard.of("quota " + writ.QuotaInvocations); n != 72 {
		t.Errorf("heard of %d refusals", n)
	}
}

// The receipt of what a quota refuses says which run it was about, as any denial's.
func TestAQuotasReceiptSaysWhatItWasAbout(t *testing.T) {
	w := newWorld(t, withQuotas)
	op := w.session("olga")
	w.quota(op, writ.QuotaOfTenant, 0)
	if _, _, err := w.call(op, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeQuota {
		t.Fatal(err)
	}
	facts := w.facts()
	if p := predicate(t, facts[len(facts)-1]); p["run"] != string(runID(1)) || p["outcome"] != writ.OutcomeOfDenial {
		t.Errorf("%v", p)
	}
}

// A claim that waits is refused once a quota is used up that does not have it wait: it
// would keep its session alive no more. One that is to wait waits on.
func TestAPollHearsThatAQuotaIsUsedUp(t *testing.T) {
	w, d := newDispatcher(t, withQuotas)
	op, alice := w.session("olga"), w.session("alice")
	limit := func(action writ.QuotaAction) {
		t.Helper()
		if _, _, err := w.call(op, "quota.set", quotas.QuotaSetArgs{Metric: writ.QuotaClaims, Subject: writ.QuotaOfTenant, Action: action}, ""); err != nil {
			t.Fatal(err)
		}
	}
	limit(writ.QuotaQueue)
	if reply, receipt, err := w.poll(d, alice, 1, ""); err != nil || receipt != nil || reply.Outcome != writ.OutcomeEmpty {
		t.Fatalf("one that is to wait: %+v, %v", reply, err)
	}
	done, before := make(chan error, 1), w.heard.calls.Load()
	go func() {
		_, _, err := w.poll(d, alice, 20, "")
		done <- err
	}()
	for w.heard.calls.Load() == before {
		time.Sleep(time.Millisecond)
	}
	limit(writ.QuotaDeny)
	if e := writ.AsError("", <-done); e == nil || e.Code != writ.CodeQuota || e.RetryMs == 0 {
		t.Errorf("one that is not: %v", e)
	}
}

// What a call costs without the obligor, with it and no quota, with five, and when
// it is refused. All take turns, and the median of each is told in microseconds: the
// ratio is what counts. A read is what counting reads would turn into a change.
func BenchmarkQuotas(b *testing.B) {
	type rival struct {
		name string
		call func() error
		took []time.Duration
	}
	var rivals []*rival
	add := func(name string, verb writ.CapabilityID, limits []int64, tune ...func(*guard.Config)) {
		w := newWorld(b, tune...)
		op := w.session("olga")
		args := thingArgs{Run: writ.RunID("run_01J00000000000000000000000")}
		if _, _, err := w.call(op, "test.bump", args, ""); err != nil {
			b.Fatal(err)
		}
		for i, limit := range limits {
			if i == 4 {
				q := quotas.QuotaSetArgs{Metric: writ.QuotaInvocations, Subject: writ.QuotaOfRole, Value: "operator", Limit: limit}
				if _, _, err := w.call(op, "quota.set", q, ""); err != nil {
					b.Fatal(err)
				}
				break
			}
			w.quota(op, []writ.QuotaSubject{writ.QuotaOfTenant, writ.QuotaOfSession, writ.QuotaOfRole, writ.QuotaOfCapability}[i], limit)
		}
		rivals = append(rivals, &rival{name: name, call: func() error {
			_, _, err := w.call(op, verb, args, "")
			if writ.CodeOf(err) == writ.CodeQuota {
				err = nil
			}
			return err
		}})
	}
	const most = writ.MaxAmount
	add("before", "test.bump", nil)
	add("none", "test.bump", nil, withQuotas)
	add("five", "test.bump", []int64{most, most, most, most, most}, withQuotas)
	add("refused", "test.bump", []int64{0}, withQuotas)
	add("read", "test.look", []int64{most, most, most, most, most}, withQuotas)
	for b.Loop() {
		for _, r := range rivals {
			start := time.Now()
			if err := r.call(); err != nil {
				b.Fatal(err)
			}
			r.took = append(r.took, time.Since(start))
		}
	}
	for _, r := range rivals {
		slices.Sort(r.took)
		b.ReportMetric(float64(r.took[len(r.took)/2].Microseconds()), r.name+"-µs")
	}
}
