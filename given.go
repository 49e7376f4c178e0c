package writ

// Given are the kinds of data a session has been given: with each task it took, and with
// what whoever opened it had been given by then. It only grows, since what was read stays
// read when a task is given back, and it is forgotten when no session can live any longer.
type Given struct {
	Labels []Label `json:"labels"`
}

// GivenKey is the document of what a session has been given.
func GivenKey(id SessionID) Key { return Key("given/" + string(id)) }

// GivenTo are the labels a session has been given. It wants GivenKey.
func GivenTo(s Snapshot, id SessionID) ([]Label, error) {
	g, _, _, err := Get[Given](s, GivenKey(id))
	return g.Labels, err
}

// Give notes what kinds of data a session is given, unless it had them all. It wants
// GivenKey.
func (t *Tx) Give(s Snapshot, to SessionID, labels []Label) error {
	had, err := GivenTo(s, to)
	if err != nil {
		return err
	}
	all := JoinLabels(had, labels)
	if len(all) == len(had) {
		return nil
	}
	body, err := EncodeDoc(s, GivenKey(to), "given", Given{Labels: all})
	if err != nil {
		return err
	}
	t.PutFor(GivenKey(to), body, 1000*SessionMaxLifeSeconds)
	return nil
}
