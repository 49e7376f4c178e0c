package policies

import (
	"context"

	"github.com/writ-gateway/writ"
)

// remembers says whether what the pack finds is worth keeping. A pack that sees
// the time is asked anew each second, and the parts of a call that are new by
// then are as a rule in what else it sees: its entries would never be used.
func (p *pack) remembers() bool {
	return p.memoised() && !p.reads.clock
}

// question is a pack of a route that must be evaluated.
type question struct {
	at  int    // of the route's packs
	key []byte // under which the answer is remembered; nil when it is not
}

// answer is what the packs of a route find in the call that b has written:
// remembered where nothing that a pack reads is new, and evaluated otherwise.
func (s *snapshot) answer(ctx context.Context, r *route, in writ.PolicyInput, b *builder) ([]writ.Finding, error) {
	found := make([][]writ.Finding, len(r.packs))
	var open []question
	hits, text := 0, make([]byte, 0, 1024)
	for i, p := range r.packs {
		q := question{at: i}
		if p.memo != nil {
			from := len(text)
			text = p.reads.key(text, b)
			q.key = text[from:]
			if f, ok := p.memo.get(q.key); ok {
				found[i] = f
				hits++
				continue
			}
		}
		open = append(open, q)
	}
	misses := 0
	for _, q := range open {
		if q.key != nil {
			misses++
		}
	}
	for _, c := range s.counts {
		c.add(hits, misses)
	}
	if len(open) > 0 {
		if err := s.evaluate(ctx, r, in, open, found); err != nil {
			return nil, err
		}
	}
	return strongest(found), nil
}

// evaluate asks the packs that are open: all in one query when none is
// remembered, each by itself otherwise. Either query is an array of references,
// which has no answer when one of them has none.
func (s *snapshot) evaluate(ctx context.Context, r *route, in writ.PolicyInput, open []question, found [][]writ.Finding) error {
	input, _, err := buildInput(in) // only now: what is remembered needs no value
	if err != nil {
		return err
	}
	cancel, stop := deadline(s.timeout)
	defer stop()
	if len(open) == len(r.packs) {
		if err := r.ask(ctx, input, cancel, found); err != nil {
			return err
		}
	} else {
		for _, q := range open {
			if err := r.packs[q.at].alone.ask(ctx, input, cancel, found[q.at:q.at+1]); err != nil {
				return err
			}
		}
	}
	for _, q := range open {
		if q.key != nil {
			r.packs[q.at].memo.put(q.key, found[q.at])
		}
	}
	return nil
}
