package pack

import "github.com/writ-gateway/writ"

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
	from := k.tasks[of.Task]
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
	for _, d := range a.DependsOn {
		if on := k.keys[d.Key]; on != nil && d.When != string(writ.EndFailed) {
			looks = append(looks, on)
		}
	}
	return a, looks, true
}
