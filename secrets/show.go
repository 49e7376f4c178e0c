package secrets

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// member is how a secret is listed: by name.
func member(x writ.Secret) string { return x.Name + " " + string(x.ID) }

func idIn(member string) writ.SecretID {
	_, id, _ := strings.Cut(member, " ")
	return writ.SecretID(id)
}

// SecretListArgs say which secrets.
type SecretListArgs struct {
	After string `json:"after,omitempty" doc:"Where to go on: next of the page before." pattern:"^[a-z][a-z0-9-]{1,62}$" maxLength:"63"`
	Limit int64  `json:"limit,omitempty" doc:"Secrets on the page." minimum:"1" maximum:"100" default:"50"`
}

// SecretList is a page of secrets, without their values.
type SecretList struct {
	Secrets []SecretView `json:"secrets" doc:"By name."`
	Next    string       `json:"next,omitempty" doc:"After  of the next page; absent on the last."`
}

func (a *SecretListArgs) page() writ.Range {
	r := writ.Range{Index: writ.IndexSecrets, Limit: int(max(a.Limit, 1)) + 1}
	if a.After != "" {
		r.From = a.After + "!" // after "<name> …"
	}
	return r
}

func list() *writ.Capability {
	return writ.Define[SecretListArgs, SecretList](writ.Capability{
		ID: "secret.list", Safety: writ.SafetyReadOnly, Summary: "List the secrets and the hosts they are for, without their values.",
		Example: `{"limit":20}`,
	}, writ.Verb[SecretListArgs]{
		Reads: func(_ *writ.Call, a *SecretListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Ranges: []writ.Range{a.page()}}
			for _, m := range s.Ranges[a.page()].Members {
				rs.Docs = append(rs.Docs, writ.SecretKey(idIn(m.Name)))
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *SecretListArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			out := SecretList{Secrets: []SecretView{}}
			members := s.Ranges[a.page()].Members
			for n, m := range members {
				if n == int(max(a.Limit, 1)) {
					out.Next, _, _ = strings.Cut(members[n-1].Name, " ")
					break
				}
				x, _, ok, err := writ.Get[writ.Secret](s, writ.SecretKey(idIn(m.Name)))
				if err != nil {
					return writ.Tx{}, writ.Reply{}, err
				}
				if ok {
					out.Secrets = append(out.Secrets, view(x))
				}
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// SecretDeleteArgs name a secret.
type SecretDeleteArgs struct {
	Name string `json:"name" doc:"The secret." pattern:"^[a-z][a-z0-9-]{1,62}$" maxLength:"63"`
}

// SecretDeleted says that a secret is gone.
type SecretDeleted struct {
	ID      writ.SecretID  `json:"secret_id" doc:"Its id, as receipts name it."`
	Receipt writ.ReceiptID `json:"receipt" doc:"Receipt of the change."`
}

// remove takes a secret out of the store. Effects under way that use it are stopped, since
// they rest on its document.
func remove() *writ.Capability {
	const op = "secrets.Delete"
	return writ.Define[SecretDeleteArgs, SecretDeleted](writ.Capability{
		ID: "secret.delete", Safety: writ.SafetyDestructive, Summary: "Delete a secret: nothing is sent with it any more, and nobody can bring it back.",
		Example: `{"name":"stripe"}`,
	}, writ.Verb[SecretDeleteArgs]{
		Locks: func(_ *writ.Call, a *SecretDeleteArgs) []writ.Key { return []writ.Key{writ.SecretNameKey(a.Name)} },
		Reads: func(_ *writ.Call, a *SecretDeleteArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return writ.SecretReads(a.Name, s), nil
		},
		Plan: func(c *writ.Call, a *SecretDeleteArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			name, _, ok, err := writ.Get[writ.SecretName](s, writ.SecretNameKey(a.Name))
			if err != nil {
				return tx, r, err
			}
			if !ok {
				return tx, r, writ.Refuse(writ.CodeNotFound, op, "there is no such secret", "secret.list shows all")
			}
			x, _, ok, err := writ.Get[writ.Secret](s, writ.SecretKey(name.ID))
			if err != nil || !ok {
				return tx, r, writ.Fault(writ.CodeInternal, op, err)
			}
			tx.Move(writ.ObjectSecret, string(x.ID), string(x.State), string(writ.SecretDeleted))
			tx.Delete(writ.SecretKey(x.ID))
			tx.Delete(writ.SecretNameKey(a.Name))
			tx.Unindex(writ.IndexSecrets, member(x))
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: SecretDeleted{ID: x.ID, Receipt: writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))}}, nil
		},
	})
}
