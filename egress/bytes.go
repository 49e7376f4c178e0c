package egress

import (
	"io"
	"sync/atomic"

	"github.com/writ-gateway/writ"
)

// tally counts one direction of an exchange, whoever reads.
type tally struct {
	dimension string
	most      int64
	n         atomic.Int64
	meter     Meter
}

// add counts n bytes and says whether they may pass.
func (t *tally) add(n int64) bool {
	ok := t.meter == nil || t.meter.Add(t.dimension, n)
	return t.n.Add(n) <= t.most && ok
}

// over is the refusal of what is more than may pass.
func (t *tally) over() error {
	e := writ.Refuse(writ.CodeBudget, "egress", "more bytes than the grant, or the budget of the run, lets pass: the exchange was ended", "ask for less, or for a larger budget")
	return e.With("dimension", t.dimension)
}

// counted reads r and counts. A read that would go over fails and gives nothing:
// what was read then is counted all the same, since it came.
type counted struct {
	r io.Reader
	t *tally
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 && !c.t.add(int64(n)) {
		return 0, c.t.over()
	}
	return n, err
}
