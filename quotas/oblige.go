package quotas

import (
	"strconv"

	"github.com/writ-gateway/writ"
)

// Obligor adds the conditions of quotas to calls.
type Obligor struct{}

// need is one quota a call counts against, as it stands.
type need struct {
	amount
	quota  writ.Quota
	tag    string
	window int64 // when the window of the call began, on the store's clock; 0: it has none
	used   int64 // in it
}

// ends is the last millisecond of a need's window.
func (n need) ends() int64 { return n.window + writ.QuotaWindow(n.quota.Metric) - 1 }

func (n need) fits() bool { return n.n <= 0 || n.used+n.n <= n.quota.Limit }

// needs are the quotas a call counts against, as far as read. Among many quotas
// most are about others, so nothing is made for those.
func needs(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject) (out []need, err error) {
	all, err := writ.QuotasIn(s)
	for _, q := range all {
		count := counted[q.Metric]
		if count == nil {
			continue // of a newer version, which commits nothing that this one would have to count
		}
		a, counts := count(c, k, sub)
		if !counts {
			continue
		}
		if tag, ok := q.Tag(a.who); ok {
			out = append(out, stands(need{amount: a, quota: q, tag: tag}, s))
		}
	}
	return out, err
}

// stands adds how much is used now.
func stands(n need, s writ.Snapshot) need {
	n.used = s.Counters[writ.QuotaUsed(n.tag)]
	n.window = writ.QuotaBegins(s, n.quota.Metric, n.tag)
	if n.window > 0 && s.Counters[writ.QuotaBegan(n.tag)] != n.window {
		n.used = 0
	}
	return n
}

// Reads asks for the quotas, if the gate says that there are any, and then for what
// is used of those the call counts against.
func (Obligor) Reads(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject) (rs writ.ReadSet, err error) {
	if !held(c, k) {
		return rs, nil
	}
	gate, _, _, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil || gate.Quotas == 0 {
		return rs, err
	}
	rs.Docs = []writ.Key{writ.QuotasKey}
	all, err := needs(c, k, s, sub)
	for _, n := range all {
		rs.Counters = append(rs.Counters, writ.QuotaUsed(n.tag), writ.QuotaTold(n.tag, c.Caller.Principal))
		if writ.QuotaWindow(n.quota.Metric) > 0 {
			rs.Counters = append(rs.Counters, writ.QuotaBegan(n.tag))
		}
	}
	return rs, err
}

// Facts tells policy what the call counts against, and refuses it where that is
// used up and the call would change something: what is refused anyway, or finds
// nothing to do, takes no place. A call that waits for any task is refused before
// it is given one, unless it is to wait on.
func (Obligor) Facts(c *writ.Call, k *writ.Capability, s writ.Snapshot, moves func() bool, sub *writ.Subject) error {
	if !held(c, k) {
		return nil
	}
	all, err := needs(c, k, s, *sub)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.quota.Metric == writ.QuotaApprovals {
			continue // whether it asks people is not known yet
		}
		if (n.unstated || !n.fits()) && stops(n, k, *sub, moves) {
			return refuse(c, s, n)
		}
		sub.Quotas = append(sub.Quotas, writ.QuotaFacts{
			Metric: n.quota.Metric, Subject: string(n.quota.Subject), Limit: n.quota.Limit, Fits: true, OnExceed: string(n.quota.Action),
		})
	}
	return nil
}

func stops(n need, k *writ.Capability, sub writ.Subject, moves func() bool) bool {
	if polls(k, sub) {
		return n.quota.Action != writ.QuotaQueue
	}
	return moves()
}

// Oblige counts the call, under the limits. It counts what the transaction does and
// not what the call is for: a claim that only put a lane in order took no task.
func (Obligor) Oblige(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, tx *writ.Tx) (map[string]int64, []writ.BudgetWarning, error) {
	if !held(c, k) || len(tx.Changes) == 0 {
		return nil, nil, nil
	}
	all, err := needs(c, k, s, sub)
	if err != nil {
		return nil, nil, err
	}
	takes := takesTask(*tx)
	for _, n := range all {
		switch {
		case n.window == 0:
			err = level(c, s, n, tx)
		case n.n > 0 && (k.ID != claims || takes):
			if n.unstated || !n.fits() {
				return nil, nil, refuse(c, s, n)
			}
			spend(s, n, tx)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, nil
}

// Asked holds a request for approval to the quotas on open ones.
func (Obligor) Asked(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, tx *writ.Tx) error {
	if !held(c, k) {
		return nil
	}
	all, err := needs(c, k, s, sub)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.quota.Metric != writ.QuotaApprovals {
			continue
		}
		if err := level(c, s, n, tx); err != nil {
			return err
		}
	}
	return nil
}

// Denied adds nothing to a denial.
func (Obligor) Denied(*writ.Call, writ.Snapshot, writ.Subject, writ.Decision, *writ.Tx) {}

// takesTask says whether a transaction gives somebody a task.
func takesTask(tx writ.Tx) bool {
	for _, ch := range tx.Changes {
		if ch.Kind == writ.ObjectTask && ch.From == string(writ.TaskQueued) && ch.To == string(writ.TaskRunning) {
			return true
		}
	}
	return false
}

// level holds what a transaction adds to a level, which its room counts, to the
// limit. What shrinks or moves within it is held to nothing.
func level(c *writ.Call, s writ.Snapshot, n need, tx *writ.Tx) error {
	used := writ.QuotaUsed(n.tag)
	grows := int64(0)
	for _, o := range tx.Ops {
		if o.Kind == writ.OpAdd && o.Counter == used {
			grows += o.Delta
		}
	}
	if grows <= 0 {
		return nil
	}
	if n.n = grows; !n.fits() {
		return refuse(c, s, n)
	}
	tx.Within(used, -writ.MaxAmount, n.quota.Limit-grows)
	return nil
}

// spend counts what a call takes of a window, and begins the window if it is the
// first in it: then what was used in the last one is taken off.
func spend(s writ.Snapshot, n need, tx *writ.Tx) {
	used, began := writ.QuotaUsed(n.tag), writ.QuotaBegan(n.tag)
	last := s.Counters[began]
	tx.NotAfter(n.ends())
	tx.Within(began, last, last)
	if last == n.window {
		tx.AddUpTo(used, n.n, n.quota.Limit)
		return
	}
	before := s.Counters[used]
	tx.Within(used, before, before)
	tx.Add(used, n.n-before)
	tx.Add(began, n.window-last)
	tx.KeepQuota(began, n.window)
}

// refuse says no, and until when. Of one quota a principal gets one receipt in a
// window; where a quota has none, in a minute.
func refuse(c *writ.Call, s writ.Snapshot, n need) *writ.Error {
	const op = "quotas"
	switch {
	case n.unstated:
		return with(writ.Refuse(writ.CodeBudget, op, "a quota counts what the agent's tool does not state it uses",
			"operators: state it in costs of the tool (agent.register); zero is a statement"), n)
	case n.n > n.quota.Limit && n.quota.Limit > 0 && (n.quota.Metric == writ.QuotaTokens || n.quota.Metric == writ.QuotaMoney):
		return with(writ.Refuse(writ.CodeBudget, op, "one attempt with the agent's tool may use more than a quota has at all",
			"let an agent do it whose tool states less"), n)
	}
	if n.n > n.quota.Limit && n.quota.Limit > 0 && n.quota.Metric == writ.QuotaEgress {
		return with(writ.Refuse(writ.CodeBudget, op, "one exchange may send more than a quota has at all",
			"say how long the body is, or have a grant whose up_bytes are fewer"), n)
	}
	e := with(writ.Refuse(writ.CodeQuota, op, "a quota is used up", "repeat the call after the Retry-After time; quota.get of the quota in details says how it stands"), n)
	e.RetryMs = againMs
	told := s.Now - s.Now%60_000
	if n.window > 0 {
		e.Hint = "repeat the call after the Retry-After time, when the next window has begun"
		e.RetryMs, told = n.ends()+1-s.Now, n.window
	}
	e.Once = &writ.Once{Counter: writ.QuotaTold(n.tag, c.Caller.Principal), At: told}
	return e
}

// againMs is when to try again where nobody knows when there will be room.
const againMs = 5000

func with(e *writ.Error, n need) *writ.Error {
	return e.With("quota", string(n.quota.ID)).With("metric", n.quota.Metric).With("subject", string(n.quota.Subject)).
		With("limit", strconv.FormatInt(n.quota.Limit, 10)).With("action", string(n.quota.Action))
}
