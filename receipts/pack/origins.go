package pack

import "github.com/writ-gateway/writ"

// origins finds how the tasks were made that those of a run come from, in whichever run: what
// is revived asks for what died does, and so on for that. Receipts come from the last one on.
type origins struct {
	named map[writ.ReceiptID]bool // by receipts that make such a task, as parents
	tasks map[string]bool         // that such a receipt or its parents move
}

func newOrigins() origins {
	return origins{named: map[writ.ReceiptID]bool{}, tasks: map[string]bool{}}
}

// has says whether a receipt makes such a task, or is named by one that does.
func (o origins) has(st writ.Statement, inRun bool) bool {
	made, named := false, o.named[st.Receipt]
	for _, m := range st.Changes {
		made = made || m.Kind == writ.ObjectTask && m.From == "" && (inRun || o.tasks[m.ID])
	}
	if !made && !named {
		return false
	}
	for _, m := range st.Changes {
		if m.Kind == writ.ObjectTask {
			o.tasks[m.ID] = true
		}
	}
	if made {
		for _, p := range st.Parents {
			o.named[p] = true
		}
	}
	return true
}
