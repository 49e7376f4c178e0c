package writ

import (
	"slices"
	"strconv"
)

// EgressID names a grant to act outside: a slug, since agents write it into paths.
type EgressID string

// Valid says whether the id is a slug.
func (id EgressID) Valid() bool { return ValidSlug(string(id)) }

// EgressMode is the way in which a grant is used.
type EgressMode string

const (
	// EgressRequest: the gateway makes requests for the agent, and sees all of them.
	EgressRequest EgressMode = "request"
	// EgressTunnel: the agent speaks TLS with the host itself. The gateway sees where
	// it goes, how much and how long, and nothing else.
	EgressTunnel EgressMode = "tunnel"
)

// EgressState is where a grant stands. One whose time is over is active and useless.
type EgressState string

const (
	EgressActive  EgressState = "active"  // by egress.grant; again when it is changed
	EgressRevoked EgressState = "revoked" // by egress.revoke
)

// EgressMoves are the legal moves of a grant. What was revoked can be granted anew.
var EgressMoves = Table[EgressState]{
	"":            {EgressActive},
	EgressActive:  {EgressActive, EgressRevoked},
	EgressRevoked: {EgressActive},
}

// EgressGrant lets agents reach a host. People give it.
type EgressGrant struct {
	ID         EgressID    `json:"id"`
	State      EgressState `json:"state"`
	Host       string      `json:"host"` // in its one spelling
	Port       int64       `json:"port"`
	Scheme     string      `json:"scheme"` // https or http
	Mode       EgressMode  `json:"mode"`
	Methods    []string    `json:"methods,omitempty"` // none for a tunnel
	PathPrefix string      `json:"path_prefix,omitempty"`
	Agents     []AgentID   `json:"agents"`           // who may use it
	Run        RunID       `json:"run_id,omitempty"` // in which run; "": any
	UpBytes    int64       `json:"up_bytes"`         // of one exchange
	DownBytes  int64       `json:"down_bytes"`
	Conns      int64       `json:"conns"` // exchanges at a time, on one replica
	Rate       int64       `json:"rps"`   // exchanges that begin in one second
	TimeMs     int64       `json:"time_ms"`
	ExpiresAt  int64       `json:"expires_at"`         // milliseconds
	Admits     []Label     `json:"classification_max"` // data may carry these labels and no others
	Private    []string    `json:"private,omitempty"`  // networks the host may lie in although they are no internet
	Credential string      `json:"credential_ref,omitempty"`
	GrantedBy  PrincipalID `json:"granted_by"`
	CreatedAt  int64       `json:"created_at"`
	UpdatedAt  int64       `json:"updated_at"`
	Receipt    ReceiptID   `json:"receipt"`
}

// Copy returns a grant that shares no memory with g.
func (g EgressGrant) Copy() EgressGrant {
	g.Methods, g.Agents, g.Admits, g.Private = slices.Clone(g.Methods), slices.Clone(g.Agents), slices.Clone(g.Admits), slices.Clone(g.Private)
	return g
}

// Live says whether the grant can be used at a time.
func (g EgressGrant) Live(now int64) bool { return g.State == EgressActive && now < g.ExpiresAt }

// EgressGrantKey is the document of a grant.
func EgressGrantKey(id EgressID) Key { return Key(ObjectEgress + "/" + string(id)) }

// IndexEgress lists grants that are not revoked by id, IndexEgressHosts by the host they
// are for: see EgressHost.
const (
	IndexEgress      Index = "list/egress"
	IndexEgressHosts Index = "list/egresshosts"
)

// EgressHost is the member of IndexEgressHosts for a grant.
func EgressHost(host string, port int64, id EgressID) string {
	return host + ":" + strconv.FormatInt(port, 10) + " " + string(id)
}

// EgressSecond and EgressBegun count the exchanges that begin under a grant in one
// second of the store's clock: which one it is, and how many began in it.
func EgressSecond(id EgressID) Counter { return Counter{ObjectEgress + "/" + string(id), "second"} }
func EgressBegun(id EgressID) Counter  { return Counter{ObjectEgress + "/" + string(id), "begun"} }

// EgressErrand is what the plan of an exchange permits, for who carries it out.
type EgressErrand struct {
	Grant    EgressGrant
	Version  int64 // of its document
	Method   string
	Path     string // escaped; "" for a tunnel
	Query    string
	Up, Down int64 // bytes that were set aside
}
