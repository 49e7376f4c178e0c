package tlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// maxLeaf is the longest leaf an entry bundle can state.
const maxLeaf = 1<<16 - 1

// Log is the log in a directory. Append and Publish are for one caller, who has the
// directory for itself; all else is safe beside them.
type Log struct {
	dir string
	key *Key

	mu        sync.RWMutex // guards what is below
	size      int64        // leaves there are, published or not
	edge      [][]tlog.Hash
	entries   []byte // the entry bundle that is not full
	published Checkpoint
}

// Open reads the log in a directory, making it if needed, and holds it to its latest
// checkpoint, which must be signed by key.
func Open(dir string, key *Key) (*Log, error) {
	const op = "tlog.Open"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, notReady(op, "the directory of the log cannot be made", "choose one the gateway's user can write to", err)
	}
	l := &Log{dir: dir, key: key}
	text, err := os.ReadFile(filepath.Join(dir, CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = l.load(text)
	}
	if err != nil {
		return nil, notReady(op, "the log in "+dir+" cannot be used", "restore it with its key from a backup; a log that was published is not begun anew", err)
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
	for level := 0; cp.Size>>(height*level) > 0; level++ {
		n := cp.Size >> (height * level)
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
	if w := int(cp.Size % width); w > 0 {
		if l.entries, err = l.file(entriesLevel, cp.Size/width, w); err != nil {
			return err
		}
	}
	l.size, l.published = cp.Size, cp
	root, err := l.root(cp.Size)
	if err == nil && root != cp.Root {
		err = fmt.Errorf("%w: its tiles give another root than its checkpoint", ErrDamaged)
	}
	return err
}

// file reads a tile or an entry bundle of a width: the partial one, or the beginning of
// the full one that has taken its place.
func (l *Log) file(level int, n int64, w int) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, tilePath(level, n, w)))
	if errors.Is(err, fs.ErrNotExist) && w < width {
		data, err = os.ReadFile(filepath.Join(l.dir, tilePath(level, n, width)))
	}
	if err != nil {
		return nil, err
	}
	if level == entriesLevel {
		return firstEntries(data, w)
	}
	if len(data) < w*tlog.HashSize || len(data)%tlog.HashSize != 0 {
		return nil, fmt.Errorf("%w: %s is too short", ErrDamaged, tilePath(level, n, w))
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
		l.mu.Lock()
		l.entries = append(binary.BigEndian.AppendUint16(l.entries, uint16(len(leaf))), leaf...)
		err := l.add(0, l.size/width, tlog.RecordHash(leaf))
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// add puts a hash at the end of a level. A tile that is full is written, and its own
// hash goes one level up. It wants the lock. An error leaves the log as it was but for
// files, which are written again.
func (l *Log) add(level int, n int64, h tlog.Hash) error {
	if len(l.edge) == level {
		l.edge = append(l.edge, nil)
	}
	if l.edge[level] = append(l.edge[level], h); level == 0 {
		l.size++
	}
	if len(l.edge[level]) < width {
		return nil
	}
	full, entries := l.edge[level], l.entries
	err := l.write(tilePath(level, n, width), join(full))
	if err == nil && level == 0 {
		err = l.write(tilePath(entriesLevel, n, width), entries)
	}
	if err == nil {
		l.edge[level] = nil
		err = l.add(level+1, n/width, subtree(full))
	}
	if err != nil {
		l.edge[level] = full[:width-1]
		if level == 0 {
			l.size--
			l.entries, _ = firstEntries(entries, width-1) // all of them were put in
		}
		return err
	}
	if level == 0 {
		l.entries = nil
		err = os.RemoveAll(filepath.Join(l.dir, tilePath(entriesLevel, n, width)+".p"))
	}
	_ = errors.Join(err, os.RemoveAll(filepath.Join(l.dir, tilePath(level, n, width)+".p"))) // the full ones hold all they did
	return nil
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
	if err := l.write(CheckpointPath, cp.Text); err != nil {
		return published, err
	}
	l.mu.Lock()
	l.published = cp
	l.mu.Unlock()
	return cp, nil
}

// write puts a file in its place, synced, in one step. A tile that is there with the
// same bytes is left alone.
func (l *Log) write(path string, data []byte) error {
	path = filepath.Join(l.dir, path)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDir makes a directory and those above it, each synced into its parent.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
