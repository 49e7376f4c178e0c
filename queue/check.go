package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Wrong is one thing that does not follow from a document: a member that is missing,
// at another score, or one too many; a counter with another value; or an entry in a
// lane.
type Wrong struct {
	Document writ.Key    `json:"document"`
	Task     writ.TaskID `json:"task_id,omitempty"` // when it is about one

	Entry   writ.Entry   `json:"entry,omitzero"`
	Missing bool         `json:"missing,omitempty"` // else it is one too many, or at another score
	Moved   bool         `json:"moved,omitempty"`   // it is there at another score
	Counter writ.Counter `json:"counter,omitzero"`
	Lane    writ.Lane    `json:"lane,omitempty"`
	Left    bool         `json:"left,omitempty"` // nothing says how to mend it
	Why     string       `json:"why"`
}

// Checker holds indexes against the documents of all rooms. It is pure.
type Checker map[string]writ.Follower

// NewChecker makes a Checker of what rooms say of themselves, the queue included.
func NewChecker(rooms []writ.Follower) Checker {
	c := Checker{writ.ObjectTask: Follower()}
	for _, f := range rooms {
		c[f.Kind] = f
	}
	return c
}

// of is the follower of a document, and its id.
func (c Checker) of(doc writ.Key) (f writ.Follower, id string, ok bool) {
	kind, id, _ := strings.Cut(string(doc), "/")
	f, ok = c[kind]
	return f, id, ok && id != ""
}

// Reads names what Check must see of a document, as far as s shows where to look. met
// are entries somebody has met that name it.
func (c Checker) Reads(doc writ.Key, s writ.Snapshot, met []writ.Entry) (writ.ReadSet, error) {
	rs := writ.ReadSet{Docs: []writ.Key{doc}}
	for _, e := range met {
		rs.Ranges = append(rs.Ranges, e.Range())
	}
	f, id, ok := c.of(doc)
	if !ok || s.Docs[doc].Version == 0 {
		return rs, nil
	}
	more, err := f.Reads(id, s)
	if err != nil {
		return rs, err
	}
	rs = rs.Join(more)
	if missing := s.Missing(rs); !missing.Empty() {
		return rs, nil // what it implies shows once these are there
	}
	all, err := f.Implies(id, s)
	for _, i := range all {
		if i.Counter.Entity != "" {
			rs.Counters = append(rs.Counters, i.Counter)
		} else {
			rs.Ranges = append(rs.Ranges, i.Range())
		}
	}
	return rs, err
}

// Sound says what contradicts itself in a document; "" where nothing does. It wants
// Reads.
func (c Checker) Sound(doc writ.Key, s writ.Snapshot) (string, error) {
	f, id, ok := c.of(doc)
	if !ok || f.Sound == nil || s.Docs[doc].Version == 0 {
		return "", nil
	}
	return f.Sound(id, s)
}

// Check gives what does not hold, as the read shows it: that is atomic, so what it
// shows to be wrong is wrong, whatever else is under way. It wants Reads.
func (c Checker) Check(doc writ.Key, s writ.Snapshot, met []writ.Entry) (wrong []writ.Implied, err error) {
	f, id, ok := c.of(doc)
	there := ok && s.Docs[doc].Version != 0
	var all []writ.Implied
	if why, err := c.Sound(doc, s); err != nil || why != "" {
		return nil, err
	}
	if there {
		if all, err = f.Implies(id, s); err != nil {
			return nil, err
		}
	}
	for n, i := range all {
		again := slices.ContainsFunc(all[:n], func(o writ.Implied) bool { return o.Counter == i.Counter && o.Same(i.Entry) })
		if !again && !i.Holds(s) {
			wrong = append(wrong, i)
		}
	}
	for _, e := range met {
		said := slices.ContainsFunc(all, func(i writ.Implied) bool { return i.Counter.Entity == "" && i.Same(e) })
		if _, in := e.In(s); !in || said || f.Kind == writ.ObjectTask && there && !stray(e) {
			continue
		}
		i := writ.Implied{Entry: e, Out: true, Why: "there is no such document"}
		if there {
			i.Why = "nothing in the document has it there"
		}
		wrong = append(wrong, i)
	}
	return wrong, nil
}

// Counts is a document's part in counters. It wants Reads.
func (c Checker) Counts(doc writ.Key, s writ.Snapshot) ([]writ.Count, error) {
	f, id, ok := c.of(doc)
	if !ok || s.Docs[doc].Version == 0 {
		return nil, nil
	}
	return f.Counts(id, s)
}

// Say is a finding as it is reported.
func Say(doc writ.Key, i writ.Implied, s writ.Snapshot) Wrong {
	w := Wrong{Document: doc, Why: i.Why}
	if kind, id, _ := strings.Cut(string(doc), "/"); kind == writ.ObjectTask {
		w.Task = writ.TaskID(id)
	}
	if w.Counter = i.Counter; i.Counter.Entity != "" {
		return w
	}
	w.Entry = i.Entry
	_, in := i.In(s)
	w.Missing, w.Moved = !i.Out && !in, !i.Out && in
	return w
}
