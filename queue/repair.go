package queue

import (
	"maps"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// QueueRepairArgs name what was found to be wrong. What becomes of it is worked out
// anew from the documents; of counters it is what they are off by.
type QueueRepairArgs struct {
	Documents []RepairDocument `json:"documents,omitempty" doc:"Documents that indexes or lanes do not follow from." maxItems:"32"`
	Counters  []RepairCounter  `json:"counters,omitempty" doc:"Counters over many documents, and what each is off by." maxItems:"200"`
	Since     int64            `json:"since,omitempty" doc:"Version of the last repair when the counters were compared: nothing else changes what one is off by." minimum:"0"`
}

// RepairDocument is a document, and where it was met.
type RepairDocument struct {
	Document writ.Key      `json:"document" doc:"Name of the document." pattern:"^[a-z]+/[A-Za-z0-9._/@-]{1,200}$"`
	Met      []RepairEntry `json:"met,omitempty" doc:"Members of indexes that name it." maxItems:"64"`
	Lanes    []writ.Lane   `json:"lanes,omitempty" doc:"Lanes it is missing in." maxItems:"64"`
}

// RepairEntry is a member of an index.
type RepairEntry struct {
	Index  writ.Index `json:"index" doc:"Name of the index." maxLength:"256"`
	Member string     `json:"member" doc:"The member." minLength:"1" maxLength:"1024"`
}

// RepairCounter is a counter that is off.
type RepairCounter struct {
	Entity string `json:"entity" doc:"Entity of the counter." pattern:"^(run|agent|quota|approvals)/[A-Za-z0-9._/@-]{1,200}$"`
	Field  string `json:"field" doc:"Field of the counter." pattern:"^(open|bad|effects|running|used|pending|held\\.[a-z_]{1,64}|[0-9]/[A-Za-z0-9._/@-]{1,250})$"`
	Add    int64  `json:"add" doc:"What is added to it." minimum:"-100000000000000" maximum:"100000000000000"`
}

// QueueRepaired says what was mended.
type QueueRepaired struct {
	Mended  map[string]int64 `json:"mended" doc:"How many things, by their kind: an index, a counter, or lane."`
	More    bool             `json:"more,omitempty" doc:"Whether some did not fit into the transaction."`
	Version int64            `json:"version" doc:"Version of this repair; 0 when nothing was wrong."`
}

const opRepair = "queue.Repair"

// mendable are the sorts of indexes that follow from documents alone. A member of any
// other is nobody's to take away for want of a document.
var mendable = []string{
	"list.runs", "list.agents", "list.sessions", "list.approvals", "list.tasks", "list.children", "list.by", "list.dead", "list.verify", "list.backlog", "list.blob", "list.artifacts", "list.tools", "list.owners", "list.routes",
	"due.lease", "due.ready", "due.beat", "due.life", "due.approval", "due.probe", "scope.x", "scope.agents", "v.held", "v.sessions", "v.dependents",
}

// met are the entries a document was met at: members that name it, of indexes that
// follow from documents.
func (d RepairDocument) met() (out []writ.Entry) {
	_, id, _ := strings.Cut(string(d.Document), "/")
	for _, e := range d.Met {
		if id != "" && strings.Contains(e.Member, id) && slices.Contains(mendable, e.Index.Sort()) {
			out = append(out, writ.Entry{Index: e.Index, Member: e.Member})
		}
	}
	return out
}

// repairCapability puts indexes, lanes and counters back to what documents imply.
// Every document is expected as it was read, and with it all that changes together
// with it; counters that were read are expected at their values. What a sum over many
// documents is off by stays the same whatever calls do, since each moves documents and
// sum in one commit: only another repair changes it, and that is seen by its document.
func repairCapability(check Checker) *writ.Capability {
	return writ.Define[QueueRepairArgs, QueueRepaired](mandate("queue.repair", "Put indexes, lanes and counters back to what documents imply."), writ.Verb[QueueRepairArgs]{
		Locks: func(*writ.Call, *QueueRepairArgs) []writ.Key { return []writ.Key{writ.RepairsKey} },
		Reads: func(c *writ.Call, a *QueueRepairArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Docs: []writ.Key{writ.RepairsKey}}
			if c.Entry != nil && writ.TaskID(c.Entry.Entry).Valid() {
				rs.Docs = append(rs.Docs, writ.TaskKey(writ.TaskID(c.Entry.Entry)))
			}
			for _, d := range a.Documents {
				more, err := check.Reads(d.Document, s, d.met())
				if err != nil {
					return rs, err
				}
				rs = rs.Join(more)
			}
			return rs, nil
		},
		Plan: func(c *writ.Call, a *QueueRepairArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return repairPlan(check, c, a, s)
		},
	})
}

func repairPlan(check Checker, c *writ.Call, a *QueueRepairArgs, s writ.Snapshot) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	old, version, _, err := writ.Get[writ.Repairs](s, writ.RepairsKey)
	if err != nil {
		return refuse(err)
	}
	d, out := begin(opRepair, c, s), QueueRepaired{Mended: map[string]int64{}}
	if len(a.Counters) > 0 && version != a.Since {
		return refuse(writ.Refuse(writ.CodeVersion, opRepair, "something was repaired since the counters were compared", "compare them again"))
	}
	for _, n := range a.Counters {
		counter := writ.Counter{Entity: n.Entity, Field: n.Field}
		if n.Add != 0 {
			d.tx.Add(counter, n.Add)
			out.Mended[counter.Sort()]++
		}
	}
	for _, doc := range a.Documents {
		if d.full() {
			out.More = true
			break
		}
		if err := d.repair(check, doc, out.Mended); err != nil {
			return refuse(err)
		}
	}
	if c.Entry != nil {
		drop, err := astray(s, *c.Entry)
		if err != nil {
			return refuse(err)
		}
		if drop {
			d.tx.Ack(*c.Entry)
			out.Mended["lane"]++
		}
	}
	d.tx.Mandate = true
	if len(out.Mended) == 0 {
		return writ.Tx{Mandate: true}, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
	}
	d.tx.Cause(old.Receipt)
	for _, kind := range slices.Sorted(maps.Keys(out.Mended)) {
		d.tx.Mended(d.receipt, kind, out.Mended[kind])
	}
	err = d.tx.PutDoc(s, writ.RepairsKey, "repairs", writ.Repairs{Mended: out.Mended, At: s.Now, Receipt: d.receipt})
	return d.tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out, Versioned: []string{"version"}}, err
}

// repair mends what does not follow from one document.
func (d *draft) repair(check Checker, doc RepairDocument, mended map[string]int64) error {
	wrong, err := check.Check(doc.Document, d.s, doc.met())
	if err != nil {
		return err
	}
	lanes, err := d.missingFrom(doc)
	if err != nil || len(wrong)+len(lanes) == 0 {
		return err
	}
	seen, err := check.Reads(doc.Document, d.s, nil)
	if err != nil {
		return err
	}
	about := func(c writ.Counter) bool {
		return slices.ContainsFunc(wrong, func(i writ.Implied) bool { return i.Counter == c })
	}
	for _, c := range seen.Counters {
		// What is mended is expected as it was there. How many are offered moves all the
		// time, and decides only whether a follow-up is left that may come for nothing.
		if !about(c) && c.Sort() != "run.offered" {
			d.exactly(c)
		}
	}
	for _, i := range wrong {
		i.Mend(d.s, &d.tx)
		if i.Counter.Entity != "" {
			mended[i.Counter.Sort()]++
		} else {
			mended[i.Index.Sort()]++
		}
	}
	for _, l := range lanes {
		d.tx.Push(l, string(writ.TaskID(doc.Document[len("task/"):])))
		mended["lane"]++
	}
	return nil
}

// missingFrom are the lanes a task must lie in of those it was not found in. One
// entry too many is harmless.
func (d *draft) missingFrom(doc RepairDocument) (out []writ.Lane, err error) {
	if len(doc.Lanes) == 0 {
		return nil, nil
	}
	t, ok, err := peek[writ.Task](d.s, doc.Document)
	if err != nil || !ok || doc.Document != writ.TaskKey(t.ID) || !InLanes(t, d.s) {
		return nil, err
	}
	for _, l := range doc.Lanes {
		if slices.Contains(t.Lanes(), l) && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out, nil
}

// astray says that a received entry is of no task of its lane.
func astray(s writ.Snapshot, e writ.Delivery) (bool, error) {
	id := writ.TaskID(e.Entry)
	if !id.Valid() {
		return true, nil
	}
	t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(id))
	return err == nil && (!ok || !slices.Contains(t.Lanes(), e.Lane)), err
}
