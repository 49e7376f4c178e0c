package pack

import (
	"cmp"

	"github.com/writ-gateway/writ"
)

// asked is what a task is made with.
type asked struct {
	Key        string `json:"key"`
	Capability string `json:"capability"`
	DependsOn  []struct {
		Key  string `json:"key"`
		When string `json:"when"`
	} `json:"depends_on"`
	Consumes []struct{} `json:"consumes"`
	Verify   wants      `json:"verify"`
}

// wants is what a task asks for before it is done.
type wants struct {
	Required bool     `json:"required"`
	Gates    []string `json:"gates"`
	Quorum   *float64 `json:"quorum"`
}

// made says with what a task is made, and at which others it would look as a gate. What comes
// out of another task asks for what that does.
func (k *chain) made(x heard, m writ.Change) (a asked, looks []*task, known bool) {
	var of struct {
		Task string `json:"task_id"`
	}
	said := x.ev.says(&of)
	from := cmp.Or(k.tasks[of.Task], k.others[of.Task])
	if from != nil && from.run != x.Statement.Run && x.Statement.Transition != "task.revive" {
		from = nil // nothing else leaves its run
	}
	switch x.Statement.Transition {
	case "task.enqueue":
		known = x.ev.says(&a)
	case "agent.delegate":
		var d struct {
			Task asked `json:"task"`
		}
		known = said && x.ev.says(&d) && (of.Task == "" || from != nil)
		if a = d.Task; from != nil && from.Verify.Required {
			a.Verify = from.Verify
		}
	case "task.handoff":
		var h struct {
			To struct {
				Task asked `json:"task"`
			} `json:"to"`
		}
		if known = said && x.ev.says(&h) && from != nil; known {
			a, looks = h.To.Task, []*task{from}
			a.Verify, a.DependsOn = from.Verify, nil
		}
	case "task.revive": // it depends on nothing, unless it is given what others made
		var r struct {
			Key string `json:"key"`
		}
		if known = said && x.ev.says(&r) && from != nil; known {
			if a = from.asked; len(a.Consumes) > 0 {
				looks = from.looks
			}
			a.Key, a.DependsOn = r.Key, nil
		}
	}
	if !known || m.From != "" || !isQuorum(a.Verify.Quorum) {
		return asked{}, nil, false
	}
	once := map[*task]bool{}
	for _, d := range a.DependsOn {
		if on := k.keys[d.Key]; on != nil && d.When != string(writ.EndFailed) && !once[on] {
			once[on] = true
			looks = append(looks, on)
		}
	}
	return a, looks, true
}

// elsewhere keeps of a task of another run what it asks for: one of this run may be it, revived.
// It is no task of this run, what others made was given to it there only, and where nobody says
// what it asks for it is as if it were not there.
func (k *chain) elsewhere(x heard, m writ.Change) {
	if k.others[m.ID] != nil {
		return
	}
	if a, _, known := k.made(x, m); known {
		k.others[m.ID] = &task{run: x.Statement.Run, asked: asked{Capability: a.Capability, Verify: a.Verify}}
	}
}
