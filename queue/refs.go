package queue

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// HandoffRef points at something whoever goes on must know.
type HandoffRef struct {
	Name string       `json:"name" doc:"What it is, as the task that is handed on calls it." pattern:"^[a-z][a-z0-9_]{0,63}$"`
	Kind writ.RefKind `json:"kind" doc:"What ref is: the key of a task of the run that is done, a receipt of the run, the digest of an artifact, a commit, or a file." enum:"task,receipt,artifact,commit,file"`
	Ref  string       `json:"ref" doc:"The reference: a task key, a receipt id, sha256:… of an artifact that the task made or was given, the hash of a commit, or a resource URI like fs:repo/docs/plan.md." minLength:"2" maxLength:"512"`
}

// TaskHandoff is what a task asks of whoever hands it on.
type TaskHandoff struct {
	Refs []RefRule `json:"refs,omitempty" doc:"References that must come with it." maxItems:"8"`
}

// RefRule is one reference a handoff must carry.
type RefRule struct {
	Name string       `json:"name" doc:"What it is." pattern:"^[a-z][a-z0-9_]{0,63}$"`
	Kind writ.RefKind `json:"kind,omitempty" doc:"What kind it must be; any, if absent." enum:"task,receipt,artifact,commit,file"`
}

// Limits of what is handed over.
const (
	maxRefs    = 16
	maxRules   = 8
	maxRefSize = 512 // bytes
)

var (
	refName   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	refDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	refCommit = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// stored brings it into its stored form; nil when nothing is asked.
func (h *TaskHandoff) stored(op string) (*writ.HandoffRules, error) {
	if h == nil {
		return nil, nil
	}
	if len(h.Refs) > maxRules {
		return nil, invalid(op, "/handoff/refs", "are too many")
	}
	out := &writ.HandoffRules{}
	for i, r := range h.Refs {
		at := "/handoff/refs/" + strconv.Itoa(i)
		switch {
		case !refName.MatchString(r.Name):
			return nil, invalid(op, at+"/name", "must be small letters, digits and underscores")
		case r.Kind != "" && !r.Kind.Valid():
			return nil, invalid(op, at+"/kind", "must be task, receipt, artifact, commit or file")
		case slices.ContainsFunc(out.Refs, func(o writ.RefRule) bool { return o.Name == r.Name }):
			return nil, invalid(op, at+"/name", "is named twice")
		}
		out.Refs = append(out.Refs, writ.RefRule{Name: r.Name, Kind: r.Kind})
	}
	return out, nil
}

func shownHandoff(h *writ.HandoffRules) *TaskHandoff {
	if h == nil {
		return nil
	}
	out := &TaskHandoff{}
	for _, r := range h.Refs {
		out.Refs = append(out.Refs, RefRule{r.Name, r.Kind})
	}
	return out
}

// checkRefs says whether references are well formed, each by its kind.
func checkRefs(refs []HandoffRef) error {
	if len(refs) > maxRefs {
		return invalid(opHandoff, "/refs", "are too many")
	}
	for i, r := range refs {
		switch {
		case !refName.MatchString(r.Name):
			return invalid(opHandoff, refPointer(i)+"/name", "must be small letters, digits and underscores")
		case slices.ContainsFunc(refs[:i], func(o HandoffRef) bool { return o.Name == r.Name }):
			return invalid(opHandoff, refPointer(i)+"/name", "is named twice")
		case !r.Kind.Valid():
			return invalid(opHandoff, refPointer(i)+"/kind", "must be task, receipt, artifact, commit or file")
		case len(r.Ref) > maxRefSize || !formed(r):
			return invalid(opHandoff, refPointer(i)+"/ref", "has not the form its kind asks for")
		}
	}
	return nil
}

func formed(r HandoffRef) bool {
	switch r.Kind {
	case writ.RefTask:
		return writ.ValidSlug(r.Ref)
	case writ.RefReceipt:
		return writ.ReceiptID(r.Ref).Valid()
	case writ.RefArtifact:
		return refDigest.MatchString(r.Ref)
	case writ.RefCommit:
		return refCommit.MatchString(r.Ref)
	case writ.RefFile:
		c, err := writ.CanonicalScope(r.Ref)
		return err == nil && strings.HasPrefix(c, "fs:")
	}
	return false
}

// refReads names what tells whether references lead anywhere.
func refReads(s writ.Snapshot, t writ.Task, refs []HandoffRef) (rs writ.ReadSet, err error) {
	for _, r := range refs {
		switch r.Kind {
		case writ.RefReceipt:
			rs.Archive = append(rs.Archive, writ.ArchiveRead{Receipt: writ.ReceiptID(r.Ref), Limit: 1})
		case writ.RefTask:
			name := writ.TaskNameKey(t.Run, r.Ref)
			rs.Docs = append(rs.Docs, name)
			taken, ok, err := peek[taskName](s, name)
			if err != nil {
				return rs, err
			}
			if ok {
				rs.Docs = append(rs.Docs, writ.TaskKey(taken.Task))
			}
		case writ.RefArtifact:
			rs.Docs = append(rs.Docs, makers(t)...)
		}
	}
	return rs, nil
}

// leads says whether a reference leads to something of the run, as far as the
// gateway can know: what is a commit, or a file, is for whoever goes on to see.
func leads(s writ.Snapshot, t writ.Task, made []TaskMade, r HandoffRef) (bool, error) {
	switch r.Kind {
	case writ.RefReceipt:
		found := s.Archive[writ.ArchiveRead{Receipt: writ.ReceiptID(r.Ref), Limit: 1}]
		if len(found) == 0 {
			return false, nil
		}
		var p struct {
			Predicate struct {
				Run writ.RunID `json:"run"`
			} `json:"predicate"`
		}
		if err := json.Unmarshal(found[0].Payload, &p); err != nil {
			return false, writ.Fault(writ.CodeInternal, opHandoff, err)
		}
		return p.Predicate.Run == t.Run, nil
	case writ.RefTask:
		taken, ok, err := peek[taskName](s, writ.TaskNameKey(t.Run, r.Ref))
		if err != nil || !ok {
			return false, err
		}
		on, ok, err := peek[writ.Task](s, writ.TaskKey(taken.Task))
		return ok && on.State == writ.TaskDone, err
	case writ.RefArtifact: // of what its holder may know of, so that nobody learns what there is
		if slices.ContainsFunc(made, func(m TaskMade) bool { return m.Digest == r.Ref }) {
			return true, nil
		}
		given, err := inputs(s, t)
		return slices.ContainsFunc(given, func(in TaskInput) bool { return in.Digest == r.Ref }), err
	}
	return true, nil
}

// shown says whether a handoff carries what the task asks for, and whether what it
// carries leads anywhere. All that is missing is said at once.
func shown(s writ.Snapshot, t writ.Task, refs []HandoffRef, made []TaskMade) error {
	e := writ.Refuse(writ.CodeInputInvalid, opHandoff, "the handoff does not carry what the task asks for", "give the references named in errors, and again with all of them")
	if rules := t.Handoff; rules != nil {
		for _, rule := range rules.Refs {
			i := slices.IndexFunc(refs, func(r HandoffRef) bool { return r.Name == rule.Name })
			switch {
			case i < 0:
				e.Fields = append(e.Fields, writ.FieldError{Pointer: "/refs", Msg: "lacks " + rule.Name})
			case rule.Kind != "" && refs[i].Kind != rule.Kind:
				e.Fields = append(e.Fields, writ.FieldError{Pointer: refPointer(i) + "/kind", Msg: "must be " + string(rule.Kind)})
			}
		}
	}
	for i, r := range refs {
		ok, err := leads(s, t, made, r)
		if err != nil {
			return err
		}
		if !ok {
			e.Fields = append(e.Fields, writ.FieldError{Pointer: refPointer(i) + "/ref", Msg: "leads to nothing of this run"})
		}
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}
