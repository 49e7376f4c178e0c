package receipts

import "github.com/writ-gateway/writ"

// history replays receipts in order and says what no honest gateway could
// have recorded. It keeps a few words per object, run and receipt.
type history struct {
	first, last int64 // sequences; last is -1 before the first receipt
	at          int64
	epoch       string
	tenant      writ.Tenant
	begun       bool
	before      *Foreign        // the entry before the receipt that comes next
	left        map[string]bool // epochs the shard has left
	receipts    map[writ.ReceiptID]bool
	verdicts    map[string]bool      // digests of signed verdicts
	runs        map[writ.RunID]int64 // last sequence in the run
	objects     map[object]string    // state the object was left in
}

type object struct{ kind, id string }

func newHistory() *history {
	return &history{
		last: -1, left: map[string]bool{}, receipts: map[writ.ReceiptID]bool{}, verdicts: map[string]bool{},
		runs: map[writ.RunID]int64{}, objects: map[object]string{},
	}
}

// add checks one receipt against those before it.
func (h *history) add(rec Record) *problem {
	st, c := rec.Statement, rec.Commit
	start := !h.begun
	if start {
		h.begun, h.first, h.at, h.epoch, h.tenant = true, c.Seq, c.At, c.Epoch, st.Tenant
	}
	f := h.before
	if f != nil && start {
		h.first--
	} else if f != nil {
		h.last++
	}
	switch {
	case !start && c.Seq > h.last+1:
		return found(Incomplete, "sequence %d follows %d: a receipt is missing", c.Seq, h.last)
	case !start && c.Seq <= h.last:
		return found(Tampered, "sequence %d follows %d: a receipt was repeated or moved", c.Seq, h.last)
	case st.Tenant != h.tenant:
		return found(Tampered, "the receipt is of another tenant")
	case h.receipts[st.Receipt]:
		return found(Tampered, "two receipts have one id")
	case f != nil && c.Seq == 0:
		return found(Tampered, "a signed verdict is logged before the first receipt there is")
	case f != nil && !f.NamedBy(st):
		return found(Tampered, "it does not rest on the signed verdict that is logged before it")
	case f == nil && !start && RestsOn(st) != "":
		return found(Tampered, "the signed verdict it rests on is not logged before it")
	case c.At < h.at:
		return found(Tampered, "the time goes back")
	case c.Epoch != h.epoch && h.left[c.Epoch]:
		return found(Tampered, "the epoch goes back")
	}
	if f != nil {
		h.receipts[f.ID], h.before = true, nil
	}
	if p := h.inRun(st.Run, c.RunSeq); p != nil {
		return p
	}
	for _, parent := range st.Parents {
		// A parent before the start of the export cannot be looked up.
		if h.whole() && !h.receipts[parent] {
			return found(Tampered, "a parent does not come before it")
		}
		if parent == st.Receipt {
			return found(Tampered, "it is its own parent")
		}
	}
	if v := st.Verdict; v != nil {
		if h.verdicts[v.Digest] {
			return found(Tampered, "a signed verdict was used twice")
		}
		h.verdicts[v.Digest] = true
	}
	for _, m := range st.Changes {
		if p := h.move(m); p != nil {
			return p
		}
	}
	if c.Epoch != h.epoch {
		h.left[h.epoch] = true
	}
	h.last, h.at, h.epoch = c.Seq, c.At, c.Epoch
	h.receipts[st.Receipt] = true
	return nil
}

// foreign takes an entry that states no sequence: it has that before the receipt that must
// come next.
func (h *history) foreign(f Foreign) *problem {
	switch {
	case h.before != nil:
		return found(Tampered, "no receipt rests on the signed verdict before it")
	case h.receipts[f.ID]:
		return found(Tampered, "a signed verdict is logged twice")
	}
	h.before = &f
	return nil
}

// whole says whether the history is known from its beginning.
func (h *history) whole() bool { return h.first == 0 }

func (h *history) inRun(run writ.RunID, seq int64) *problem {
	if run == "" {
		return nil
	}
	last, known := h.runs[run]
	switch {
	case !known && h.whole() && seq != 1, known && seq > last+1:
		return found(Incomplete, "sequence %d of its run follows %d: a receipt of the run is missing", seq, last)
	case known && seq <= last:
		return found(Tampered, "sequence %d of its run follows %d", seq, last)
	}
	h.runs[run] = seq
	return nil
}

func (h *history) move(m writ.Change) *problem {
	key := object{m.Kind, m.ID}
	state, known := h.objects[key]
	switch {
	case (known || h.whole()) && state != m.From:
		return found(Tampered, "a %s moves from a state it was not in", m.Kind)
	case !writ.LegalMove(m.Kind, m.From, m.To):
		return found(Tampered, "a %s makes a move its states do not have", m.Kind)
	}
	h.objects[key] = m.To
	return nil
}
