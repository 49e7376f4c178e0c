package e2e

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// entity is an object as the API shows it.
type entity struct {
	state   string
	version int64
	receipt writ.ReceiptID
}

// entities lists every agent, session, approval, run and task there is, by
// "<kind> <id>", as an operator sees them.
func (w *world) entities() map[string]entity {
	w.t.Helper()
	out := map[string]entity{}
	list := func(path, field, kind, id string) (ids []string) {
		after := ""
		for {
			r := w.op.ok(200, "GET", path+after, nil)
			rows, _ := r.at(field).([]any)
			for _, row := range rows {
				m := row.(map[string]any)
				name, _ := m[id].(string)
				state, _ := m["state"].(string)
				receipt, _ := m["receipt"].(string)
				number, _ := m["version"].(json.Number)
				version, _ := strconv.ParseInt(number.String(), 10, 64)
				if name == "" || state == "" || receipt == "" || version == 0 {
					w.t.Fatalf("GET %s: an incomplete %s: %v", path, kind, row)
				}
				out[kind+" "+strings.TrimPrefix(name, "sha256:")] = entity{state, version, writ.ReceiptID(receipt)}
				ids = append(ids, name)
			}
			if r.str("next") == "" {
				return ids
			}
			after = "&after=" + r.str("next")
		}
	}
	list("/v1/agents?limit=100", "agents", writ.ObjectAgent, "agent_id")
	list("/v1/sessions?limit=100", "sessions", writ.ObjectSession, "session_id")
	list("/v1/approvals?limit=100", "approvals", writ.ObjectApproval, "approval_id")
	for _, run := range list("/v1/runs?limit=100", "runs", writ.ObjectRun, "run_id") {
		list("/v1/tasks?limit=100&run_id="+run, "tasks", writ.ObjectTask, "task_id")
	}
	list("/v1/policy/bundles?limit=100", "bundles", writ.ObjectBundle, "digest")
	return out
}

// audit checks that the receipts say of every object exactly what the API
// shows: where it stands, at which version, by which receipt. What moved while
// it looked (a lease may end at any time) must be a move of the log too.
func (w *world) audit() explained {
	w.t.Helper()
	before := w.entities()
	_, all := w.export()
	e := explain(w.t, all)
	after := w.entities()
	for name, x := range before {
		seq, ok := e.seq[name]
		switch {
		case !ok:
			w.t.Errorf("no receipt explains %s", name)
		case e.known[x.receipt].Predicate.Commit.Seq != x.version-1:
			w.t.Errorf("%s names receipt %s for its version %d", name, x.receipt, x.version)
		case x != after[name]: // it moved meanwhile
		case e.state[name] != x.state:
			w.t.Errorf("%s is %s; its receipts left it %s", name, x.state, e.state[name])
		case x.version != seq+1:
			w.t.Errorf("%s has version %d; its last receipt has sequence %d", name, x.version, seq)
		}
	}
	quotas, secrets := w.quotas(), w.secrets()
	keys := map[string]writ.KeyState{}
	rows, _ := w.receiptKeys()
	for _, k := range rows {
		keys[k.SPKI] = k.State
	}
	grants := w.named("/v1/egress/grants", "grants", "grant_id")
	for name := range e.seq {
		switch kind, id, _ := strings.Cut(name, " "); kind {
		case writ.ObjectEgress:
			if state, there := grants[id]; there != (e.state[name] == string(writ.EgressActive)) || there && state != e.state[name] {
				w.t.Errorf("receipts leave %s %s; it is %q", name, e.state[name], grants[id])
			}
			continue
		case writ.ObjectJail, writ.ObjectEffect, writ.ObjectBallot: // found by what they are of
			continue
		}
		if kind, id, _ := strings.Cut(name, " "); kind == writ.ObjectKey {
			if string(keys[id]) != e.state[name] {
				w.t.Errorf("receipts leave %s %s; it is %q", name, e.state[name], keys[id])
			}
			continue
		}
		if kind, id, _ := strings.Cut(name, " "); kind == writ.ObjectQuota {
			if receipt, there := quotas[id]; there != (e.state[name] == string(writ.QuotaActive)) {
				w.t.Errorf("receipts leave %s %s; it is there: %v", name, e.state[name], there)
			} else if there && e.known[receipt].Predicate.Commit.Seq != e.seq[name] {
				w.t.Errorf("%s names receipt %s; its last has sequence %d", name, receipt, e.seq[name])
			}
			continue
		}
		if kind, id, _ := strings.Cut(name, " "); kind == writ.ObjectSecret {
			if receipt, there := secrets[id]; there != (e.state[name] == string(writ.SecretStored)) {
				w.t.Errorf("receipts leave %s %s; it is there: %v", name, e.state[name], there)
			} else if there && e.known[receipt].Predicate.Commit.Seq != e.seq[name] {
				w.t.Errorf("%s names receipt %s; its last has sequence %d", name, receipt, e.seq[name])
			}
			continue
		}
		if strings.HasPrefix(name, writ.ObjectEffect+" ") {
			continue // forgotten a day after it has ended
		}
		if _, ok := after[name]; !ok && !strings.HasPrefix(name, writ.ObjectGate) && !strings.HasPrefix(name, writ.ObjectEvidence+" ") {
			w.t.Errorf("receipts tell of %s, which is not there", name)
		}
	}
	return e
}

// secrets are those there are, by id, with the receipts they name.
func (w *world) secrets() map[string]writ.ReceiptID {
	w.t.Helper()
	out := map[string]writ.ReceiptID{}
	rows, _ := w.op.ok(200, "GET", "/v1/secrets?limit=100", nil).at("secrets").([]any)
	for _, row := range rows {
		m := row.(map[string]any)
		id, _ := m["secret_id"].(string)
		receipt, _ := m["receipt"].(string)
		out[id] = writ.ReceiptID(receipt)
	}
	return out
}

// quotas are those there are, by id, with the receipts they name. They share one
// document and so have no versions of their own.
func (w *world) quotas() map[string]writ.ReceiptID {
	w.t.Helper()
	out := map[string]writ.ReceiptID{}
	rows, _ := w.op.ok(200, "GET", "/v1/quotas", nil).at("quotas").([]any)
	for _, row := range rows {
		m := row.(map[string]any)
		id, _ := m["quota_id"].(string)
		receipt, _ := m["receipt"].(string)
		out[id] = writ.ReceiptID(receipt)
	}
	return out
}

// named are the states of what an operator is shown in a list, by id.
func (w *world) named(path, field, id string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	rows, _ := w.op.ok(200, "GET", path, nil).at(field).([]any)
	for _, row := range rows {
		m := row.(map[string]any)
		name, _ := m[id].(string)
		out[name], _ = m["state"].(string)
	}
	return out
}
