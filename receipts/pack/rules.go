package pack

import (
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// rules asks what must hold between receipts, once each is sound and none is missing.
func (c *check) rules() error {
	sound := len(c.report.Findings) == 0
	if s := c.m.Scope; s.Kind == ScopeRun && c.ask.Run != "" && s.Run != c.ask.Run {
		c.find(RunScope, -1)
	}
	if !sound {
		return nil
	}
	h := &history{c: c, whole: c.m.Scope.Kind == ScopeLog || c.m.Scope.Kind == ScopeRange && c.m.Scope.First == 0, run: c.m.Scope.Kind == ScopeRun}
	h.reset()
	for _, seq := range slices.Backward(c.seqs) { // of two with one id the first
		h.known[c.seen[seq]] = seq
	}
	var chain *chain
	if c.ask.Run != "" {
		chain = newChain(c, c.ask.Run)
	}
	for i, seq := range c.seqs {
		if _, theirs := c.foreign[seq]; theirs {
			if c.alone(i) {
				c.find(VerdictAlone, seq)
				return nil
			}
			continue
		}
		payload, rec, err := c.payload(seq)
		if err != nil {
			return err
		}
		if code := h.add(rec); code != "" {
			c.find(code, seq)
			if Codes[code].Verdict == receipts.Tampered {
				return nil // what follows from it is no news
			}
		}
		if chain != nil {
			if err := chain.add(rec, payload); err != nil {
				return err
			}
		}
	}
	c.report.Rules = true
	if chain != nil {
		chain.end()
	} else if run := c.m.Scope.Run; run != "" && len(c.report.Findings) == 0 && !h.own[object{writ.ObjectRun, string(run)}] {
		code := RunUnknown // asked for or not, a pack that says it is of a run has that
		if _, some := h.runs[run]; some {
			code = RunBegin
		}
		c.find(code, -1)
	}
	return nil
}

// alone says of a verdict that is logged itself that the receipt after it, which is in the
// pack unless that ends there, does not rest on it.
func (c *check) alone(i int) bool {
	seq, s := c.seqs[i], c.m.Scope
	if s.Kind == ScopeRange && seq == s.Last {
		return false
	}
	return i+1 == len(c.seqs) || c.seqs[i+1] != seq+1 || c.foreign[seq+1].ID != ""
}

// restsElsewhere says of a receipt that the verdict before it is not the one it rests on. Where that
// is not in the pack, parents say so.
func (c *check) restsElsewhere(rec receipts.Record) bool {
	f, before := c.foreign[rec.Commit.Seq-1]
	if before {
		return !f.NamedBy(rec.Statement)
	}
	return c.verdicts[receipts.RestsOn(rec.Statement)]
}

// history replays receipts in order, as receipts.Verify does, but says of what is not in
// the pack that it is missing.
type history struct {
	c     *check
	whole bool // it begins with the log
	run   bool // it is the pack of a run, with gaps

	known   map[writ.ReceiptID]int64
	started bool
	at      int64
	epoch   string
	tenant  writ.Tenant
	left    map[string]bool
	runs    map[writ.RunID]int64
	objects map[object]string
	own     map[object]bool // in the pack of a run: those that are whole and their tasks, all of whose moves are there
	seen    map[writ.ReceiptID]bool
	used    map[string]bool // digests of signed verdicts
}

type object struct{ kind, id string }

func (h *history) reset() {
	h.known, h.left, h.runs = map[writ.ReceiptID]int64{}, map[string]bool{}, map[writ.RunID]int64{}
	h.objects, h.own, h.seen = map[object]string{}, map[object]bool{}, map[writ.ReceiptID]bool{}
	h.used = map[string]bool{}
}

func (h *history) add(rec receipts.Record) (missing Code) {
	st, c := rec.Statement, rec.Commit
	if !h.started {
		h.started, h.at, h.epoch, h.tenant = true, c.At, c.Epoch, st.Tenant
	}
	switch {
	case st.Tenant != h.tenant:
		return TenantOther
	case h.seen[st.Receipt]:
		return ReceiptTwice
	case c.At < h.at:
		return TimeBack
	case c.Epoch != h.epoch && h.left[c.Epoch]:
		return EpochBack
	}
	if code := h.inRun(st.Run, c.RunSeq); Codes[code].Verdict == receipts.Tampered {
		return code
	} else if code != "" {
		missing = code
	}
	if h.c.restsElsewhere(rec) {
		return VerdictAlone
	}
	beside := h.c.beside(c.Seq)
	for _, p := range st.Parents {
		at, known := h.known[p]
		switch {
		case p == st.Receipt:
			return ParentSelf
		case known && at > c.Seq:
			return ParentFuture
		case known:
		case h.whole && !beside:
			return ParentUnknown
		case h.run && h.isWhole(st.Run):
			missing = ParentMissing
		}
	}
	if v := st.Verdict; v != nil {
		if h.used[v.Digest] {
			return VerdictTwice
		}
		h.used[v.Digest] = true
	}
	for _, m := range st.Changes {
		key := object{m.Kind, m.ID}
		state, known := h.objects[key]
		switch {
		case !writ.LegalMove(m.Kind, m.From, m.To):
			return MoveIllegal
		case beside && m.Kind != writ.ObjectKey:
			continue // of others there are moves missing in between
		case known && m.From == "" && state != "": // whatever the pack has of it, it is made once
			return MoveFrom
		case state == m.From || !known && !h.whole:
		case h.run && !h.own[key]: // of others the pack of a run has moves here and there
		case h.run:
			missing = MoveGap
		default:
			return MoveFrom
		}
		h.objects[key] = m.To
		if m.From == "" && (m.Kind == writ.ObjectTask && h.isWhole(st.Run) || m.Kind == writ.ObjectRun && h.isWhole(writ.RunID(m.ID))) {
			h.own[key] = true
		}
	}
	if c.Epoch != h.epoch {
		h.left[h.epoch] = true
	}
	h.at, h.epoch = c.At, c.Epoch
	h.seen[st.Receipt] = true
	return missing
}

// beside says of a receipt that it is in the pack of a range for what it says of a key.
func (c *check) beside(seq int64) bool {
	s := c.m.Scope
	return s.Kind == ScopeRange && (seq < s.First || seq > s.Last)
}

// isWhole says of a run that the pack of a run must have all of it: it is of that, or that is asked for, whatever the pack says.
func (h *history) isWhole(run writ.RunID) bool {
	return run != "" && (run == h.c.m.Scope.Run || run == h.c.ask.Run)
}

// inRun follows the sequence of a run. In the pack of a run the others are there in part.
func (h *history) inRun(run writ.RunID, seq int64) Code {
	if run == "" {
		return ""
	}
	last, known := h.runs[run]
	h.runs[run] = seq
	complete := !h.run || h.isWhole(run)
	switch {
	case known && seq <= last:
		return RunBack
	case complete && (known && seq > last+1 || !known && (h.whole || h.run) && seq != 1):
		return RunGap
	}
	return ""
}
