package grants

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/target"
)

// EgressGrantArgs say who may reach what.
type EgressGrantArgs struct {
	ID         writ.EgressID   `json:"grant_id" doc:"Slug that names it. Agents write it into paths: /egress/<grant_id>/…" pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Host       string          `json:"host" doc:"Host it is for: a lower-case name, or an address." minLength:"1" maxLength:"253"`
	Port       int64           `json:"port,omitempty" doc:"Port. Default: that of the scheme." minimum:"1" maximum:"65535"`
	Scheme     string          `json:"scheme,omitempty" doc:"https; http is for hosts in private networks, unless policy says more." enum:"https,http" default:"https"`
	Mode       writ.EgressMode `json:"mode,omitempty" doc:"request: the gateway makes the requests. tunnel: the agent speaks TLS with the host itself, and nobody sees what; policy forbids it unless it names the grant." enum:"request,tunnel" default:"request"`
	Methods    []string        `json:"methods,omitempty" doc:"Methods. Default: GET and HEAD. None for a tunnel." enum:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS" maxItems:"7" uniqueItems:"true"`
	PathPrefix string          `json:"path_prefix,omitempty" doc:"Path it is for, and what lies below. Default: every path. None for a tunnel." maxLength:"1024"`
	Agents     []writ.AgentID  `json:"agents" doc:"Who may use it." minItems:"1" maxItems:"16" uniqueItems:"true" pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Run        writ.RunID      `json:"run_id,omitempty" doc:"Run in which it may be used. Default: any." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	UpBytes    int64           `json:"up_bytes,omitempty" doc:"Bytes one exchange may send, heads included. Default: 1 MiB." minimum:"1" maximum:"1099511627776"`
	DownBytes  int64           `json:"down_bytes,omitempty" doc:"Bytes one exchange may receive, heads included. Default: 16 MiB." minimum:"1" maximum:"1099511627776"`
	Conns      int64           `json:"conns,omitempty" doc:"Exchanges at a time, on each replica." default:"4" minimum:"1" maximum:"256"`
	Rate       int64           `json:"rps,omitempty" doc:"Exchanges that may begin in one second." default:"10" minimum:"1" maximum:"1000"`
	TimeS      int64           `json:"time_s,omitempty" doc:"Seconds one exchange may take." default:"60" minimum:"1" maximum:"3600"`
	ExpiresInS int64           `json:"expires_in_s,omitempty" doc:"Seconds until it is over. Default: a day." default:"86400" minimum:"1" maximum:"7776000"`
	Admits     []writ.Label    `json:"classification_max,omitempty" doc:"Labels data that leaves may carry; any other is refused. Default: public and internal.system." enum:"public,internal.system,pii.chat.message,pii.chat.metadata,pii.attachment,pii.redacted,external.untrusted" maxItems:"7" uniqueItems:"true"`
	Private    []string        `json:"private,omitempty" doc:"Networks the host may lie in although they are not the internet, for example 10.1.0.0/16. Default: none." maxItems:"4" uniqueItems:"true"`
	Credential string          `json:"credential_ref,omitempty" doc:"Secret the gateway puts into the requests. It must be pinned to this host." maxLength:"63"`
}

// Defaults of a grant.
const (
	defaultUp   = 1 << 20
	defaultDown = 16 << 20
)

// EgressGrantView is a grant as shown.
type EgressGrantView struct {
	ID         writ.EgressID    `json:"grant_id" doc:"Slug that names it."`
	State      writ.EgressState `json:"state" doc:"Where it stands." enum:"active,revoked"`
	Host       string           `json:"host" doc:"Host it is for."`
	Port       int64            `json:"port" doc:"Port."`
	Scheme     string           `json:"scheme" doc:"How the host is spoken to." enum:"https,http"`
	Mode       writ.EgressMode  `json:"mode" doc:"In which way it is used." enum:"request,tunnel"`
	Methods    []string         `json:"methods" doc:"Methods."`
	PathPrefix string           `json:"path_prefix,omitempty" doc:"Path it is for, and what lies below; absent: every path."`
	Agents     []writ.AgentID   `json:"agents" doc:"Who may use it."`
	Run        writ.RunID       `json:"run_id,omitempty" doc:"Run in which it may be used; absent: any."`
	UpBytes    int64            `json:"up_bytes" doc:"Bytes one exchange may send."`
	DownBytes  int64            `json:"down_bytes" doc:"Bytes one exchange may receive."`
	Conns      int64            `json:"conns" doc:"Exchanges at a time, on each replica."`
	Rate       int64            `json:"rps" doc:"Exchanges that may begin in one second."`
	TimeS      int64            `json:"time_s" doc:"Seconds one exchange may take."`
	Expires    string           `json:"expires_at" doc:"When it is over (RFC 3339, UTC)."`
	Admits     []writ.Label     `json:"classification_max" doc:"Labels data that leaves may carry."`
	Private    []string         `json:"private,omitempty" doc:"Networks the host may lie in although they are not the internet."`
	Credential string           `json:"credential_ref,omitempty" doc:"Secret the gateway puts into the requests."`
	GrantedBy  writ.PrincipalID `json:"granted_by" doc:"Who gave it, or changed it last."`
	Created    string           `json:"created_at" doc:"When it was given first (RFC 3339, UTC)."`
	Updated    string           `json:"updated_at" doc:"When it was last changed (RFC 3339, UTC)."`
	Receipt    writ.ReceiptID   `json:"receipt" doc:"Receipt of its last change."`
	Version    int64            `json:"version" doc:"Its version, for If-Match."`
}

func viewOf(g writ.EgressGrant, version int64) EgressGrantView {
	v := EgressGrantView{
		ID: g.ID, State: g.State, Host: g.Host, Port: g.Port, Scheme: g.Scheme, Mode: g.Mode, Methods: g.Methods, PathPrefix: g.PathPrefix, Agents: g.Agents, Run: g.Run,
		UpBytes: g.UpBytes, DownBytes: g.DownBytes, Conns: g.Conns, Rate: g.Rate, TimeS: g.TimeMs / 1000, Expires: writ.FormatTime(g.ExpiresAt), Admits: g.Admits, Private: g.Private,
		Credential: g.Credential, GrantedBy: g.GrantedBy, Created: writ.FormatTime(g.CreatedAt), Updated: writ.FormatTime(g.UpdatedAt), Receipt: g.Receipt, Version: version,
	}
	if v.Methods == nil {
		v.Methods = []string{}
	}
	return v
}

const opGrant = "grants.Grant"

func grant() *writ.Capability {
	return writ.Define[EgressGrantArgs, EgressGrantView](writ.Capability{
		ID: "egress.grant", Safety: writ.SafetyMutating, Summary: "Let agents reach a host outside, or change how they may.",
		Example: `{"grant_id":"github-api","host":"api.github.com","path_prefix":"/repos","agents":["site-builder"]}`,
	}, writ.Verb[EgressGrantArgs]{
		Locks: func(_ *writ.Call, a *EgressGrantArgs) []writ.Key { return []writ.Key{writ.EgressGrantKey(a.ID)} },
		Reads: func(_ *writ.Call, a *EgressGrantArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Docs: []writ.Key{writ.EgressGrantKey(a.ID)}}
			if a.Run != "" {
				rs.Docs = append(rs.Docs, writ.RunKey(a.Run))
			}
			for _, id := range a.Agents {
				rs.Docs = append(rs.Docs, writ.AgentKey(id))
			}
			return rs, nil
		},
		Plan: func(c *writ.Call, a *EgressGrantArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			if err := byPeople(opGrant, c); err != nil {
				return tx, reply, err
			}
			g, err := a.make(s.Now)
			if err != nil {
				return tx, reply, err
			}
			if err := known(s, g); err != nil {
				return tx, reply, err
			}
			key := writ.EgressGrantKey(a.ID)
			old, version, ok, err := writ.Get[writ.EgressGrant](s, key)
			if err != nil {
				return tx, reply, err
			}
			if err := c.Match(opGrant, version); err != nil {
				return tx, reply, err
			}
			g.CreatedAt, reply.Outcome = s.Now, writ.OutcomeCreated
			if ok && old.State == writ.EgressActive {
				g.CreatedAt, reply.Outcome = old.CreatedAt, writ.OutcomeDone
				if h := writ.EgressHost(old.Host, old.Port, old.ID); h != writ.EgressHost(g.Host, g.Port, g.ID) {
					tx.Unindex(writ.IndexEgressHosts, h)
				}
			}
			g.GrantedBy, g.UpdatedAt, g.Receipt = c.Caller.Principal, s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			tx.Index(writ.IndexEgress, string(g.ID), 0)
			tx.Index(writ.IndexEgressHosts, writ.EgressHost(g.Host, g.Port, g.ID), 0)
			tx.Move(writ.ObjectEgress, string(g.ID), string(old.State), string(g.State))
			reply.Body, reply.Versioned, reply.ETag = viewOf(g, 0), []string{"version"}, -1
			return tx, reply, tx.PutDoc(s, key, writ.ObjectEgress, g)
		},
	})
}

// byPeople refuses a call that an agent stands behind: nobody lets itself out.
func byPeople(op string, c *writ.Call) error {
	if c.Caller.Kind == writ.KindAgent || len(c.Caller.Agents()) > 0 {
		return writ.Refuse(writ.CodeSoD, op, "agents do not decide where agents may go", "have a person do it, with a session that no agent opened")
	}
	return nil
}

// make holds a grant to its form. It repeats the schema: what is written here decides
// where agents get to.
func (a *EgressGrantArgs) make(now int64) (writ.EgressGrant, error) {
	g := writ.EgressGrant{
		ID: a.ID, State: writ.EgressActive, Host: a.Host, Port: a.Port, Scheme: cmp.Or(a.Scheme, "https"), Mode: cmp.Or(a.Mode, writ.EgressRequest), Methods: a.Methods, PathPrefix: a.PathPrefix,
		Agents: a.Agents, Run: a.Run, UpBytes: cmp.Or(a.UpBytes, defaultUp), DownBytes: cmp.Or(a.DownBytes, defaultDown), Conns: cmp.Or(a.Conns, 4), Rate: cmp.Or(a.Rate, 10),
		TimeMs: cmp.Or(a.TimeS, 60) * 1000, ExpiresAt: now + cmp.Or(a.ExpiresInS, 86400)*1000, Admits: a.Admits, Private: a.Private, Credential: a.Credential,
	}
	var wrong []writ.FieldError
	bad := func(pointer, msg string) { wrong = append(wrong, writ.FieldError{Pointer: pointer, Msg: msg}) }
	if g.Port == 0 {
		g.Port = map[string]int64{"http": 80, "https": 443}[g.Scheme]
	}
	to, err := target.New(g.Host, g.Port)
	if err != nil {
		bad("/host", "must be a lower-case name without a dot at the end, or an address as it is usually written")
	}
	switch g.Mode {
	case writ.EgressRequest:
		if len(g.Methods) == 0 {
			g.Methods = []string{"GET", "HEAD"}
		}
		if g.PathPrefix != "" && !target.ValidPath(g.PathPrefix) {
			bad("/path_prefix", "must begin with a slash, without empty parts, dots and needless escapes")
		}
	case writ.EgressTunnel:
		if len(g.Methods) > 0 || g.PathPrefix != "" || g.Credential != "" || g.Scheme != "https" {
			bad("/mode", "nobody sees methods and paths of a tunnel, nothing is put into it, and it is for TLS")
		}
		if _, literal := to.Addr(); literal {
			bad("/host", "a tunnel goes to a host by its name: TLS names no addresses")
		}
	default:
		bad("/mode", "is request or tunnel")
	}
	if g.Admits == nil {
		g.Admits = []writ.Label{writ.LabelPublic, writ.LabelInternalSystem}
	}
	for _, l := range g.Admits {
		if !slices.Contains(writ.Labels(), l) || l == writ.LabelSecretCredential || l == writ.LabelSecretToken {
			bad("/classification_max", "names a label there is not, or one that never leaves")
		}
	}
	for _, p := range g.Private {
		if n, err := netip.ParsePrefix(p); err != nil || n != n.Masked() || n.String() != p || !grantable(n) {
			bad("/private", "wants private networks such as 10.1.0.0/16 or 127.0.0.1/32, and never those where machines are told their secrets")
		}
	}
	if g.Credential != "" && !writ.ValidSlug(g.Credential) {
		bad("/credential_ref", "must be the name of a secret")
	}
	if len(wrong) > 0 {
		return g, &writ.Error{Code: writ.CodeInputInvalid, Op: opGrant, Fields: wrong, Msg: "this cannot be a grant", Hint: "correct every field named in errors"}
	}
	return g, nil
}

// private are the networks that can be granted although they are not the internet.
// Link-local addresses are none of them: there machines are told who they are.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fc00::/7"),
}

func grantable(n netip.Prefix) bool {
	return slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Bits() <= n.Bits() && p.Contains(n.Addr()) })
}

// known refuses a grant for whom, or in what, there is not.
func known(s writ.Snapshot, g writ.EgressGrant) error {
	for _, id := range g.Agents {
		a, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
		if err != nil {
			return err
		}
		if !ok || writ.AgentMoves.Terminal(a.State) {
			return writ.Refuse(writ.CodeNotFound, opGrant, "there is no such agent", "register it first; agent.list shows all").With("kind", writ.ObjectAgent)
		}
	}
	if g.Run == "" {
		return nil
	}
	r, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(g.Run))
	if err == nil && (!ok || writ.RunMoves.Terminal(r.State)) {
		err = writ.Refuse(writ.CodeNotFound, opGrant, "there is no such run, or it has ended", "run.list shows all").With("kind", writ.ObjectRun)
	}
	return err
}
