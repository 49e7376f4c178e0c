package secrets

import "github.com/writ-gateway/writ"

// SecretPutArgs are a secret. The value is sealed before anything else is done with it.
type SecretPutArgs struct {
	Name   string `json:"name" doc:"What people call it: a slug." pattern:"^[a-z][a-z0-9-]{1,62}$" maxLength:"63"`
	Host   string `json:"host" doc:"It goes to this host and no other: lower case, with a port unless that is 443." minLength:"1" maxLength:"260"`
	Header string `json:"header,omitempty" doc:"Where it stands in a request: a header, with {{secret}} in the place of the value." maxLength:"256" default:"Authorization: Bearer {{secret}}"`
	Value  string `json:"value" doc:"The value: up to 4096 visible characters. It is shown to nobody again." minLength:"1" maxLength:"8192"`
}

func wrong(pointer, msg string) error {
	return &writ.Error{
		Code: writ.CodeInputInvalid, Op: "secrets.Put", Msg: "the arguments are not valid", Hint: "see errors; capability.get shows the schema",
		Fields: []writ.FieldError{{Pointer: pointer, Msg: msg}},
	}
}

// Conceal seals the value, bound to where it goes.
func (a *SecretPutArgs) Conceal(seal func(about, value string) (string, error)) error {
	header, template, ok := place(a.Header)
	switch {
	case !spelled(a.Host):
		return wrong("/host", "write the host in lower case, without scheme or path, with its port unless that is 443")
	case !ok:
		return wrong("/header", "write one header that is not about the connection, with {{secret}} once in its value")
	case !visible(a.Value) || len(a.Value) > MaxValue && writ.SealedUnder(a.Value) == "":
		return wrong("/value", "a value has 1 to 4096 visible ASCII characters")
	}
	sealed, err := seal(writ.SecretAbout(a.Name, a.Host, header, template), a.Value)
	a.Value = sealed
	return err
}

// Witnessed keeps the value out of the evidence, sealed or not.
func (a *SecretPutArgs) Witnessed() any {
	c := *a
	c.Value = "[sealed]"
	return &c
}

// SecretView is what is shown of a secret.
type SecretView struct {
	ID        writ.SecretID    `json:"secret_id" doc:"Its id, as receipts name it."`
	Name      string           `json:"name" doc:"What people call it."`
	Version   int64            `json:"secret_version" doc:"How often it was put."`
	Host      string           `json:"host" doc:"The host it goes to."`
	Header    string           `json:"header" doc:"Where it stands in a request."`
	KeyID     string           `json:"key_id" doc:"The key it is sealed under: of secrets.key among the gateway's keys."`
	SetBy     writ.PrincipalID `json:"set_by" doc:"Who put it."`
	CreatedAt string           `json:"created_at" doc:"When it was first put (RFC 3339, UTC)."`
	UpdatedAt string           `json:"updated_at" doc:"When it was last put (RFC 3339, UTC)."`
	Receipt   writ.ReceiptID   `json:"receipt" doc:"Receipt of that."`
}

func view(x writ.Secret) SecretView {
	return SecretView{
		ID: x.ID, Name: x.Name, Version: x.Version, Host: x.Host, Header: x.Header + ": " + x.Template, KeyID: writ.SealedUnder(x.Sealed), SetBy: x.SetBy,
		CreatedAt: writ.FormatTime(x.CreatedAt), UpdatedAt: writ.FormatTime(x.UpdatedAt), Receipt: x.Receipt,
	}
}

// first is a secret there is, if there is any: all are sealed under the same key.
var first = writ.Range{Index: writ.IndexSecrets, Limit: 1}

// newID is the id of a secret of a new name.
func newID(c *writ.Call) writ.SecretID { return writ.SecretID(c.NewID(writ.PrefixSecret, 0)) }

func put() *writ.Capability {
	const op = "secrets.Put"
	return writ.Define[SecretPutArgs, SecretView](writ.Capability{
		ID: "secret.put", Safety: writ.SafetyMutating, Summary: "Store a secret for one host, or a new version of it. Its value is shown to nobody.",
		Example: `{"name":"stripe","host":"api.stripe.com","value":"not a real key"}`,
	}, writ.Verb[SecretPutArgs]{
		Locks: func(_ *writ.Call, a *SecretPutArgs) []writ.Key { return []writ.Key{writ.SecretNameKey(a.Name)} },
		Reads: func(c *writ.Call, a *SecretPutArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.SecretReads(a.Name, s)
			rs.Docs = append(rs.Docs, writ.SecretKey(newID(c)))
			rs.Ranges = []writ.Range{first}
			for _, m := range s.Ranges[first].Members {
				rs.Docs = append(rs.Docs, writ.SecretKey(idIn(m.Name)))
			}
			return rs, nil
		},
		Plan: func(c *writ.Call, a *SecretPutArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			header, template, ok := place(a.Header)
			key := writ.SealedUnder(a.Value)
			if !ok || key == "" {
				return tx, r, wrong("/value", "it did not come through the door")
			}
			for _, m := range s.Ranges[first].Members {
				other, _, ok, err := writ.Get[writ.Secret](s, writ.SecretKey(idIn(m.Name)))
				if err != nil {
					return tx, r, err
				}
				if ok && writ.SealedUnder(other.Sealed) != key {
					return tx, r, writ.Refuse(writ.CodeUnavailable, op, "this replica has another secrets.key than the secrets there are were sealed under, so it stores none",
						"operators: give each replica the same secrets.key")
				}
			}
			name, _, known, err := writ.Get[writ.SecretName](s, writ.SecretNameKey(a.Name))
			if err != nil {
				return tx, r, err
			}
			x := writ.Secret{ID: newID(c), Name: a.Name, CreatedAt: s.Now}
			if known {
				if x, _, known, err = writ.Get[writ.Secret](s, writ.SecretKey(name.ID)); err != nil || !known {
					return tx, r, writ.Fault(writ.CodeInternal, op, err)
				}
			}
			from := x.State
			x.State, x.Version, x.Host, x.Header, x.Template, x.Sealed = writ.SecretStored, x.Version+1, a.Host, header, template, a.Value
			x.SetBy, x.UpdatedAt, x.Receipt = c.Caller.Principal, s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			tx.Move(writ.ObjectSecret, string(x.ID), string(from), string(x.State))
			r = writ.Reply{Outcome: writ.OutcomeDone, Body: view(x)}
			if !known {
				r.Outcome = writ.OutcomeCreated
				tx.Index(writ.IndexSecrets, member(x), 0)
				if err := tx.PutDoc(s, writ.SecretNameKey(a.Name), "secretname", writ.SecretName{ID: x.ID}); err != nil {
					return tx, r, err
				}
			}
			return tx, r, tx.PutDoc(s, writ.SecretKey(x.ID), writ.ObjectSecret, x)
		},
	})
}
