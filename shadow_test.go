package writ_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
)

func shade(effects ...writ.Effect) writ.Shade {
	s := writ.Shade{Pack: writ.PackVer{ID: "p", Digest: "sha256:aa"}}
	for _, e := range effects {
		s.Findings = append(s.Findings, writ.Finding{Pack: "p", Rule: "p." + string(e), Effect: e})
	}
	return s
}

// What a pack would change is what it asks for beyond what was enforced.
func TestShadowNote(t *testing.T) {
	var p writ.ShadowPack
	for i, d := range []struct {
		says     writ.Shade
		enforced writ.Effect
	}{
		{shade(), writ.EffectAllow},
		{shade(writ.EffectAllow), writ.EffectAllow},
		{shade(writ.EffectDeny, writ.EffectRequireApproval), writ.EffectAllow},
		{shade(writ.EffectDeny, writ.EffectRequireApproval), writ.EffectRequireApproval},
		{shade(writ.EffectDeny), writ.EffectDeny},
		{shade(writ.EffectRequireApproval), writ.EffectDeny},
		{shade(writ.EffectDeny), writ.EffectAllow},
		{writ.Shade{Err: fmt.Errorf("no answer")}, writ.EffectAllow},
	} {
		p.Note(d.says, d.enforced, fmt.Sprint(i))
	}
	want := writ.ShadowPack{Evaluated: 7, Failed: 1, Changed: 3, Changes: []writ.ShadowChange{
		{Rule: "p.deny", From: writ.EffectAllow, To: writ.EffectDeny, Count: 2, Samples: []string{"2", "6"}},
		{Rule: "p.deny", From: writ.EffectRequireApproval, To: writ.EffectDeny, Count: 1, Samples: []string{"3"}},
		{Rule: "p.require_approval", From: writ.EffectAllow, To: writ.EffectRequireApproval, Count: 1, Samples: []string{"2"}},
	}}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
}

// Counts add up; what is no longer in shadow, or has other bytes, does not.
func TestShadowWith(t *testing.T) {
	change := func(n int64, samples ...string) []writ.ShadowChange {
		return []writ.ShadowChange{{Rule: "p.deny", From: writ.EffectAllow, To: writ.EffectDeny, Count: n, Samples: samples}}
	}
	old := writ.Shadow{Packs: []writ.ShadowPack{
		{ID: "gone", Digest: "d", Since: 1, Evaluated: 5, Changed: 5},
		{ID: "new_bytes", Digest: "before", Since: 1, Evaluated: 5, Changed: 5},
		{ID: "p", Digest: "d", Since: 5, Evaluated: 5, Failed: 1, Changed: 2, Changes: change(2, "a", "b")},
	}}
	now := []writ.PackVer{{ID: "new_bytes", Digest: "after"}, {ID: "p", Digest: "d"}, {ID: "unasked", Digest: "d"}}
	got := old.With(now, []writ.ShadowPack{
		{ID: "gone", Digest: "d", Since: 2, Evaluated: 1},
		{ID: "new_bytes", Digest: "after", Since: 9, Evaluated: 1},
		{ID: "new_bytes", Digest: "before", Since: 2, Evaluated: 1},
		{ID: "p", Digest: "d", Since: 9, Evaluated: 3, Failed: 1, Changed: 2, Changes: change(2, "c", "d")},
	})
	want := writ.Shadow{Packs: []writ.ShadowPack{
		{ID: "new_bytes", Digest: "after", Since: 9, Evaluated: 1},
		{ID: "p", Digest: "d", Since: 5, Evaluated: 8, Failed: 2, Changed: 4, Changes: change(4, "b", "c", "d")},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if want := change(2, "a", "b"); !reflect.DeepEqual(old.Packs[2].Changes, want) {
		t.Errorf("the document that was read was changed: %+v", old.Packs[2].Changes)
	}
}

// Whatever is counted, it is one document.
func TestShadowFitsOneDocument(t *testing.T) {
	word := func(prefix string, n, i int) string { return fmt.Sprintf("%s%0*d", prefix, n-len(prefix), i) }
	var now []writ.PackVer
	doc := writ.Shadow{}
	for i := range 300 {
		v := writ.PackVer{ID: word("p", 63, i), Digest: "sha256:" + word("", 64, i)}
		now = append(now, v)
		p := writ.ShadowPack{ID: v.ID, Digest: v.Digest, Since: 1_790_000_000_000}
		for j := range 200 {
			s := writ.Shade{Findings: []writ.Finding{{Rule: word("r", 200, j), Effect: writ.EffectDeny}}}
			for range 5 {
				p.Note(s, writ.EffectRequireApproval, word("rcp_", 30, j))
			}
		}
		if len(p.Changes) != writ.MaxShadowChanges || p.Changed != 1000 {
			t.Fatalf("%d changes of %d decisions", len(p.Changes), p.Changed)
		}
		doc = doc.With(now, []writ.ShadowPack{p})
	}
	b, err := writ.EncodeDoc(writ.Snapshot{}, writ.ShadowKey, writ.ObjectShadow, doc)
	if err != nil || len(b) > writ.MaxDocBytes {
		t.Errorf("%d bytes, %v; at most %d fit", len(b), err, writ.MaxDocBytes)
	}
	rows := 0
	for _, p := range doc.Packs {
		rows += len(p.Changes)
	}
	if len(doc.Packs) != writ.MaxShadowPacks || rows != writ.MaxShadowChanges {
		t.Errorf("%d packs and %d changes are kept, want %d and %d", len(doc.Packs), rows, writ.MaxShadowPacks, writ.MaxShadowChanges)
	}
}

// Of what does not fit, packs that would have changed nothing go first.
func TestShadowKeepsWhatWouldChange(t *testing.T) {
	var now []writ.PackVer
	var counted []writ.ShadowPack
	for i := range 2*writ.MaxShadowPacks - 10 {
		id := fmt.Sprintf("p%03d", i)
		now = append(now, writ.PackVer{ID: id})
		counted = append(counted, writ.ShadowPack{ID: id, Since: 1, Evaluated: 1, Changed: int64(i % 2)})
	}
	got := writ.Shadow{}.With(now, counted).Packs
	quiet := 0
	for _, p := range got {
		if p.Changed == 0 {
			quiet++
		}
	}
	if len(got) != writ.MaxShadowPacks || quiet != 5 {
		t.Errorf("%d packs are kept, of which %d would have changed nothing; want %d and 5", len(got), quiet, writ.MaxShadowPacks)
	}
}
