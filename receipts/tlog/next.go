package tlog

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A log that cannot go on from what it has published is frozen: its files stay as they
// are, and the next shard begins below them, under another name, with all receipts of the
// ledger. Two files in the next shard say what became of the one before; as soon as the
// first is there that one is frozen.
const (
	PreviousPath = "previous.json"
	OrphansPath  = "orphans.jsonl"
)

// Previous is what a shard says of the one before it.
type Previous struct {
	Format     string `json:"format"`
	Log        string `json:"log"`                    // name of the shard this is said in
	Before     string `json:"previous"`               // name of the one before
	Key        string `json:"verifier_key,omitempty"` // of the one before; none: it is lost
	Checkpoint string `json:"checkpoint"`             // its last, signed
	Common     int64  `json:"common"`                 // so many receipts, from the first on, are in both
	CommonRoot []byte `json:"common_root,omitempty"`  // of those, in both
	Orphans    int64  `json:"orphans"`                // receipts of the one before that this one has not, listed in OrphansPath
	Incomplete string `json:"incomplete,omitempty"`   // what is wrong with its files: that list may not be whole, unless it has nothing but what is in common
}

// PreviousFormat is the form of Previous.
const PreviousFormat = "writ-log-previous/v1"

// Orphan is an entry of a log that its ledger does not have at its index.
type Orphan struct {
	Index  int64  `json:"index"`
	Digest string `json:"digest,omitempty"` // SHA-256 of what was signed, hex; none: it is no entry in a form this version knows
	Other  bool   `json:"other"`            // the ledger has another receipt there
}

// Parting is where a log and its ledger part.
type Parting struct {
	Common     int64
	CommonRoot tlog.Hash // zero when they have nothing in common
	Orphans    []Orphan
	Incomplete error // the log's own files do not show all of its entries
}

// Below are the files in a directory of others.
func Below(files Files, dir string) Files {
	if dir == "" {
		return files
	}
	if d, ok := files.(Dir); ok {
		return Dir(filepath.Join(string(d), dir))
	}
	return below{files, dir + "/"}
}

type below struct {
	Files
	dir string
}

func (b below) Read(path string) ([]byte, error)         { return b.Files.Read(b.dir + path) }
func (b below) Swap(path string, old, data []byte) error { return b.Files.Swap(b.dir+path, old, data) }
func (b below) Clear(dir string) error                   { return b.Files.Clear(b.dir + dir) }
func (b below) String() string                           { return strings.TrimSuffix(b.Files.String(), "/") + "/" + b.dir }

// Part holds every entry under a checkpoint to the ledger's receipts. Files that are damaged
// say nothing against a ledger that gives the root of the checkpoint.
func Part(ctx context.Context, files Files, cp Checkpoint, s Source, public func(keyID string) ([]byte, bool)) (Parting, error) {
	ledger := &Follower{source: s, public: public}
	p, err := part(ctx, files, cp, ledger)
	if err != nil || p.Incomplete == nil {
		return p, err
	}
	has, err := ledger.has(ctx, cp)
	if has {
		p.Common, p.CommonRoot, p.Orphans = cp.Size, cp.Root, nil
	}
	return p, err
}

// has says whether the ledger gives the root of a checkpoint.
func (f *Follower) has(ctx context.Context, cp Checkpoint) (bool, error) {
	if cp.Size < 1 || f.source.Last()+1 < cp.Size {
		return false, nil
	}
	var all frontier
	for all.size < cp.Size {
		leaves, err := f.leaves(all.size-1, int(min(batch, cp.Size-all.size)))
		if err = errors.Join(err, ctx.Err()); err != nil || len(leaves) == 0 {
			return false, err
		}
		for _, leaf := range leaves {
			all.add(tlog.RecordHash(leaf))
		}
	}
	return all.root() == cp.Root, nil
}

func part(ctx context.Context, files Files, cp Checkpoint, ledger *Follower) (p Parting, err error) {
	var all frontier
	defer func() {
		if len(p.Orphans) == 0 && all.size > 0 {
			p.Common, p.CommonRoot = all.size, all.root()
		}
	}()
	log := &Log{files: files}
	for n := int64(0); n*width < cp.Size; n++ {
		data, err := log.file(entriesLevel, n, int(min(width, cp.Size-n*width)))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
			p.Incomplete = fmt.Errorf("entries from %d on cannot be read: %w", n*width, err)
			return p, nil
		}
		if err != nil { // it may answer later
			return p, err
		}
		leaves := split(data)
		want, err := ledger.leaves(n*width-1, len(leaves))
		if err = errors.Join(err, ctx.Err()); err != nil {
			return p, err
		}
		for i, leaf := range leaves {
			index := n*width + int64(i)
			same := i < len(want) && bytes.Equal(leaf, want[i])
			if !same && index > 0 && len(p.Orphans) == 0 {
				p.Common, p.CommonRoot = index, all.root()
			}
			if all.add(tlog.RecordHash(leaf)); same {
				continue
			}
			o := Orphan{Index: index, Other: i < len(want)}
			if digest, _, _, err := parseLeaf(leaf); err == nil {
				o.Digest = hex.EncodeToString(digest[:])
			}
			p.Orphans = append(p.Orphans, o)
		}
	}
	if all.size > 0 && all.root() != cp.Root {
		p.Incomplete = fmt.Errorf("%w: its entries give another root than its checkpoint", ErrDamaged)
	}
	return p, nil
}

// frontier is a tree of which the roots of its whole subtrees are known, the largest first.
type frontier struct {
	size  int64
	roots []tlog.Hash
}

func (f *frontier) add(h tlog.Hash) {
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.roots) - 1
		h, f.roots = tlog.NodeHash(f.roots[last], h), f.roots[:last]
	}
	f.roots = append(f.roots, h)
	f.size++
}

func (f *frontier) root() tlog.Hash {
	last := len(f.roots) - 1
	h := f.roots[last]
	for i := last - 1; i >= 0; i-- {
		h = tlog.NodeHash(f.roots[i], h)
	}
	return h
}

// Frozen says what the next shard says of the one before it, if it is begun: that one is
// frozen then.
func Frozen(next Files) (p Previous, is bool, err error) {
	text, err := next.Read(PreviousPath)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err == nil && p.Format != PreviousFormat {
		err = errors.New("it is in a form this version does not know")
	}
	if err != nil {
		return p, true, fmt.Errorf("%s of %s: %w", PreviousPath, next, err)
	}
	return p, true, nil
}

// Freeze begins the next shard, and so freezes the one before: Previous comes last.
// Until then it may be begun again.
func Freeze(next Files, p Previous, orphans []Orphan) error {
	var list bytes.Buffer
	for _, o := range orphans {
		line, err := json.Marshal(o)
		if err != nil {
			return err
		}
		list.Write(append(line, '\n'))
	}
	p.Format, p.Orphans = PreviousFormat, int64(len(orphans))
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path string
		text []byte
	}{{OrphansPath, list.Bytes()}, {PreviousPath, append(text, '\n')}} {
		have, err := next.Read(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			have, err = nil, nil
		}
		if err != nil {
			return err
		}
		if err := next.Swap(f.path, have, f.text); err != nil {
			return err
		}
	}
	return nil
}
