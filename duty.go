package writ

import "slices"

// Duties is what the host must do for a decision to hold, besides what people
// must agree to: the obligations of its findings, read once. A zero value asks
// for nothing. Findings are shared between calls, so nobody changes the lists.
type Duties struct {
	Redact []Pointer // what the reply does not show
	Notify []string  // ids of the rules that want the call known
}

// Join adds what others ask for: all of it must be done.
func (d *Duties) Join(x Duties) {
	for _, p := range x.Redact {
		if !slices.ContainsFunc(d.Redact, func(q Pointer) bool { return q.Text == p.Text }) {
			d.Redact = append(d.Redact, p)
		}
	}
	d.Notify = append(d.Notify, x.Notify...)
}
