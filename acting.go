package writ

import (
	"context"
	"io"
	"slices"
	"sync"
)

// Acting is one attempt at an effect, as who carries it out is given it. Its intent is
// committed, and its receipt says so.
type Acting struct {
	Effect  EffectID // also the idempotency key for the outside: each attempt has the same
	Attempt int64    // from 1
	Intent  ReceiptID
	Call    *Call // as it was judged; it must not be changed
	Detail  any   // Errand.Detail of the plan
	Secrets []SecretUse
	Meter   *Meter
}

// Happened is the error of who carried out an effect that has happened all the same: the
// far side has answered, and what it said could not be passed on, or not whole.
type Happened struct{ Err error }

func (h *Happened) Error() string { return h.Err.Error() }
func (h *Happened) Unwrap() error { return h.Err }

type actingKey struct{}

// With returns a context that says for which effect something is done.
func (a *Acting) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, actingKey{}, a)
}

// ActingIn is the effect for which something is done; nil when it is for none.
func ActingIn(ctx context.Context) *Acting {
	a, _ := ctx.Value(actingKey{}).(*Acting)
	return a
}

// MayUse says whether the intent states the use of a secret.
func (a *Acting) MayUse(u SecretUse) bool { return a != nil && slices.Contains(a.Secrets, u) }

// Meter counts what an effect uses while it does, by dimension of budgets. What was
// reserved is what the effect should stop at; what is counted is what it is charged,
// more than that too. It is safe for concurrent use.
type Meter struct {
	mu       sync.Mutex
	reserved map[string]int64
	used     map[string]int64
}

// NewMeter makes a Meter. Dimensions that are not reserved have no bound.
func NewMeter(reserved Charge) *Meter {
	m := &Meter{reserved: map[string]int64{}, used: map[string]int64{}}
	for dim, n := range reserved {
		if MeasureOf(dim) == MeasureSum {
			m.reserved[dim] = n
		}
	}
	return m
}

// Add counts n more of a dimension and says whether that is within what was reserved.
func (m *Meter) Add(dimension string, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > 0 {
		m.used[dimension] = min(m.used[dimension]+n, MaxAmount)
	}
	limit, limited := m.reserved[dimension]
	return !limited || m.used[dimension] <= limit
}

// Left is how much of a dimension was reserved and is not used; limited is false where
// nothing bounds it.
func (m *Meter) Left(dimension string) (n int64, limited bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit, limited := m.reserved[dimension]
	if !limited {
		return MaxAmount, false
	}
	return max(0, limit-m.used[dimension]), true
}

// Used is what was counted so far.
func (m *Meter) Used() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]int64{}
	for dim, n := range m.used {
		out[dim] = n
	}
	return out
}

// Up counts what is read from r as sent outside, Down as received from there. Both fail
// with CodeBudget where what was reserved is used up and there is more to come.
func (m *Meter) Up(r io.Reader) io.Reader   { return &metered{m, BudgetEgress, r} }
func (m *Meter) Down(r io.Reader) io.Reader { return &metered{m, BudgetIngress, r} }

type metered struct {
	m   *Meter
	dim string
	r   io.Reader
}

// Read reads no more than is left, and one byte to see whether there is more. That byte
// is counted and not passed on.
func (r *metered) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	left, limited := r.m.Left(r.dim)
	if limited && left == 0 {
		var one [1]byte
		n, err := r.r.Read(one[:])
		r.m.Add(r.dim, int64(n))
		if n > 0 {
			return 0, UsedUp(r.dim)
		}
		return 0, err
	}
	n, err := r.r.Read(p[:min(int64(len(p)), left)])
	r.m.Add(r.dim, int64(n))
	return n, err
}

// UsedUp is the refusal of an effect that needs more than was reserved for it.
func UsedUp(dimension string) *Error {
	return Refuse(CodeBudget, "writ.Meter", "what was reserved for this is used up, so it was stopped", "ask for less, or for a larger budget").
		With("dimension", dimension)
}
