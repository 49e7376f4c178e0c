package writ

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
)

// Class says which rules of the door apply to a capability.
type Class string

const (
	// Ordinary calls are judged and may be denied.
	Ordinary Class = "ordinary"
	// Mandate calls carry out what is already decided (expiry, cleanup): judged
	// and recorded, not deniable, and they run when policy is unavailable.
	Mandate Class = "mandate"
	// Effectful calls act outside the store. They are judged like ordinary ones. What is
	// committed first is the intent, then it is carried out, then the outcome is committed.
	Effectful Class = "effect"
)

// Capability is one governed verb: a value a room hands to the door. Its
// functions are pure.
type Capability struct {
	ID       CapabilityID
	Version  string
	Summary  string // one sentence
	Example  string // arguments somebody could call it with, in JSON; whatever callers may call has them
	Safety   Safety
	Effects  []string // what it does outside the store; of class effect only, and those say it
	Class    Class
	Internal bool  // only the gateway itself may call it; hidden from every listing
	Steps    int64 // what a call costs its run when those who work in it make it (Role.Works)
	// Bytes says that an accepted call is answered with bytes, of which no part can be
	// hidden: where policy wants any part of the reply hidden the call is refused.
	Bytes bool
	// Large says that its arguments may be as large as a workflow.
	Large bool
	// Durability is what a reply means where there is a transparency log, whatever policy
	// says; "" leaves it to policy.
	Durability Durability
	// JudgedAs is the capability policy judges a call as: what it does is that one
	// with less said by the caller, so that no rule about the one can be passed by
	// calling the other. Roles are granted, and receipts written, by ID. "": ID.
	JudgedAs CapabilityID
	// Idempotent says of an effect that it may be attempted again, with the same key for
	// the outside, where nobody knows whether it has happened. Others wait for a person.
	Idempotent bool
	// Jails says that it makes a jail: the tier policy obliges to is that jail's, and not
	// one the caller has to be in.
	Jails bool
	// Hops is how many reads a mandate may ask for that follows a chain; 0: four.
	Hops   int
	Args   reflect.Type
	Result reflect.Type

	// Locks names documents the call will write, known from its arguments, so
	// that callers of one replica queue instead of conflicting. Optional.
	Locks func(*Call) []Key
	// Reads names what else must be read, given what has been. The door calls
	// it until it asks for nothing new, at most four times, or Hops times.
	Reads func(*Call, Snapshot) (ReadSet, error)
	// Describe tells policy what the call is about.
	Describe func(*Call, Snapshot) (Subject, error)
	// Plan turns what was read and decided into a transaction and a reply, or
	// refuses with an *Error. The door adds guards for everything read. The plan of an
	// effect gives the door its errand in the reply (Reply.Errand).
	Plan func(*Call, Snapshot, Decision) (Tx, Reply, error)
}

// Judged is the capability policy judges a call as.
func (c *Capability) Judged() CapabilityID {
	if c.JudgedAs != "" {
		return c.JudgedAs
	}
	return c.ID
}

// ReadOnly says whether the capability never commits.
func (c *Capability) ReadOnly() bool { return c.Safety == SafetyReadOnly }

// Verb holds the functions of a capability with argument type A.
type Verb[A any] struct {
	Locks    func(*Call, *A) []Key
	Reads    func(*Call, *A, Snapshot) (ReadSet, error)
	Describe func(*Call, *A, Snapshot) (Subject, error)
	Plan     func(*Call, *A, Snapshot, Decision) (Tx, Reply, error)
}

// Define makes a Capability from a description and typed functions. A is the
// argument struct, R the type of the reply's body.
func Define[A, R any](c Capability, v Verb[A]) *Capability {
	c.Args, c.Result = reflect.TypeFor[A](), reflect.TypeFor[R]()
	if c.Class == "" {
		c.Class = Ordinary
	}
	if c.Version == "" {
		c.Version = "1"
	}
	args := func(call *Call) *A { return call.Args.(*A) }
	if v.Locks != nil {
		c.Locks = func(call *Call) []Key { return v.Locks(call, args(call)) }
	}
	c.Reads = func(call *Call, s Snapshot) (ReadSet, error) {
		if v.Reads == nil {
			return ReadSet{}, nil
		}
		return v.Reads(call, args(call), s)
	}
	c.Describe = func(call *Call, s Snapshot) (Subject, error) {
		if v.Describe == nil {
			return Subject{}, nil
		}
		return v.Describe(call, args(call), s)
	}
	c.Plan = func(call *Call, s Snapshot, d Decision) (Tx, Reply, error) { return v.Plan(call, args(call), s, d) }
	return &c
}

// Registry is the fixed set of built-in capabilities.
type Registry struct {
	byID map[CapabilityID]*Capability
	ids  []CapabilityID
}

// NewRegistry checks and collects capabilities. It refuses duplicates, ids
// outside the pattern, unknown safety, and effects that are none of class effect.
func NewRegistry(caps ...*Capability) (*Registry, error) {
	r := &Registry{byID: map[CapabilityID]*Capability{}}
	for _, c := range caps {
		switch {
		case !c.ID.Valid():
			return nil, fmt.Errorf("capability id %q is not valid", c.ID)
		case r.byID[c.ID] != nil:
			return nil, fmt.Errorf("capability %s is defined twice", c.ID)
		case (len(c.Effects) > 0) != (c.Class == Effectful):
			return nil, fmt.Errorf("capability %s: those of class effect say what effects they have, and no others have any", c.ID)
		case slices.ContainsFunc(c.Effects, func(e string) bool { return !ValidSlug(e) }):
			return nil, fmt.Errorf("capability %s declares effects without a name", c.ID)
		case c.Class == Effectful && (c.ReadOnly() || c.Internal || c.JudgedAs != ""):
			return nil, fmt.Errorf("capability %s acts outside: it is neither read-only nor internal, and judged as itself", c.ID)
		case c.Idempotent && c.Class != Effectful:
			return nil, fmt.Errorf("capability %s is idempotent and has no effects", c.ID)
		case c.Summary == "":
			return nil, fmt.Errorf("capability %s has no summary", c.ID)
		case c.Safety != SafetyReadOnly && c.Safety != SafetyMutating && c.Safety != SafetyDestructive:
			return nil, fmt.Errorf("capability %s has unknown safety %q", c.ID, c.Safety)
		case c.Class != Ordinary && c.Class != Mandate && c.Class != Effectful:
			return nil, fmt.Errorf("capability %s has unknown class %q", c.ID, c.Class)
		case c.Plan == nil:
			return nil, fmt.Errorf("capability %s has no plan", c.ID)
		case c.Class == Mandate && !c.Internal:
			return nil, fmt.Errorf("capability %s is a mandate and must be internal", c.ID)
		case c.Hops != 0 && c.Class != Mandate:
			return nil, fmt.Errorf("capability %s asks for more reads than a call may make", c.ID)
		}
		r.byID[c.ID] = c
		r.ids = append(r.ids, c.ID)
	}
	for _, c := range r.byID {
		if as := r.byID[c.Judged()]; as == nil || as.Judged() != as.ID || as.Safety != c.Safety || as.Class != c.Class {
			return nil, fmt.Errorf("capability %s is judged as %s, which is not of its kind", c.ID, c.JudgedAs)
		}
	}
	sort.Slice(r.ids, func(i, j int) bool { return r.ids[i] < r.ids[j] })
	return r, nil
}

// Get finds a capability; nil when there is none.
func (r *Registry) Get(id CapabilityID) *Capability { return r.byID[id] }

// All lists the capabilities by id.
func (r *Registry) All() []*Capability {
	out := make([]*Capability, 0, len(r.ids))
	for _, id := range r.ids {
		out = append(out, r.byID[id])
	}
	return out
}
