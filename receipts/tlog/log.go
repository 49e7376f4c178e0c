package tlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// maxLeaf is the longest leaf an entry bundle can state.
const maxLeaf = 1<<16 - 1

// Log is the log in some files. Append and Publish are for one caller, who has the
// files for itself; all else is safe beside them.
type Log struct {
	files Files
	key   *Key

	mu        sync.RWMutex // guards what is below
	tree                   // of the leaves there are, published or not
	entries   []byte       // the entry bundle that is not full
	published Checkpoint

	witnesses   []*Witness
	open        bool  // a checkpoint they do not cosign is published all the same
	unwitnessed error // guarded by mu

	unsure [][]byte // checkpoints whose writing failed: one may be there; whoever publishes has them
}

// tree is what is known of a tree besides its full tiles.
type tree struct {
	size int64         // leaves
	edge [][]tlog.Hash // by level, the tile that is not full
}

// Open reads the log in a directory, making it if needed, and holds it to its latest
// checkpoint, which must be signed by key.
func Open(dir string, key *Key) (*Log, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, notReady("tlog.Open", "the directory of the log cannot be made", "choose one the gateway's user can write to", err)
	}
	return OpenFiles(Dir(dir), key)
}

// OpenFiles reads the log in some files, as Open does.
func OpenFiles(files Files, key *Key) (*Log, error) {
	const op = "tlog.Open"
	l := &Log{files: files, key: key}
	text, err := files.Read(CheckpointPath)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = l.load(text)
	}
	if err != nil {
		return nil, notReady(op, "the log in "+files.String()+" cannot be used", "put it aside and start again: it is made anew from the ledger, the same as it was, as long as its key is", err)
	}
	return l, nil
}

// load brings the edge of the tree of a checkpoint back, and checks it.
func (l *Log) load(text []byte) error {
	verifier, err := l.key.Verifier()
	if err != nil {
		return err
	}
	cp, err := ParseCheckpoint(text, verifier)
	if err != nil {
		return err
	}
	if err := l.loadEdge(cp.Size); err != nil {
		return err
	}
	l.published = cp
	root, err := l.root(cp.Size)
	if err == nil && root != cp.Root {
		err = fmt.Errorf("%w: its tiles give another root than its checkpoint", ErrDamaged)
	}
	return err
}

// loadEdge reads the tiles of a tree of some size that are not full, and its last entries.
func (l *Log) loadEdge(size int64) error {
	for level := 0; size>>(height*level) > 0; level++ {
		n := size >> (height * level)
		var hashes []tlog.Hash
		if w := int(n % width); w > 0 {
			data, err := l.file(level, n/width, w)
			if err != nil {
				return err
			}
			for chunk := range slices.Chunk(data, tlog.HashSize) {
				hashes = append(hashes, tlog.Hash(chunk))
			}
		}
		l.edge = append(l.edge, hashes)
	}
	if w := int(size % width); w > 0 {
		var err error
		if l.entries, err = l.file(entriesLevel, size/width, w); err != nil {
			return err
		}
	}
	l.size = size
	return nil
}

// file reads a tile or an entry bundle of a width: the partial one, or the beginning of
// the full one that has taken its place.
func (l *Log) file(level int, n int64, w int) ([]byte, error) {
	first, wide := firstHashes, w
	if level == entriesLevel {
		first = firstEntries
	}
	data, err := l.files.Read(tilePath(level, n, wide))
	if errors.Is(err, fs.ErrNotExist) && w < width {
		wide = width
		data, err = l.files.Read(tilePath(level, n, wide))
	}
	if err != nil {
		return nil, err
	}
	if all, err := first(data, wide); err != nil || len(all) != len(data) {
		return nil, fmt.Errorf("%w: %s has not the length it must have", ErrDamaged, tilePath(level, n, wide))
	}
	return first(data, w)
}

// firstHashes cuts a tile behind its first w hashes.
func firstHashes(data []byte, w int) ([]byte, error) {
	if len(data) < w*tlog.HashSize {
		return nil, fmt.Errorf("%w: a tile is too short", ErrDamaged)
	}
	return data[:w*tlog.HashSize], nil
}

// firstEntries cuts an entry bundle behind its first w entries.
func firstEntries(data []byte, w int) ([]byte, error) {
	rest := data
	for range w {
		if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
			return nil, fmt.Errorf("%w: an entry bundle is too short", ErrDamaged)
		}
		rest = rest[2+int(binary.BigEndian.Uint16(rest)):]
	}
	return data[:len(data)-len(rest)], nil
}

// Key that checkpoints are signed with.
func (l *Log) Key() *Key { return l.key }

// Size is how many leaves there are, published or not.
func (l *Log) Size() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.size
}

// Latest is the latest checkpoint; its Size is 0 as long as there is none.
func (l *Log) Latest() Checkpoint {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.published
}

// Entry is a leaf as the log holds it.
func (l *Log) Entry(i int64) ([]byte, error) {
	l.mu.RLock()
	size, bundle := l.size, l.entries
	l.mu.RUnlock()
	if i < 0 || i >= size {
		return nil, fmt.Errorf("leaf %d of %d", i, size)
	}
	if i/width < size/width {
		var err error
		if bundle, err = l.file(entriesLevel, i/width, width); err != nil {
			return nil, err
		}
	}
	before, err := firstEntries(bundle, int(i%width))
	if err != nil {
		return nil, err
	}
	through, err := firstEntries(bundle, int(i%width)+1)
	if err != nil {
		return nil, err
	}
	return through[len(before)+2:], nil
}

// Append adds leaves. They are not of the log before Publish.
func (l *Log) Append(leaves [][]byte) error {
	for _, leaf := range leaves {
		if len(leaf) > maxLeaf {
			return errors.New("a leaf longer than any can be")
		}
		if err := l.append(leaf); err != nil {
			return err
		}
	}
	return nil
}

// append adds a leaf. An error leaves the log as it was but for files, which are
// written again.
func (l *Log) append(leaf []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.entries)
	l.entries = append(binary.BigEndian.AppendUint16(l.entries, uint16(len(leaf))), leaf...)
	if err := l.grow(tlog.RecordHash(leaf), l.writeFull); err != nil {
		l.entries = l.entries[:before]
		return err
	}
	if l.size%width == 0 {
		l.entries = nil
	}
	return nil
}

// writeFull writes a full tile, and with one of level 0 the entry bundle. What there
// was of it in part goes: the full one holds all that.
func (l *Log) writeFull(level int, n int64, hashes []tlog.Hash) error {
	put := func(level int, data []byte) error {
		path := tilePath(level, n, width)
		if err := l.write(path, data); err != nil {
			return err
		}
		return l.files.Clear(path + ".p")
	}
	if err := put(level, join(hashes)); err != nil || level > 0 {
		return err
	}
	return put(entriesLevel, l.entries)
}

// grow adds the hash of a leaf. full is told of every tile that it makes full, the
// lowest first; its error leaves the tree as it was.
func (t *tree) grow(h tlog.Hash, full func(level int, n int64, hashes []tlog.Hash) error) error {
	if err := t.add(0, t.size/width, h, full); err != nil {
		return err
	}
	t.size++
	return nil
}

func (t *tree) add(level int, n int64, h tlog.Hash, full func(int, int64, []tlog.Hash) error) error {
	if len(t.edge) == level {
		t.edge = append(t.edge, nil)
	}
	was := t.edge[level]
	now := append(was, h)
	if len(now) < width {
		t.edge[level] = now
		return nil
	}
	err := full(level, n, now)
	if err == nil {
		err = t.add(level+1, n/width, subtree(now), full)
	}
	if err == nil {
		t.edge[level] = nil
	}
	return err
}

// subtree is the hash of a full tile.
func subtree(hashes []tlog.Hash) tlog.Hash {
	for len(hashes) > 1 {
		next := make([]tlog.Hash, len(hashes)/2)
		for i := range next {
			next[i] = tlog.NodeHash(hashes[2*i], hashes[2*i+1])
		}
		hashes = next
	}
	return hashes[0]
}

func join(hashes []tlog.Hash) []byte {
	out := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		out = append(out, h[:]...)
	}
	return out
}

// Publish makes the leaves that were appended part of the log: it writes what tiles
// there are in part, and then the checkpoint.
func (l *Log) Publish() (Checkpoint, error) {
	l.mu.RLock()
	size, published := l.size, l.published
	l.mu.RUnlock()
	if size == published.Size {
		return published, nil
	}
	for level := range l.edge {
		if w := len(l.edge[level]); w > 0 {
			if err := l.write(tilePath(level, size>>(height*(level+1)), w), join(l.edge[level])); err != nil {
				return published, err
			}
		}
	}
	if w := int(size % width); w > 0 {
		if err := l.write(tilePath(entriesLevel, size/width, w), l.entries); err != nil {
			return published, err
		}
	}
	root, err := l.root(size)
	if err != nil {
		return published, err
	}
	cp, err := l.key.checkpoint(size, root)
	if err != nil {
		return published, err
	}
	if cp.Text, err = l.witness(cp); err != nil {
		return published, err
	}
	if err := l.replace(cp.Text); err != nil {
		return published, err
	}
	l.mu.Lock()
	l.published = cp
	l.mu.Unlock()
	return cp, nil
}

// replace puts a checkpoint in the place of the one there is.
func (l *Log) replace(text []byte) error {
	have, err := l.alone()
	if err != nil {
		return err
	}
	l.unsure = append(l.unsure, text)
	if err := fork(l.files.Swap(CheckpointPath, have, text)); err != nil {
		return err
	}
	l.unsure = nil
	return nil
}

// write puts a file in its place. A tile that is there with the same bytes is left
// alone; with others it is of what was never published, and replaced, as long as nobody
// else has published since.
func (l *Log) write(path string, data []byte) error {
	have, err := l.files.Read(path)
	switch {
	case err == nil && bytes.Equal(have, data):
		return nil
	case err == nil:
		if _, err := l.alone(); err != nil {
			return err
		}
		err = l.files.Swap(path, have, data)
	case errors.Is(err, fs.ErrNotExist):
		err = l.files.Swap(path, nil, data)
	}
	return fork(err)
}

// alone gives the checkpoint that is there, which must be one of this log's own. It is
// for who publishes, and nobody else changes what it looks at.
func (l *Log) alone() (have []byte, err error) {
	have, err = l.files.Read(CheckpointPath)
	if errors.Is(err, fs.ErrNotExist) {
		have, err = nil, nil
	}
	if err == nil && !bytes.Equal(have, l.published.Text) && !slices.ContainsFunc(l.unsure, func(text []byte) bool { return bytes.Equal(have, text) }) {
		err = ErrTaken
	}
	return have, fork(err)
}

// fork is what another writer means: what it published is not taken back.
func fork(err error) error {
	if errors.Is(err, ErrTaken) {
		return fmt.Errorf("%w: %w: stop one of the two; 'writ log next --dry-run' shows whether this log is still the one of its ledger", ErrFork, err)
	}
	return err
}
