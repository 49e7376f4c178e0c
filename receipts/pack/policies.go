package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// judged is what receipts say of the bundles a pack must have that promises its policies: one with each
// policy pack they were judged by, and those they put in force. What one says again says nothing new.
type judged struct {
	wants []wanted
	known map[wanted]bool // without their receipts
}

// wanted is a policy pack or a bundle, by its digest, and who says it first.
type wanted struct {
	pack, bundle string
	seq          int64
}

func (j *judged) note(seq int64, st writ.Statement) {
	for _, p := range st.Decision.Packs {
		j.want(wanted{pack: p.Digest}, seq)
	}
	for _, c := range st.Changes {
		if c.Kind == writ.ObjectBundle && c.To == string(writ.BundleActive) {
			j.want(wanted{bundle: writ.BundleID(c.ID).Digest()}, seq)
		}
	}
}

func (j *judged) want(x wanted, seq int64) {
	if j.known == nil {
		j.known = map[wanted]bool{}
	}
	if !j.known[x] {
		j.known[x] = true
		x.seq = seq
		j.wants = append(j.wants, x)
	}
}

// names says whether receipts name a policy pack.
func (j *judged) names(pack string) bool { return j.known[wanted{pack: pack}] }

// missing are the receipts, each once, of which a bundle is not there.
func (j *judged) missing(has func(file string) bool, packs map[string]bool) (seqs []int64) {
	for _, x := range j.wants {
		if x.pack != "" && packs[x.pack] || x.bundle != "" && has(policyName(x.bundle)) {
			continue
		}
		seqs = append(seqs, x.seq)
	}
	return slices.Compact(seqs)
}

// packsIn adds the digests of the policy packs in a bundle: of each the files below packs/<id>/, in order
// of their names. An archive that is read in more ways than one has none.
func packsIn(text []byte, packs map[string]bool) {
	names, places, bad, err := placesIn(bytes.NewReader(text), int64(len(text)))
	if err != nil || len(bad) > 0 {
		return
	}
	slices.Sort(names)
	sums := map[string]hash.Hash{}
	for _, name := range names {
		below, is := strings.CutPrefix(name, "packs/")
		id, base, of := strings.Cut(below, "/")
		if !is || !of {
			continue
		}
		if sums[id] == nil {
			sums[id] = sha256.New()
		}
		at := places[name]
		_, _ = fmt.Fprintf(sums[id], "%d:%s%d:%s", len(base), base, at.size, text[at.at:at.at+at.size])
	}
	for _, sum := range sums {
		packs["sha256:"+hex.EncodeToString(sum.Sum(nil))] = true
	}
}

// bundled takes the bundles that receipts were judged by. What was in force below the checkpoint is kept
// for good, so what is here follows from the log: one that was only staged may be gone tomorrow.
func (w *writer) bundled() error {
	want := func(packs []writ.PackVer) bool {
		return slices.ContainsFunc(packs, func(p writ.PackVer) bool { return w.judged.names(p.Digest) })
	}
	packs := map[string]bool{}
	for text, err := range w.src.Policies(w.ctx, slices.Sorted(maps.Keys(w.inForce)), want) {
		if err != nil {
			return err
		}
		digest := sumOf(text)
		w.bundles[policyName(digest)] = "sha256:" + digest
		packsIn(text, packs)
	}
	has := func(file string) bool { return w.bundles[file] != "" }
	w.laws = len(w.bundles) > 0 && len(w.judged.missing(has, packs)) == 0
	return nil
}

// policies writes the bundles, each asked for once more.
func (w *writer) policies() error {
	for _, name := range slices.Sorted(maps.Keys(w.bundles)) {
		digest, n := w.bundles[name], 0
		for text, err := range w.src.Policies(w.ctx, []string{digest}, func([]writ.PackVer) bool { return true }) {
			if err != nil {
				return err
			}
			if n++; policyName(sumOf(text)) != name {
				return fmt.Errorf("policy bundle %s is another now: export again", digest)
			}
			if err := w.out.File(name, text); err != nil {
				return err
			}
		}
		if n != 1 {
			return fmt.Errorf("policy bundle %s is there no more: export again", digest)
		}
	}
	return nil
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
