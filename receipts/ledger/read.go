package ledger

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"github.com/writ-gateway/writ"
)

// Get reads the receipt with a sequence; ok is false when there is none.
func (l *Ledger) Get(seq int64) (r writ.Receipt, ok bool, err error) {
	s, x, ok := l.find(seq)
	if !ok {
		return r, false, nil
	}
	e, err := s.read(x, seq)
	if err != nil {
		return r, false, writ.Fault(writ.CodeInternal, "ledger.Get", err)
	}
	return e.Receipt, true, nil
}

// find looks a sequence up. The entry stays valid without the lock.
func (l *Ledger) find(seq int64) (*segment, entry, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if seq < 0 || seq > l.last {
		return nil, entry{}, false
	}
	i, exact := slices.BinarySearchFunc(l.segs, seq, func(s *segment, seq int64) int { return cmp.Compare(s.first, seq) })
	if !exact {
		i--
	}
	s := l.segs[i]
	return s, s.entries[seq-s.first], true
}

// ByID reads the receipt with an id; ok is false when there is none.
func (l *Ledger) ByID(id writ.ReceiptID) (r writ.Receipt, ok bool, err error) {
	if !id.Valid() {
		return r, false, nil
	}
	seq := l.seqOf(Binary(string(id)))
	if seq < 0 {
		return r, false, nil
	}
	return l.Get(seq)
}

func (l *Ledger) seqOf(id [16]byte) int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.segs) - 1; i >= 0; i-- {
		if n := l.segs[i].find(id); n >= 0 {
			return l.segs[i].first + int64(n)
		}
	}
	return -1
}

// Range reads up to n receipts with sequences > after, in order; with a run,
// that run's only.
func (l *Ledger) Range(after int64, n int, run writ.RunID) ([]writ.Receipt, error) {
	var out []writ.Receipt
	if run != "" && !run.Valid() {
		return nil, nil
	}
	var want [16]byte
	if run != "" {
		want = Binary(string(run))
	}
	for seq := max(after+1, 0); len(out) < n; seq++ {
		s, x, ok := l.find(seq)
		if !ok {
			break
		}
		if run != "" && x.run != want {
			continue
		}
		e, err := s.read(x, seq)
		if err != nil {
			return nil, writ.Fault(writ.CodeInternal, "ledger.Range", err)
		}
		out = append(out, e.Receipt)
	}
	return out, nil
}

// All reads every receipt with a sequence in (after, upto], in order.
func (l *Ledger) All(after, upto int64) iter.Seq2[writ.Receipt, error] {
	return func(yield func(writ.Receipt, error) bool) {
		for seq := max(after+1, 0); seq <= upto; seq++ {
			r, ok, err := l.Get(seq)
			if err == nil && !ok {
				return
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Check reads every byte again and holds it to what the ledger believes.
func (l *Ledger) Check() error {
	const op = "ledger.Check"
	l.mu.RLock()
	segs, last := slices.Clone(l.segs), l.last
	l.mu.RUnlock()
	next := int64(0)
	for _, s := range segs {
		if s.first != next {
			return writ.Fault(writ.CodeInternal, op, fmt.Errorf("%w: segment %d follows receipt %d", ErrCorrupt, s.first, next-1))
		}
		for next <= last {
			l.mu.RLock()
			n := next - s.first
			if n >= int64(len(s.entries)) {
				l.mu.RUnlock()
				break
			}
			x := s.entries[n]
			l.mu.RUnlock()
			e, err := s.read(x, next)
			if err != nil {
				return writ.Fault(writ.CodeInternal, op, err)
			}
			if Binary(string(e.ID)) != x.id || (e.Run != "") != (x.run != [16]byte{}) {
				return writ.Fault(writ.CodeInternal, op, fmt.Errorf("%w: the index of receipt %d is wrong", ErrCorrupt, next))
			}
			next++
		}
	}
	if next <= last {
		return writ.Fault(writ.CodeInternal, op, fmt.Errorf("%w: receipt %d is missing", ErrCorrupt, next))
	}
	return nil
}
