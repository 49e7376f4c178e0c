package tlog

import (
	"fmt"

	"github.com/writ-gateway/writ"
	"golang.org/x/mod/sumdb/tlog"
)

// Inclusion proves that a leaf is in the log.
type Inclusion struct {
	Index      int64
	Leaf       []byte
	Hashes     []tlog.Hash // RFC 6962, 2.1.1
	Checkpoint Checkpoint
	LogID      []byte // SHA-256 of the log's key as a note has it
}

// Include proves leaf i under the latest checkpoint; ok is false while that does not
// cover it.
func (l *Log) Include(i int64) (p Inclusion, ok bool, err error) {
	cp := l.Latest()
	if i < 0 || i >= cp.Size {
		return p, false, nil
	}
	p = Inclusion{Index: i, Checkpoint: cp, LogID: l.key.id()}
	if p.Leaf, err = l.Entry(i); err != nil {
		return p, false, err
	}
	p.Hashes, err = tlog.ProveRecord(cp.Size, i, l.reader())
	return p, err == nil, err
}

// Receipt is the proof as a receipt carries it.
func (p Inclusion) Receipt() *writ.Inclusion {
	out := &writ.Inclusion{
		Index: p.Index, Size: p.Checkpoint.Size, Leaf: p.Leaf, Root: p.Checkpoint.Root[:], Checkpoint: p.Checkpoint.Text, LogID: p.LogID,
	}
	for _, h := range p.Hashes {
		out.Hashes = append(out.Hashes, h[:])
	}
	return out
}

// Check proves the proof: the leaf is the one under the root.
func (p Inclusion) Check() error {
	return tlog.CheckRecord(p.Hashes, p.Checkpoint.Size, p.Checkpoint.Root, p.Index, tlog.RecordHash(p.Leaf))
}

// Consistent proves that the log of the latest checkpoint begins with the one of
// another size: RFC 6962, 2.1.2. With until, a size between the two, it proves it of
// the log as it was then.
func (l *Log) Consistent(size, until int64) (proof []tlog.Hash, cp Checkpoint, err error) {
	cp = l.Latest()
	if until == 0 {
		until = cp.Size
	}
	if size < 1 || size > until || until > cp.Size {
		return nil, cp, fmt.Errorf("a log of %d has no beginning of %d in one of %d", cp.Size, size, until)
	}
	proof, err = tlog.ProveTree(until, size, l.reader())
	return proof, cp, err
}

func (l *Log) root(size int64) (tlog.Hash, error) {
	if size == 0 {
		return tlog.Hash{}, nil
	}
	return tlog.TreeHash(size, l.reader())
}

// reader reads hashes out of tiles, and out of the edge where those are not full.
func (l *Log) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		l.mu.RLock()
		defer l.mu.RUnlock()
		tiles := map[tlog.Tile][]byte{}
		out := make([]tlog.Hash, 0, len(indexes))
		for _, i := range indexes {
			t := tileOf(i, l.size)
			data, have := tiles[t]
			if !have {
				var err error
				if data, err = l.tile(t); err != nil {
					return nil, err
				}
				tiles[t] = data
			}
			h, err := tlog.HashFromTile(t, data, i)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			out = append(out, h)
		}
		return out, nil
	})
}

func (l *Log) tile(t tlog.Tile) ([]byte, error) {
	if t.W < width {
		if t.L >= len(l.edge) || len(l.edge[t.L]) != t.W {
			return nil, fmt.Errorf("%w: a tile is missing", ErrDamaged)
		}
		return join(l.edge[t.L]), nil
	}
	return l.file(t.L, t.N, t.W)
}
