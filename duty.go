package writ

import "slices"

// Duties is what the host must do for a decision to hold, besides what people
// must agree to: the obligations of its findings, read once. A zero value asks
// for nothing. Findings are shared between calls, so nobody changes the lists.
type Duties struct {
	Redact        []Pointer  // what the reply does not show
	Limits        []Limit    // what arguments may be at most
	Durability    Durability // what the reply must mean; "" when nothing is asked
	BuiltOnLogged bool       // what the call builds on must be in the transparency log
	Cosign        bool       // the caller's own key must have signed the call
	// SignVerdict: a verdict counts only signed with the verifier's own key.
	SignVerdict bool
	// Jail: the call comes from a jail of this tier at least, or makes one; "" when nothing is asked.
	Jail   JailTier
	Notify []string // ids of the rules that want the call known
}

// Limit is the most an integer argument of a call may be. A greater one is made
// smaller, not refused.
type Limit struct {
	Argument string `json:"argument" doc:"Name of the argument."`
	Max      int64  `json:"max" doc:"What was used instead of more."`
}

// Durability says what a change has survived when it is answered.
type Durability string

// From the weakest to the strongest.
const (
	// DurabilityBuffered: the store has taken it, and a crash of the store's
	// machine can lose the last seconds.
	DurabilityBuffered Durability = "buffered"
	// DurabilityCommitted: it is on disk.
	DurabilityCommitted Durability = "committed"
	// DurabilityLogged: its receipt is in the transparency log.
	DurabilityLogged Durability = "logged"
)

// Durabilities lists them, the weakest first.
func Durabilities() []Durability {
	return []Durability{DurabilityBuffered, DurabilityCommitted, DurabilityLogged}
}

// rank orders durabilities; an unknown one ranks above all, so nothing hides it.
func (d Durability) rank() int {
	return rankIn(Durabilities(), d)
}

// rankIn is the place of a value in a list, -1 for the empty one, and behind all for one that is not in it.
func rankIn[T ~string](list []T, v T) int {
	if v == "" {
		return -1
	}
	if i := slices.Index(list, v); i >= 0 {
		return i
	}
	return len(list)
}

// Join adds what others ask for: all of it must be done, so of two limits the
// smaller and of two durabilities the stronger counts.
func (d *Duties) Join(x Duties) {
	for _, p := range x.Redact {
		if !slices.ContainsFunc(d.Redact, func(q Pointer) bool { return q.Text == p.Text }) {
			d.Redact = append(d.Redact, p)
		}
	}
	for _, l := range x.Limits {
		if i := slices.IndexFunc(d.Limits, func(m Limit) bool { return m.Argument == l.Argument }); i < 0 {
			d.Limits = append(d.Limits, l)
		} else if l.Max < d.Limits[i].Max {
			d.Limits[i].Max = l.Max
		}
	}
	if x.Durability.rank() > d.Durability.rank() {
		d.Durability = x.Durability
	}
	d.Cosign = d.Cosign || x.Cosign
	d.BuiltOnLogged = d.BuiltOnLogged || x.BuiltOnLogged
	d.SignVerdict = d.SignVerdict || x.SignVerdict
	d.Jail = d.Jail.Stronger(x.Jail)
	d.Notify = append(d.Notify, x.Notify...)
}
