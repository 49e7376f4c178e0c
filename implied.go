package writ

// Entry is a member of an index, with the score it has or should have.
type Entry struct {
	Index  Index  `json:"index"`
	Member string `json:"member"`
	Score  int64  `json:"score,omitempty"`
}

// Range looks for the member, whatever its score.
func (e Entry) Range() Range { return Range{Index: e.Index, Member: e.Member, Limit: 1} }

// In says whether a snapshot shows the member, and its score. It wants Range.
func (e Entry) In(s Snapshot) (score int64, ok bool) {
	for _, m := range s.Ranges[e.Range()].Members {
		return m.Score, true
	}
	return 0, false
}

// Same says whether two are the same member, wherever it is.
func (e Entry) Same(o Entry) bool { return e.Index == o.Index && e.Member == o.Member }

// Implied says what documents imply about one member of an index, or about a counter.
// Rooms state it for who looks whether indexes hold what they should; no verb uses it.
type Implied struct {
	Entry
	Counter Counter // it is about this counter instead, which has the score

	Out  bool // it is no member
	May  bool // it may be one or not: whoever meets it drops it
	Any  bool // at whatever score: somebody moves it, or only its end
	Soon bool // at that score or a lower one: who is called too early looks again
	Why  string
}

// Holds says whether a snapshot shows what is implied. It wants the range of the
// entry, or the counter.
func (i Implied) Holds(s Snapshot) bool {
	if i.Counter.Entity != "" {
		return s.Counters[i.Counter] == i.Score
	}
	score, in := i.In(s)
	switch {
	case i.May:
		return true
	case i.Out || !in:
		return i.Out && !in
	case i.Any:
		return true
	case i.Soon:
		return score <= i.Score
	}
	return score == i.Score
}

// Mend makes it so.
func (i Implied) Mend(s Snapshot, tx *Tx) {
	switch {
	case i.Counter.Entity != "":
		tx.Within(i.Counter, s.Counters[i.Counter], s.Counters[i.Counter])
		tx.Add(i.Counter, i.Score-s.Counters[i.Counter])
	case i.Out:
		tx.Unindex(i.Index, i.Member)
	default:
		tx.Index(i.Index, i.Member, i.Score)
	}
}

// Count is a document's part in a counter that adds up over many.
type Count struct {
	Counter Counter
	N       int64
}

// Follower says what follows from the documents of one kind, which have the names
// "<kind>/<id>". Its functions are pure. What it implies rests on the documents and
// counters it reads, and on ranges of versioned indexes; other ranges only on what
// changes together with those.
type Follower struct {
	Kind string
	// Reads names what Implies must see beside the document and the entries it is
	// about; the document was read and is there.
	Reads func(id string, s Snapshot) (ReadSet, error)
	// Implies gives every member that indexes should have because of the document,
	// and those they might have and should not.
	Implies func(id string, s Snapshot) ([]Implied, error)
	// Sound says what contradicts itself in the document, or in those it names; ""
	// where nothing does. What is not sound implies nothing. Optional.
	Sound func(id string, s Snapshot) (string, error)
	// Counts gives its part in counters. Those of which it says 0 are looked at too.
	Counts func(id string, s Snapshot) ([]Count, error)
}

// Incoherent is what Sound says of a document of any kind: that it says it is another, or is
// in a state that the table of its moves does not have; "" where it is neither.
func Incoherent[S ~string](kind, id, says string, moves Table[S], state S) string {
	if says != id {
		return "the document says that it is another " + kind
	}
	if _, known := moves[state]; !known || state == "" {
		return "the " + kind + " is in a state there is not"
	}
	return ""
}

// InIf is an entry without a time that is to be there or not.
func InIf(is bool, i Index, member, why string) Implied {
	return Implied{Entry: Entry{Index: i, Member: member}, Out: !is, Why: why}
}
