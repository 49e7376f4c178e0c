package writ

import (
	"cmp"
	"slices"
	"strings"
)

// ShadowKey is the document that says what packs in shadow would have done.
const ShadowKey Key = "shadow"

// ObjectShadow is its kind. Nothing moves it: receipts of it are aggregates.
const ObjectShadow = "shadow"

// Bounds of what is kept about packs in shadow; together they fit one document.
const (
	MaxShadowPacks   = 64
	MaxShadowChanges = 96 // of all packs together
	MaxShadowSamples = 3  // of one change, the newest
)

// Shadow is what packs in shadow would have done had they been enforced. Packs
// leave it when they are no longer in shadow, and a pack of other bytes begins
// anew.
type Shadow struct {
	Packs   []ShadowPack `json:"packs"`   // by id
	Receipt ReceiptID    `json:"receipt"` // of the aggregate that wrote it
}

// ShadowPack counts the decisions one pack was asked about after they were taken.
type ShadowPack struct {
	ID        string         `json:"id"`
	Digest    string         `json:"digest"`
	Since     int64          `json:"since"`            // of the first, milliseconds
	Evaluated int64          `json:"evaluated"`        // decisions it had an answer to
	Failed    int64          `json:"failed,omitempty"` // decisions it had none to
	Changed   int64          `json:"changed"`          // decisions it would have made stronger
	Changes   []ShadowChange `json:"changes,omitempty"`
}

// ShadowChange counts how often one rule asked for more than was enforced.
type ShadowChange struct {
	Rule    string   `json:"rule"`
	From    Effect   `json:"from"` // enforced
	To      Effect   `json:"to"`   // what the rule asks for
	Count   int64    `json:"count"`
	Samples []string `json:"samples,omitempty"` // ids of receipts, or of calls that left none; oldest first
}

// Shade is what a pack in shadow says of a decision, or why it cannot say.
type Shade struct {
	Pack     PackVer
	Findings []Finding // strongest first
	Err      error
}

// Effect is what the decision would have been with the pack enforced as well.
func (s Shade) Effect(enforced Effect) Effect {
	if len(s.Findings) > 0 && s.Findings[0].Effect.Rank() > enforced.Rank() {
		return s.Findings[0].Effect
	}
	return enforced
}

// Note counts one decision. sample is its receipt, or its call.
func (p *ShadowPack) Note(s Shade, enforced Effect, sample string) {
	if s.Err != nil {
		p.Failed++
		return
	}
	p.Evaluated++
	if s.Effect(enforced) == enforced {
		return
	}
	p.Changed++
	for _, f := range s.Findings {
		if f.Effect.Rank() > enforced.Rank() {
			p.add(ShadowChange{Rule: f.Rule, From: enforced, To: f.Effect, Count: 1, Samples: []string{sample}}, MaxShadowChanges-len(p.Changes))
		}
	}
}

// Add counts what q counts as well; room is for how many changes not yet known.
func (p *ShadowPack) Add(q ShadowPack, room int) {
	if p.Since == 0 || q.Since > 0 && q.Since < p.Since {
		p.Since = q.Since
	}
	p.Evaluated, p.Failed, p.Changed = p.Evaluated+q.Evaluated, p.Failed+q.Failed, p.Changed+q.Changed
	for _, c := range q.Changes {
		before := len(p.Changes)
		p.add(c, room)
		room -= len(p.Changes) - before
	}
}

// add counts a change, in the order of rule, from and to. Beyond the bound a new
// one is counted in Changed alone.
func (p *ShadowPack) add(c ShadowChange, room int) {
	i, found := slices.BinarySearchFunc(p.Changes, c, func(a, b ShadowChange) int {
		return cmp.Or(strings.Compare(a.Rule, b.Rule), strings.Compare(string(a.From), string(b.From)), strings.Compare(string(a.To), string(b.To)))
	})
	switch {
	case found:
		old := &p.Changes[i]
		old.Count += c.Count
		all := slices.Concat(old.Samples, c.Samples)
		old.Samples = all[max(0, len(all)-MaxShadowSamples):]
	case room > 0:
		c.Samples = slices.Clone(c.Samples[max(0, len(c.Samples)-MaxShadowSamples):])
		p.Changes = slices.Insert(p.Changes, i, c)
	}
}

// With is the document after more was counted, for the packs that are in shadow
// now, which are sorted by id. Of what does not fit, packs without changes go first.
func (s Shadow) With(now []PackVer, more []ShadowPack) Shadow {
	out, room := Shadow{Packs: []ShadowPack{}}, MaxShadowChanges
	for _, v := range now {
		p := ShadowPack{ID: v.ID, Digest: v.Digest}
		for _, known := range slices.Concat(s.Packs, more) {
			if known.ID == v.ID && known.Digest == v.Digest {
				p.Add(known, room-len(p.Changes))
			}
		}
		room -= len(p.Changes)
		if p.Since > 0 {
			out.Packs = append(out.Packs, p)
		}
	}
	over := len(out.Packs) - MaxShadowPacks
	out.Packs = slices.DeleteFunc(out.Packs, func(p ShadowPack) bool {
		drop := over > 0 && p.Changed == 0
		if drop {
			over--
		}
		return drop
	})
	out.Packs = out.Packs[:min(len(out.Packs), MaxShadowPacks)]
	return out
}
