package writ

import "slices"

// MaxQuorum is how many verdicts a task or a run can ask for.
const MaxQuorum = 5

// BallotState is where the verdicts on something stand that wants several.
type BallotState string

const (
	// BallotOpen: by the first verdict that accepts; more are needed.
	BallotOpen BallotState = "open"
	// BallotCarried: by the last one that was needed. Terminal.
	BallotCarried BallotState = "carried"
	// BallotVoid: somebody rejected, so none of them counts any more.
	BallotVoid BallotState = "void"
)

// BallotMoves are the legal moves of a ballot. open → open is one verdict more.
var BallotMoves = Table[BallotState]{
	"":            {BallotOpen},
	BallotOpen:    {BallotOpen, BallotCarried, BallotVoid},
	BallotVoid:    {BallotOpen},
	BallotCarried: {},
}

// Ballot holds the verdicts that accept a task or a run until there are as many as it
// wants. It stands beside what is judged, which does not move meanwhile: all of
// them are about one receipt.
type Ballot struct {
	ID        string       `json:"id"` // of the task or run
	State     BallotState  `json:"state"`
	About     ReceiptID    `json:"about"` // the last change of what is judged; a verdict on another does not count
	Votes     []Acceptance `json:"votes"`
	UpdatedAt int64        `json:"updated_at"`
	Receipt   ReceiptID    `json:"receipt"`
}

// Acceptance is one verdict that accepts, with who gave it: under every name by which one
// would be told from another, as they were then.
type Acceptance struct {
	Receipt    ReceiptID     `json:"receipt_id"`
	Session    SessionID     `json:"session"`
	Principal  PrincipalID   `json:"principal"`
	Controller PrincipalID   `json:"controller,omitempty"`
	Openers    []PrincipalID `json:"openers,omitempty"`
	Agent      AgentID       `json:"agent,omitempty"`
	Keys       []string      `json:"keys,omitempty"`      // ids of those its agent signs with
	SignedBy   string        `json:"signed_by,omitempty"` // the one that signed the verdict
}

// BallotKey is where the verdicts on a task or a run are.
func BallotKey[ID ~string](id ID) Key { return Key(ObjectBallot + "/" + string(id)) }

// caller is who gave a vote, as far as it matters to whether they had a part.
func (v Acceptance) caller() (Caller, []PublicKey) {
	var keys []PublicKey
	for _, id := range v.Keys {
		keys = append(keys, PublicKey{ID: id})
	}
	return Caller{Session: v.Session, Principal: v.Principal, Controller: v.Controller, Openers: v.Openers, Agent: v.Agent}, keys
}

// ballotOn is the ballot on a receipt, as far as read; the zero value when there is
// none, or only one on what there was before.
func ballotOn(s Snapshot, id string, about ReceiptID) (Ballot, error) {
	if !s.Has(BallotKey(id)) {
		return Ballot{}, nil
	}
	b, _, ok, err := Get[Ballot](s, BallotKey(id))
	if err != nil || !ok || b.State != BallotOpen || b.About != about {
		return Ballot{}, err
	}
	return b, nil
}

// BallotReads names what Vote must see of the verdicts given before on a receipt, as
// far as s shows who gave them: whether they still stand for it.
func BallotReads(s Snapshot, id string, about ReceiptID, tree RunID) (ReadSet, error) {
	rs := ReadSet{Docs: []Key{BallotKey(id)}}
	b, err := ballotOn(s, id, about)
	for _, v := range b.Votes {
		c, keys, kerr := v.now(s)
		if err == nil {
			err = kerr
		}
		rs.Ranges = append(rs.Ranges, DutyReads(tree, c, keys)...)
		rs.Docs = append(rs.Docs, SessionKey(v.Session))
		if v.Agent != "" {
			rs.Docs = append(rs.Docs, AgentKey(v.Agent))
		}
	}
	return rs, err
}

// now is who gave a vote, with the keys its agent had then and, as far as read, has
// got since: who signs with a key of somebody who had a part is no other, whenever.
func (v Acceptance) now(s Snapshot) (Caller, []PublicKey, error) {
	c, keys := v.caller()
	if v.Agent == "" || !s.Has(AgentKey(v.Agent)) {
		return c, keys, nil
	}
	a, _, _, err := Get[Agent](s, AgentKey(v.Agent))
	for _, k := range a.Keys {
		if !slices.ContainsFunc(keys, func(o PublicKey) bool { return o.ID == k.ID }) {
			keys = append(keys, k)
		}
	}
	return c, keys, err
}

// stands says whether a vote still counts: its session was not revoked, who gave it has
// taken no part since, and its agent is active, still has the key that signed, and has
// got none if none did.
func (v Acceptance) stands(s Snapshot, tree RunID) (bool, error) {
	c, keys, err := v.now(s)
	if err != nil || !DutyIn(s, tree, c, keys).Independent() {
		return false, err
	}
	ses, _, ok, err := Get[Session](s, SessionKey(v.Session))
	if err != nil || ok && ses.State == SessionRevoked {
		return false, err
	}
	if v.Agent == "" {
		return true, nil
	}
	a, _, ok, err := Get[Agent](s, AgentKey(v.Agent))
	if err != nil || !ok || a.State != AgentActive {
		return false, err
	}
	_, has := a.Key(v.SignedBy)
	return has || v.SignedBy == "" && len(a.Keys) == 0, nil
}

// Judgement is a verdict on what may want several.
type Judgement struct {
	ID     string    // of the task or run
	About  ReceiptID // its last change
	Tree   RunID
	Quorum int64
	Accept bool
	Keys   []PublicKey // that the caller's agent signs with
}

// Vote counts a verdict. The state of what is judged moves with the last verdict that
// is needed, or with the first that rejects; until then the ballot is all that changes,
// and pending says how far it has come. Nobody votes twice on the same, nor do two who are not
// somebody else from one another by session, principal, agent, key, controller and
// opener; either way round, whoever comes first. It wants BallotReads, and comes after
// Vouch; the caller names its own move before the ballot's (BallotLast).
func (t *Tx) Vote(op string, s Snapshot, c *Call, j Judgement) (pending *Votes, err error) {
	if j.Quorum <= 1 {
		return nil, nil
	}
	b, err := ballotOn(s, j.ID, j.About)
	if err != nil {
		return nil, err
	}
	for _, v := range b.Votes {
		if before, keys := v.caller(); c.Caller.same(j.Keys, before, keys) {
			return nil, Refuse(CodeSoD, op, "whoever is behind this verdict has given one on the same already", "another verifier must judge it: another agent, with keys and a controller of its own").
				With("reason", "voted")
		}
	}
	if !j.Accept {
		if b.State == "" {
			return nil, nil
		}
		b.Votes = nil
		return nil, t.putBallot(s, c, b, BallotVoid)
	}
	var standing []Acceptance
	for _, v := range b.Votes {
		is, err := v.stands(s, j.Tree)
		if err != nil {
			return nil, err
		}
		if is {
			standing = append(standing, v)
		}
	}
	b.ID, b.About = j.ID, j.About
	b.Votes = append(standing, newAcceptance(c, j.Keys, t.Verdict))
	if int64(len(b.Votes)) < j.Quorum {
		t.Cause(j.About) // the receipt names what was judged, as that of the last does
		return b.shown(j.Quorum), t.putBallot(s, c, b, BallotOpen)
	}
	for _, v := range standing {
		before, keys, err := v.now(s)
		if err != nil {
			return nil, err
		}
		t.ExpectNoPart(j.Tree, before, keys)
		t.Cause(v.Receipt)
	}
	return nil, t.putBallot(s, c, b, BallotCarried)
}

// BallotLast puts the move of a ballot behind that of what was judged.
func (t *Tx) BallotLast() {
	slices.SortStableFunc(t.Changes, func(a, b Change) int {
		last := func(c Change) int {
			if c.Kind == ObjectBallot {
				return 1
			}
			return 0
		}
		return last(a) - last(b)
	})
}

func newAcceptance(c *Call, keys []PublicKey, signed *SignedVerdict) Acceptance {
	v := Acceptance{
		Receipt: ReceiptID(c.NewID(PrefixReceipt, 0)), Session: c.Caller.Session, Principal: c.Caller.Principal,
		Controller: c.Caller.Controller, Openers: c.Caller.Openers, Agent: c.Caller.Agent,
	}
	for _, k := range keys {
		v.Keys = append(v.Keys, k.ID)
	}
	if signed != nil {
		v.SignedBy = signed.Key.ID
	}
	return v
}

// putBallot writes a ballot. What is there may be one on a receipt of before.
func (t *Tx) putBallot(s Snapshot, c *Call, b Ballot, to BallotState) error {
	old, _, _, err := Get[Ballot](s, BallotKey(b.ID))
	if err != nil {
		return err
	}
	b.State, b.UpdatedAt, b.Receipt = to, s.Now, ReceiptID(c.NewID(PrefixReceipt, 0))
	t.Move(ObjectBallot, b.ID, string(old.State), string(to))
	return t.PutDoc(s, BallotKey(b.ID), ObjectBallot, b)
}

// same says whether two callers are not somebody else from one another: whether either
// could not judge what the other did.
func (c Caller) same(keys []PublicKey, o Caller, others []PublicKey) bool {
	return meets(judging(c, keys), acting(o, others)) || meets(judging(o, others), acting(c, keys))
}

// meets says whether two lists of identities have one in common.
func meets(a, b []string) bool {
	return slices.ContainsFunc(a, func(identity string) bool { return slices.Contains(b, identity) })
}

// Votes is how far the verdicts have come on what wants several.
type Votes struct {
	Needed   int64       `json:"needed" doc:"How many verdicts must accept."`
	Accepted int64       `json:"accepted" doc:"How many have."`
	Receipts []ReceiptID `json:"receipts,omitempty" doc:"Their receipts."`
}

func (b Ballot) shown(quorum int64) *Votes {
	out := &Votes{Needed: quorum, Accepted: int64(len(b.Votes))}
	for _, v := range b.Votes {
		out.Receipts = append(out.Receipts, v.Receipt)
	}
	return out
}

// VotesOn shows the verdicts given on a receipt, as far as read; nil where one is
// enough.
func VotesOn(s Snapshot, id string, about ReceiptID, quorum int64) (*Votes, error) {
	if quorum <= 1 {
		return nil, nil
	}
	b, err := ballotOn(s, id, about)
	return b.shown(quorum), err
}
