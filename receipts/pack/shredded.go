package pack

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// absent follows evidence that is not there. It need not be where the evidence of its run
// was shredded since, by a receipt that is there.
type absent struct {
	shred map[writ.RunID]int64 // the last shredding of each run
	found []lack
}

type lack struct {
	seq int64
	run writ.RunID // "" where no shredding reaches it
}

// note takes the next receipt, whose evidence is there or not.
func (a *absent) note(seq int64, st writ.Statement, there bool) {
	if run, ok := shreds(st); ok {
		if a.shred == nil {
			a.shred = map[writ.RunID]int64{}
		}
		a.shred[run] = seq
	}
	if there || st.Evidence == "" {
		return
	}
	l := lack{seq, st.Run}
	if st.Transition == writ.CapabilityShred { // what is known of it stays
		l.run = ""
	}
	a.found = append(a.found, l)
}

// missing are the sequences of what should be there.
func (a *absent) missing() []lack {
	return slices.DeleteFunc(a.found, func(l lack) bool {
		at, ok := a.shred[l.run]
		return ok && l.run != "" && l.seq < at
	})
}

// shreds says of which run a receipt says that its evidence is shredded.
func shreds(st writ.Statement) (writ.RunID, bool) {
	i := slices.IndexFunc(st.Changes, func(c writ.Change) bool {
		return c.Kind == writ.ObjectEvidence && c.To == string(writ.EvidenceShredded)
	})
	if i < 0 {
		return "", false
	}
	return writ.RunID(st.Changes[i].ID), true
}
