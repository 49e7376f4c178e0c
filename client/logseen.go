package client

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// How many checkpoints that are not proven are kept, besides the newest. From many on
// calls ask for proofs, unless there was no answer; of more than most the first ones are
// kept, and the others counted. Until the keeper has them a client may have more: others may
// have had proven what waits.
const (
	manyUnproven = 16
	mostUnproven = 2 * manyUnproven
	mostUnkept   = 2 * mostUnproven
)

// LogSeen is what was seen of a log. The checkpoints are texts as the gateway signed
// them: with the key they are evidence.
type LogSeen struct {
	Key      string   `json:"verifier_key,omitempty"`
	Proven   string   `json:"proven,omitempty"`     // it goes on from all before it
	Shown    string   `json:"shown,omitempty"`      // the newest that is not proven yet
	Others   []string `json:"others,omitempty"`     // others that are not, smallest first
	NoAnswer bool     `json:"no_answer,omitempty"`  // the gateway gave no proof when it was last asked
	Checked  int64    `json:"checked_ms,omitempty"` // when proofs of all were last asked for

	Dropped LogDropped `json:"dropped,omitzero"` // stays until whoever keeps this takes it out
	Found   *LogError  `json:"found,omitempty"`  // what was wrong with it; stays until CheckLog has all proven, or whoever keeps this takes it out
}

// is says whether two are the same finding, or none.
func (e *LogError) is(o *LogError) bool {
	return e == o || e != nil && o != nil && *e == *o
}

// Wrong is what was found to be wrong with the log, by whichever client; nil where nothing was.
func (s LogSeen) Wrong() error {
	if s.Found == nil {
		return nil
	}
	return wrongLog(s.Found.Kept, s.Found.Shown, s.Found.Why)
}

// Valid says whether this can be what clients kept, and not something that was damaged. What
// waits need not be signed by the key: the gateway may have shown it so.
func (s LogSeen) Valid() bool {
	if s.Shown == "" && len(s.Others) > 0 || s.Dropped.Count < 0 || s.Found != nil && s.Found.Why == "" {
		return false
	}
	for _, text := range s.unproven() {
		if _, _, err := checkpoint.Unverified([]byte(text)); err != nil {
			return false
		}
	}
	var err error
	if s.Proven != "" {
		_, err = checkpoint.Parse([]byte(s.Proven), s.Key)
	} else if s.Key != "" {
		_, err = note.NewVerifier(s.Key)
	}
	return err == nil
}

// merge is what is to be kept where one client has seen s, and others have kept something
// since base was there: all that any of them saw, less what one of them has proven. What left
// base since was proven against what is kept now, or against what waits there, as long as they
// all are of one log; and if they are not, the proofs of what waits tell.
func (s LogSeen) merge(base, kept LogSeen, room int) LogSeen {
	d := s.Dropped.plus(kept.Dropped)
	if d.Count -= base.Dropped.Count; d.Count <= 0 { // they were taken out
		d = LogDropped{}
	}
	found := s.Found // or nothing, if that was proven to be wrong
	if found.is(base.Found) || found == nil && !kept.Found.is(base.Found) {
		found = kept.Found // found by another, or taken out
	}
	strange := s.Key != "" && kept.Key != "" && s.Key != kept.Key
	if strange || max(sizeOf(kept.Proven), sizeOf(kept.Shown)) < sizeOf(base.Proven) {
		base = LogSeen{} // what is kept now does not come of it: it was taken away, or an older one put there
	}
	all := kept
	all.Key, all.Dropped, all.Found = cmp.Or(s.Key, kept.Key), d, found
	if s.Checked >= kept.Checked {
		all.Checked, all.NoAnswer = s.Checked, s.NoAnswer
	}
	for _, text := range base.unproven() {
		if !slices.Contains(s.unproven(), text) {
			all.settle(text)
		}
	}
	more := slices.DeleteFunc(s.unproven(), func(text string) bool { return slices.Contains(base.unproven(), text) })
	if s.Proven != base.Proven || strange { // else others may have gone on from it
		if all.Proven = s.Proven; kept.Proven != base.Proven { // proven to the other: not that it and ours are of one log
			more = append(more, kept.Proven)
		}
	}
	all.settle(all.Proven)
	for _, text := range more {
		if text != "" && text != all.Proven && !slices.Contains(all.unproven(), text) {
			all.add(text, room)
		}
	}
	return all
}

// LogDropped counts the checkpoints that were shown and not kept, because too many others
// waited for their proofs. One of them may have been of another log, and no later proof
// tells. It is the Err of the *writ.Error that CheckLog gives as long as there are any.
type LogDropped struct {
	Count    int64 `json:"count"`
	Smallest int64 `json:"smallest"` // receipts of the smallest log among them
	Largest  int64 `json:"largest"`
}

func (d LogDropped) Error() string {
	return fmt.Sprintf("checkpoints that the gateway showed and did not prove: %d more than could be kept, of %d to %d receipts", d.Count, d.Smallest, d.Largest)
}

// plus are those of both.
func (d LogDropped) plus(e LogDropped) LogDropped {
	if d.Count == 0 || e.Count == 0 {
		return cmp.Or(d, e)
	}
	return LogDropped{d.Count + e.Count, min(d.Smallest, e.Smallest), max(d.Largest, e.Largest)}
}

// unproven are all that are not proven yet, smallest first.
func (s *LogSeen) unproven() []string {
	if s.Shown == "" {
		return nil
	}
	return append(slices.Clip(s.Others), s.Shown)
}

// add takes one more that is not proven. Where there is no room besides the newest, what is
// not that is counted only.
func (s *LogSeen) add(text string, room int) {
	if len(s.Others) < room {
		s.put(text)
		return
	}
	if sizeOf(s.Shown) < sizeOf(text) {
		text, s.Shown = s.Shown, text
	}
	s.Dropped = s.Dropped.plus(LogDropped{1, sizeOf(text), sizeOf(text)})
}

// put takes one more, room or not.
func (s *LogSeen) put(text string) {
	if s.Shown == "" {
		s.Shown = text
		return
	}
	if sizeOf(s.Shown) < sizeOf(text) {
		text, s.Shown = s.Shown, text
	}
	at, _ := slices.BinarySearchFunc(s.Others, sizeOf(text), func(o string, size int64) int { return cmp.Compare(sizeOf(o), size) })
	s.Others = slices.Insert(slices.Clone(s.Others), at, text) // others may read the old ones
}

// settle takes out one that is proven.
func (s *LogSeen) settle(text string) {
	left := slices.DeleteFunc(slices.Clone(s.unproven()), func(o string) bool { return o == text })
	s.Others, s.Shown = nil, ""
	if n := len(left); n > 0 {
		s.Others, s.Shown = left[:n-1:n-1], left[n-1]
	}
	if len(s.Others) == 0 {
		s.Others = nil
	}
}

// sizeOf is what a checkpoint that was read before says.
func sizeOf(text string) int64 {
	_, cp, err := checkpoint.Unverified([]byte(text))
	if err != nil {
		return 0
	}
	return cp.Size
}
