package writtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Apply checks every guard and applies every operation in order, or changes
// nothing and returns a *Conflict.
func (w *World) Apply(tx writ.Tx) error {
	if err := tx.Check(); err != nil {
		return err
	}
	for _, g := range tx.Guards {
		if what := w.broken(g); what != "" {
			return &Conflict{What: what}
		}
	}
	counters := maps.Clone(w.counters) // limits are found while applying
	for _, o := range tx.Ops {
		if o.Kind != writ.OpAdd {
			continue
		}
		counters[o.Counter] += o.Delta
		if o.HasLimit && counters[o.Counter] > o.Limit {
			return &Conflict{What: fmt.Sprintf("limit %s#%s", o.Counter.Entity, o.Counter.Field)}
		}
	}
	if tx.Fact != nil {
		w.seq++
	}
	w.counters = counters
	for _, o := range tx.Ops {
		switch o.Kind {
		case writ.OpPut:
			w.docs[o.Key] = writ.Doc{Version: w.seq, Body: o.Body}
		case writ.OpDelete:
			delete(w.docs, o.Key)
		case writ.OpIndex:
			w.SetIndex(o.Index, o.Member, o.Score)
		case writ.OpUnindex:
			if score, ok := w.indexes[o.Index][o.Member]; ok && (!o.IfScore || score == o.Score) {
				w.DropIndex(o.Index, o.Member)
			}
		case writ.OpPush:
			w.lanes[o.Lane] = append(w.lanes[o.Lane], o.Entry)
		case writ.OpAck:
			if i := slices.Index(w.lanes[o.Lane], o.ID); i >= 0 {
				w.lanes[o.Lane] = slices.Delete(w.lanes[o.Lane], i, i+1)
			}
		}
	}
	return nil
}

// broken says which guard does not hold; "" when it does.
func (w *World) broken(g writ.Guard) string {
	switch g.Kind {
	case writ.GuardExpect:
		if w.docs[g.Key].Version != g.Version {
			return "expect " + string(g.Key)
		}
	case writ.GuardRange:
		if w.versions[g.Index] != g.Version {
			return "range " + string(g.Index)
		}
	case writ.GuardFree:
		for m := range w.indexes[g.Index] {
			mine := g.Except != "" && strings.HasSuffix(m, " "+g.Except)
			if m >= g.From && m < g.To && !mine {
				return "free " + string(g.Index)
			}
		}
	case writ.GuardWithin:
		if v := w.counters[g.Counter]; v < g.Lo || v > g.Hi {
			return "within " + g.Counter.Entity + "#" + g.Counter.Field
		}
	case writ.GuardNotAfter:
		if w.Now > g.Hi {
			return "not after"
		}
	case writ.GuardEpoch:
		if g.From != Epoch {
			return "epoch"
		}
	}
	return ""
}
